"""A chat page on plans: every answer is metered for its user, and refused once his plan is spent."""

import json
import logging
import mimetypes
import os
from collections.abc import AsyncIterator
from pathlib import Path

import django
from anthropic import AsyncAnthropic
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.dispatch import receiver
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path
from django.views.decorators.http import require_POST
from openai import AsyncOpenAI

HERE = Path(__file__).resolve().parent
STATIC = HERE.parent / "chat_starlette" / "static"  # the page that all the examples share
USERS = {"ada": "free", "ben": "free", "cleo": "pro"}  # who signs up for which plan
PRO = {"name": "pro", "label": "Pro", "price": "9.00"}
MODELS = {
    "gpt-5-mini": ("OPENAI_API_KEY", AsyncOpenAI),
    "claude-haiku-4-5": ("ANTHROPIC_API_KEY", AsyncAnthropic),
}
CLIENTS = {model: make() for model, (key, make) in MODELS.items() if os.environ.get(key)}
ANSWER_TOKENS_MAX = 1024

log = logging.getLogger("chat")
database = os.environ.get("CHAT_DATABASE", HERE / "chat.sqlite3")
upgrade_url = "/upgrade?from={plan}"
settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "a demo signs with this"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "paygent_django"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "paygent_django.middleware.PaygentMiddleware",
    ],
    PAYGENT={"PLANS": HERE / "plans.toml", "UPGRADE_URL": upgrade_url, "OFFERS": {"free": PRO}},
)
django.setup()

from django.contrib.auth import login as sign_in, logout as sign_out  # noqa: E402, I001  # after the set-up
from django.contrib.auth.models import User  # noqa: E402
from paygent import UsageEvent  # noqa: E402
from paygent_django import conf  # noqa: E402
from paygent_django.signals import usage_recorded  # noqa: E402


@receiver(usage_recorded)
def log_usage(event: UsageEvent, **_: object) -> None:
    tokens = f"{event.input_tokens}+{event.output_tokens} tokens"
    log.info("user=%s model=%s %s cost=$%.6f", event.user_id, event.model, tokens, event.cost_total)


async def from_openai(client: AsyncOpenAI, model: str, messages: list) -> AsyncIterator[str]:
    chat = {"model": model, "messages": messages, "max_completion_tokens": ANSWER_TOKENS_MAX}
    async for chunk in await client.chat.completions.create(**chat, stream=True):
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


async def from_anthropic(client: AsyncAnthropic, model: str, messages: list) -> AsyncIterator[str]:
    async with client.messages.stream(model=model, messages=messages, max_tokens=ANSWER_TOKENS_MAX) as stream:
        async for text in stream.text_stream:
            yield text


async def answer(client: object, model: str, messages: list) -> AsyncIterator[bytes]:
    speak = from_openai if isinstance(client, AsyncOpenAI) else from_anthropic
    async for text in speak(client, model, messages):
        yield event("text", {"text": text})
    yield event("done", {})


def event(name: str, data: dict) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def page(request: HttpRequest) -> HttpResponse:
    return static(request, "upgrade.html" if request.path == "/upgrade" else "index.html")


def static(_request: HttpRequest, name: str) -> HttpResponse:
    if STATIC / name not in STATIC.iterdir():
        raise Http404
    headers = {"Content-Security-Policy": "default-src 'self'"}
    return HttpResponse((STATIC / name).read_bytes(), mimetypes.guess_type(name)[0], headers=headers)


@require_POST
def login(request: HttpRequest) -> HttpResponse:
    user = User.objects.filter(username=json.loads(request.body).get("name")).first()
    if user is None:
        return JsonResponse({"detail": "There is no such user."}, status=404)
    sign_in(request, user)  # a demo: names stand in for passwords
    return HttpResponse(status=204)


@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    sign_out(request)
    return HttpResponse(status=204)


def me(request: HttpRequest) -> JsonResponse:
    user = request.user
    if not user.is_authenticated:
        return JsonResponse({"user": None})
    models = [row.model_dump() for row in conf.paygent().get_model_usage(str(user.pk))]
    return JsonResponse({"user": user.username, "choices": list(CLIENTS), "models": models})


@require_POST
def upgrade(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    conf.paygent().assign_plan(str(request.user.pk), PRO["name"])  # a real app takes the money first
    return JsonResponse({"plan": PRO["name"]})


@require_POST
async def chat(request: HttpRequest) -> HttpResponse:
    user, asked = await request.auser(), json.loads(request.body)
    if not user.is_authenticated:
        return HttpResponse(status=401)
    client = CLIENTS.get(asked.get("model"))
    if client is None or not asked.get("messages"):
        return JsonResponse({"detail": "Send a model on offer and messages."}, status=422)
    parts = answer(client, asked["model"], asked["messages"])
    return StreamingHttpResponse(parts, "text/event-stream", headers={"Cache-Control": "no-store"})


call_command("migrate", verbosity=0)
for user_name, plan in USERS.items():
    conf.paygent().assign_plan(str(User.objects.get_or_create(username=user_name)[0].pk), plan)
urlpatterns = [path("", page), path("upgrade", page), path("static/<str:name>", static)]
urlpatterns += [path(f"api/{view.__name__}", view) for view in (me, login, logout, upgrade, chat)]
urlpatterns += [path("paygent/", include("paygent_django.urls"))]  # paygent/me: what the meter shows
app = get_asgi_application()
