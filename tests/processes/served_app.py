"""The app that the servers of the tests serve: one LLM call per request, as WSGI and as ASGI."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import openai
from fleet import ask_async, ask_surely, plan

from paygent import Paygent
from paygent_starlette import PaygentMiddleware

pg = Paygent.init(db_path=os.environ["APP_LEDGER"], fail_open=False)
pg.configure_plan("default", plan(int(os.environ["APP_CALLS"])))
with openai.OpenAI(max_retries=0) as first:  # whose connection no two workers share
    ask_surely(first, "ada")  # a thread, a journal and a lease before a fork
(Path(os.environ["APP_IMPORTED"]) / str(os.getpid())).touch()
STATUS = {"answered": "200 OK", "spent": "429 Too Many Requests", "busy": "503 Service Unavailable"}


@functools.cache
def sdk():
    """One for each worker, made there: by then gevent has replaced the locks that it is made of."""
    return openai.OpenAI(max_retries=0)


def application(environ, start_response):
    """WSGI: ``/USER`` makes one call of that user."""
    outcome = ask_surely(sdk(), environ["PATH_INFO"].strip("/"))
    start_response(STATUS[outcome], [("content-type", "text/plain"), ("content-length", str(len(outcome)))])
    return [outcome.encode()]


class App:
    """The same as ASGI, with the asynchronous client."""

    def __init__(self):
        self.sdk = openai.AsyncOpenAI(max_retries=0)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        outcome = await ask_async(self.sdk, scope["path"].strip("/"))
        headers = [(b"content-length", str(len(outcome)).encode())]
        await send({"type": "http.response.start", "status": int(STATUS[outcome][:3]), "headers": headers})
        await send({"type": "http.response.body", "body": outcome.encode()})

    async def live(self, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


app = PaygentMiddleware(App())  # which leaves nothing open behind when the app has shut down
