"""A chat page on plans: every answer is metered for its user, and refused once his plan is spent."""

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from paygent import Paygent, UsageEvent
from paygent_starlette import Offer, add_paygent, me_route, paygent_lifespan

HERE = Path(__file__).resolve().parent
STATIC = HERE / "static"  # the page that all the examples share
USERS = {"ada": "free", "ben": "free", "cleo": "pro"}  # who signs up for which plan
PRO = Offer("pro", "Pro", price="9.00")
MODELS = {
    "gpt-5-mini": ("OPENAI_API_KEY", AsyncOpenAI),
    "claude-haiku-4-5": ("ANTHROPIC_API_KEY", AsyncAnthropic),
}
ANSWER_TOKENS_MAX = 1024

log = logging.getLogger("chat")


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, object]]:
    pg = Paygent.get_instance()  # made by paygent_lifespan, below
    pg.on_usage(log_usage)
    for name, plan in USERS.items():
        pg.assign_plan(name, plan)
    async with AsyncExitStack() as stack:
        usable = {model: make for model, (key, make) in MODELS.items() if os.environ.get(key)}
        clients = {model: await stack.enter_async_context(make()) for model, make in usable.items()}
        yield {"pg": pg, "clients": clients}


def log_usage(event: UsageEvent) -> None:
    tokens = f"{event.input_tokens}+{event.output_tokens} tokens"
    log.info("user=%s model=%s %s cost=$%.6f", event.user_id, event.model, tokens, event.cost_total)


async def from_openai(client: AsyncOpenAI, model: str, messages: list) -> AsyncIterator[str]:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chat = {"model": model, "messages": messages, "max_completion_tokens": ANSWER_TOKENS_MAX}
    async for chunk in await client.chat.completions.create(**chat, **options):
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


async def page(request: Request) -> Response:
    name = "upgrade.html" if request.url.path == "/upgrade" else "index.html"
    return FileResponse(STATIC / name, headers={"Content-Security-Policy": "default-src 'self'"})


async def login(request: Request) -> Response:
    name = (await request.json()).get("name")
    if name not in USERS:
        return JSONResponse({"detail": "There is no such user."}, status_code=404)
    response = Response(status_code=204)
    response.set_cookie("chat_user", name, httponly=True, samesite="lax")
    return response


async def logout(_request: Request) -> Response:
    response = Response(status_code=204)
    response.delete_cookie("chat_user")
    return response


def me(request: Request) -> Response:
    if not request.user.is_authenticated:
        return JSONResponse({"user": None})
    name, state = request.user.username, request.state
    models = [row.model_dump() for row in state.pg.get_model_usage(name)]
    return JSONResponse({"user": name, "choices": list(state.clients), "models": models})


@requires("authenticated", status_code=401)
def upgrade(request: Request) -> Response:
    request.state.pg.assign_plan(request.user.username, PRO.name)  # a real app takes the money first
    return JSONResponse({"plan": PRO.name})


@requires("authenticated", status_code=401)
async def chat(request: Request) -> Response:
    asked = await request.json()
    client = request.state.clients.get(asked.get("model"))
    if client is None or not asked.get("messages"):
        return JSONResponse({"detail": "Send a model on offer and messages."}, status_code=422)
    parts = answer(client, asked["model"], asked["messages"])
    return StreamingResponse(parts, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


class NameCookie(AuthenticationBackend):
    """Who is signed in. A demo: names stand in for passwords, and the cookie is not signed."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.cookies.get("chat_user")
        return (AuthCredentials(["authenticated"]), SimpleUser(name)) if name in USERS else None


API = {"login": login, "logout": logout, "upgrade": upgrade, "chat": chat}
app = Starlette(
    lifespan=paygent_lifespan(lifespan, plans=HERE / "plans.toml"),
    middleware=[Middleware(AuthenticationMiddleware, backend=NameCookie())],
    routes=[
        Route("/", page),
        Route("/upgrade", page),
        Route("/api/me", me),
        *(Route(f"/api/{name}", endpoint, methods=["POST"]) for name, endpoint in API.items()),
        me_route(),  # GET /paygent/me: what the meter shows
        Mount("/static", StaticFiles(directory=STATIC)),
    ],
)
add_paygent(app, upgrade_url="/upgrade?from={plan}", offers={"free": PRO})
