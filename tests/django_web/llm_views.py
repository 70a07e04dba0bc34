"""Views that ask a language model, each in one of the ways a Django project does."""

import asyncio
import json
import threading

import anyio
import openai
from asgiref.sync import sync_to_async
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path

MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Say something nice"}]
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
COUNT_MAX = 50


def client():
    """A client for one use; without TLS, whose set-up would cost more than the call."""
    return openai.OpenAI(max_retries=0, http_client=openai.DefaultHttpxClient(verify=False))


def client_async():
    return openai.AsyncOpenAI(max_retries=0, http_client=openai.DefaultAsyncHttpxClient(verify=False))


def ask(**extra):
    with client() as sdk:
        answer = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, **extra)
        return answer.choices[0].message.content


async def ask_async(**extra):
    async with client_async() as sdk:
        answer = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, **extra)
        return answer.choices[0].message.content


def spoken(**extra):
    with client() as sdk:
        for chunk in sdk.chat.completions.create(model=MODEL, messages=MESSAGES, **STREAM, **extra):
            if chunk.choices and chunk.choices[0].delta.content:
                yield event(chunk.choices[0].delta.content)


async def spoken_async(**extra):
    async with client_async() as sdk:
        chunks = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, **STREAM, **extra)
        async for chunk in chunks:
            if chunk.choices and chunk.choices[0].delta.content:
                yield event(chunk.choices[0].delta.content)


def controls(request):
    """How the model is to behave: ``?reply-tokens=7&latency-ms=500``."""
    return {"extra_headers": {f"x-llm-{name}": value for name, value in request.GET.items()}}


def event(text):
    return f"data: {json.dumps(text)}\n\n".encode()


def events(body, media="text/event-stream"):
    return StreamingHttpResponse(body, content_type=media)


def hello(request):
    return HttpResponse("hello")


async def hello_async(request):
    return HttpResponse("hello")


def plain(request):
    return JsonResponse({"said": ask(**controls(request)), "user": request.paygent.user_id})


async def plain_async(request):
    return JsonResponse({"said": await ask_async(**controls(request)), "user": request.paygent.user_id})


async def blocking_in_async(request):
    return JsonResponse({"said": ask()})


def stream(request):
    return events(spoken(**controls(request)))


async def stream_async(request):
    return events(spoken_async(**controls(request)))


def cookie_stream(request):
    """A stream that says something of the request itself, and something of its body."""
    response = events(spoken())
    response.set_cookie("seen", "1")
    response["Vary"], response["X-Request-Id"], response["Content-Language"] = "Origin", "7", "en"
    return response


def text_stream(request):
    def parts():
        for _ in range(COUNT_MAX):
            yield ask()

    return events(parts(), "text/plain")


def asked_until_refused():
    for _ in range(COUNT_MAX):
        yield event(ask())


async def asked_until_refused_async():
    """Each answer is noted by plain code, which asgiref runs on a thread."""
    noted = []
    for _ in range(COUNT_MAX):
        said = await ask_async()
        await sync_to_async(noted.append)(said)
        yield event(said)


def until_refused(request):
    return events(asked_until_refused())


async def until_refused_async(request):
    return events(asked_until_refused_async())


def threaded(request):
    """A call on a thread that carries the request's context along, and closes its database as Django asks."""
    import contextvars

    from django.db import connections

    def ask_and_close():
        ask(**controls(request))
        connections.close_all()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(ask_and_close,))
    thread.start()
    thread.join()
    return HttpResponse("done")


background = set()


async def afterwards(request):
    """A call that begins when the answer is already under way."""

    async def later():
        await asyncio.sleep(0.05)
        await ask_async(**controls(request))

    task = asyncio.create_task(later())
    background.add(task)
    task.add_done_callback(background.discard)
    return HttpResponse("accepted", status=202)


async def grouped(request):
    """A call in a task of a group, which wraps its exception in one of its own."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask_async)
        tasks.start_soon(anyio.sleep, 5)


async def quiet(request):
    """A stream of events without a call, and without an event."""

    async def parts():
        await asyncio.Event().wait()
        yield b"data: at last\n\n"

    return events(parts())


def used(request):
    """What the calls of this request came to, told by itself."""
    said, slot = ask(), request.paygent
    return JsonResponse(
        {"said": said, "calls": slot.calls, "tokens": slot.tokens, "cost": slot.cost, "warning": slot.warning}
    )


def broken(request):
    raise RuntimeError("a fault of the view's own")


urlpatterns = [
    path("hello", hello),
    path("hello-async", hello_async),
    path("plain", plain, name="plain"),
    path("plain-async", plain_async),
    path("blocking-in-async", blocking_in_async),
    path("stream", stream),
    path("stream-async", stream_async),
    path("cookie-stream", cookie_stream),
    path("text-stream", text_stream),
    path("until-refused", until_refused),
    path("until-refused-async", until_refused_async),
    path("threaded", threaded),
    path("afterwards", afterwards),
    path("grouped", grouped),
    path("quiet", quiet),
    path("used", used),
    path("broken", broken),
    path("paygent/", include("paygent_django.urls")),
]


def asking_middleware(get_response):
    """A project's own middleware that asks the model before the view."""

    def middleware(request):
        request.opinion = ask()
        return get_response(request)

    return middleware


def plain_middleware(get_response):
    """A middleware that knows no event loop: under ASGI it puts a thread between."""

    def middleware(request):
        response = get_response(request)
        response.headers["x-plain"] = "yes"
        return response

    return middleware
