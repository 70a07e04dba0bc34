"""A call of two cents per request, by the real SDK; every answer says which process gave it."""

import os

import openai
from django.contrib.auth.models import Group
from django.dispatch import receiver
from django.http import JsonResponse
from django.urls import include, path

from paygent_django.signals import usage_recorded

BILLED = {"x-llm-usage": "10,10"}  # what the LLM server reports, whatever it wrote
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Where is my parcel?"}], "max_tokens": 10}
sdk = openai.OpenAI(max_retries=0)
ids = []


@receiver(usage_recorded)
def note(event, **_):
    """Remember the calls of this request: a worker answers one at a time."""
    ids.append(str(event.id))


def user_id(request):
    return request.headers.get("x-user")


def ask(request):
    ids.clear()
    sdk.chat.completions.create(**QUESTION, extra_headers=BILLED)
    return JsonResponse({"ids": ids})


def fail(request):
    """Spend first, write then, and fail in the end."""
    ask(request)
    Group.objects.create(name="written by the view")
    raise ZeroDivisionError


def tell_pid(get_response):
    """A middleware: every answer says who gave it, refusals too."""

    def serve(request):
        response = get_response(request)
        response.headers["x-pid"] = str(os.getpid())
        return response

    return serve


def hello(request):
    return JsonResponse({})


urlpatterns = [
    path("ask", ask),
    path("fail", fail),
    path("hello", hello),
    path("stripe/", include("paygent_django.contrib.stripe.urls")),
]
