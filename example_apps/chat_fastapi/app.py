"""A chat page on plans: every answer is metered for its user, and refused once his plan is spent."""

import json
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

from anthropic import AsyncAnthropic
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from openai import AsyncOpenAI
from pydantic import BaseModel, Field
from starlette.middleware.sessions import SessionMiddleware

from paygent import Paygent, UsageEvent
from paygent_starlette import Offer, add_paygent, check_limits, me_endpoint, paygent_lifespan, paygent_user

HERE = Path(__file__).resolve().parent
STATIC = HERE.parent / "chat_starlette" / "static"  # the page that all the examples share
USERS = {"ada": "free", "ben": "free", "cleo": "pro"}  # who signs up for which plan
PRO = Offer("pro", "Pro", price="9.00")
MODELS = {
    "gpt-5-mini": ("OPENAI_API_KEY", AsyncOpenAI),
    "claude-haiku-4-5": ("ANTHROPIC_API_KEY", AsyncAnthropic),
}
ANSWER_TOKENS_MAX = 1024

log = logging.getLogger("chat")


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, object]]:
    pg = Paygent.get_instance()  # made by paygent_lifespan, below
    pg.on_usage(log_usage)
    for name, plan in USERS.items():
        pg.assign_plan(name, plan)
    async with AsyncExitStack() as stack:
        usable = {model: make for model, (key, make) in MODELS.items() if os.environ.get(key)}
        clients = {model: await stack.enter_async_context(make()) for model, make in usable.items()}
        yield {"pg": pg, "clients": clients}


app = FastAPI(title="Chat on a plan", lifespan=paygent_lifespan(lifespan, plans=HERE / "plans.toml"))
app.add_middleware(SessionMiddleware, secret_key=os.environ.get("SECRET_KEY") or secrets.token_hex())
app.mount("/static", StaticFiles(directory=STATIC))
add_paygent(app, upgrade_url="/upgrade?from={plan}", offers={"free": PRO})


def log_usage(event: UsageEvent) -> None:
    tokens = f"{event.input_tokens}+{event.output_tokens} tokens"
    log.info("user=%s model=%s %s cost=$%.6f", event.user_id, event.model, tokens, event.cost_total)


def get_current_user(request: Request) -> str:
    if request.session.get("user") not in USERS:
        raise HTTPException(401, "Sign in first.")
    return request.session["user"]


get_payer = paygent_user(get_current_user)  # the same user, who also pays
User = Annotated[str, Depends(get_payer)]


class Message(BaseModel):
    role: Literal["user", "assistant"]
    content: str


class Question(BaseModel):
    model: str
    messages: list[Message] = Field(min_length=1)


class Login(BaseModel):
    name: str


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


@app.get("/", include_in_schema=False)
@app.get("/upgrade", include_in_schema=False)
async def page(request: Request) -> FileResponse:
    name = "upgrade.html" if request.url.path == "/upgrade" else "index.html"
    return FileResponse(STATIC / name, headers={"Content-Security-Policy": "default-src 'self'"})


@app.post("/api/login", status_code=204)
async def login(asked: Login, request: Request) -> None:
    if asked.name not in USERS:
        raise HTTPException(404, "There is no such user.")
    request.session["user"] = asked.name  # a demo: a name stands in for a password


@app.post("/api/logout", status_code=204)
async def logout(request: Request) -> None:
    request.session.clear()


@app.get("/api/me")
def me(request: Request) -> dict:
    name, state = request.session.get("user"), request.state
    if name not in USERS:
        return {"user": None}
    return {"user": name, "choices": list(state.clients), "models": state.pg.get_model_usage(name)}


app.get("/paygent/me", dependencies=[Depends(get_payer)])(me_endpoint)  # what the meter shows


@app.post("/api/upgrade")
def upgrade(user: User, request: Request) -> dict:
    request.state.pg.assign_plan(user, PRO.name)  # a real app takes the money first
    return {"plan": PRO.name}


@app.post("/api/chat", dependencies=[Depends(get_payer), Depends(check_limits())])
async def chat(asked: Question, request: Request) -> StreamingResponse:
    if asked.model not in request.state.clients:
        raise HTTPException(422, "Send a model on offer and messages.")
    messages = [message.model_dump() for message in asked.messages]
    parts = answer(request.state.clients[asked.model], asked.model, messages)
    return StreamingResponse(parts, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
