"""The FastAPI app that real servers serve: each endpoint makes one LLM call of the user in a header."""

import asyncio
import os

import openai
from fastapi import BackgroundTasks, FastAPI
from starlette.responses import PlainTextResponse, StreamingResponse

from paygent import Paygent, PlanConfig, paygent_context
from paygent_starlette import add_paygent, paygent_lifespan

MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Say something nice"}]
SSE = "text/event-stream"
SPENT = "ben"

pg = Paygent.init(db_path=os.environ["APP_LEDGER"])
pg.configure_plan("default", PlanConfig(max_spend_per_period=10.0))
pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
pg.assign_plan(SPENT, "free")


def client():
    """A client for one use; without TLS, whose set-up would cost more than the call."""
    return openai.OpenAI(max_retries=0, http_client=openai.DefaultHttpxClient(verify=False))


def client_async():
    return openai.AsyncOpenAI(max_retries=0, http_client=openai.DefaultAsyncHttpxClient(verify=False))


async def asked(n, **extra):
    async with client_async() as sdk:
        return await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=n, **extra)


async def spoken(n):
    async with client_async() as sdk:
        options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": n}
        async for chunk in await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, **options):
            if chunk.choices and chunk.choices[0].delta.content:
                yield f"data: {chunk.choices[0].delta.content}\n\n"


if os.environ.get("APP_CALLS_BEFORE_FORK"):  # with --preload: a thread, a journal and a lease before the fork
    with client() as early, paygent_context("early"):
        early.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=5)
tasks = []
app = FastAPI(lifespan=paygent_lifespan())
add_paygent(app, get_user_id=lambda request: request.headers.get("x-user"))


@app.get("/plain")
async def plain(n: int = 20):
    return (await asked(n)).choices[0].message.content


@app.get("/stream")
async def stream(n: int = 20):
    return StreamingResponse(spoken(n), media_type=SSE)


@app.get("/background")
async def background(later: BackgroundTasks, n: int = 20):
    later.add_task(asked, n)
    return "later"


@app.get("/task")
async def task(n: int = 20):
    """Work that outlives its request, and that nobody waits for."""
    tasks.append(asyncio.create_task(asked(n)))  # a task that nobody holds may be collected
    return "later"


@app.get("/thread")
def thread(n: int = 20):
    """A plain endpoint, which runs on a worker thread, with the synchronous client."""
    with client() as sdk:
        return sdk.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=n).id


@app.get("/half")
async def half(media: str):
    async def parts():
        yield "half"
        await asked(20)

    return StreamingResponse(parts(), media_type=media)


@app.get("/usage/{user}")
def usage(user: str):
    found = pg.get_usage(user)
    return {"tokens": found.period_tokens_total, "held": found.reserved_cost}


@app.get("/up")
async def up():
    return PlainTextResponse("up")
