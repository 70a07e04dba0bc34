"""Real Starlette apps on real uvicorn, with the real SDK talking to the loopback LLM server."""

import contextlib

import openai
import pytest
from ledger_waits import ledger_waits
from starlette.applications import Starlette
from starlette.middleware import Middleware

from paygent import Paygent, PlanConfig
from paygent.cli._servers import serving
from paygent.testing.llm_server import LLMServer
from paygent_starlette import PaygentMiddleware

__all__ = ["ledger_waits"]

MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Say something nice"}]


@pytest.fixture(scope="session")
def llm():
    with LLMServer(reply_tokens=20) as server:
        yield server


@pytest.fixture
def pg():
    """``ada`` may spend, ``ben``'s plan is spent."""
    pg = Paygent.init(ledger="memory://")
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
    pg.configure_plan("pro", PlanConfig(max_spend_per_period=10.0))
    pg.assign_plan("ada", "pro")
    pg.assign_plan("ben", "free")
    yield pg
    pg.shutdown()


class Chat:
    """LLM calls for endpoints: a client per call, so that no connection outlives its event loop."""

    def __init__(self, base_url):
        self._settings = {"base_url": base_url, "api_key": "any", "max_retries": 0}

    async def ask(self, **extra):
        async with openai.AsyncOpenAI(**self._settings) as client:
            answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES, **extra)
            return answer.choices[0].message.content

    def ask_sync(self):
        with openai.OpenAI(**self._settings) as client:
            return client.chat.completions.create(model=MODEL, messages=MESSAGES).choices[0].message.content

    async def stream(self, **extra):
        options = {"stream": True, "stream_options": {"include_usage": True}, **extra}
        async with openai.AsyncOpenAI(**self._settings) as client:
            async for chunk in await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, **options
            ):
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content


@pytest.fixture
def chat(llm, pg):
    return Chat(llm.openai_base_url)


def user_header(connection):
    return connection.headers.get("x-user")


@pytest.fixture
def host():
    """Serve any ASGI app for the length of a test."""
    with contextlib.ExitStack() as stack:
        yield lambda app: stack.enter_context(serving(app, 0))


@pytest.fixture
def serve():
    """Serve routes behind the middleware; users name themselves in a header unless options say otherwise."""
    with contextlib.ExitStack() as stack:

        def start(*routes, outside=(), bare=False, **options):
            # However slow the machine, the start of a stream waits for its first part.
            options = {"get_user_id": user_header, "defer_start_s": 60, **options}
            middleware = [] if bare else [*outside, Middleware(PaygentMiddleware, **options)]
            return stack.enter_context(serving(Starlette(routes=routes, middleware=middleware), 0))

        yield start
