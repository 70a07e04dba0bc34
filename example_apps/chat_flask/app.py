"""A chat page on plans: every answer is metered for its user, and refused once his plan is spent."""

import json
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from anthropic import Anthropic
from flask import Flask, Response, current_app, request, session
from flask.typing import ResponseReturnValue
from openai import OpenAI

from paygent import UsageEvent
from paygent_flask import Offer, Paygent

HERE = Path(__file__).resolve().parent
STATIC = HERE.parent / "chat_starlette" / "static"  # the page that all the examples share
USERS = {"ada": "free", "ben": "free", "cleo": "pro"}  # who signs up for which plan
PRO = Offer("pro", "Pro", price="9.00")
MODELS = {"gpt-5-mini": ("OPENAI_API_KEY", OpenAI), "claude-haiku-4-5": ("ANTHROPIC_API_KEY", Anthropic)}
ANSWER_TOKENS_MAX = 1024

log = logging.getLogger("chat")
paygent = Paygent(plans=HERE / "plans.toml", upgrade_url="/upgrade?from={plan}", offers={"free": PRO})


def create_app() -> Flask:
    app = Flask(__name__, static_folder=STATIC)
    app.secret_key = os.environ.get("SECRET_KEY") or secrets.token_bytes(32)
    app.config.update(SESSION_COOKIE_NAME="chat_flask", SESSION_COOKIE_SAMESITE="Lax")
    app.extensions["chat"] = {model: make() for model, (key, make) in MODELS.items() if os.environ.get(key)}
    paygent.init_app(app)
    paygent.pg.on_usage(log_usage)
    for name, plan in USERS.items():
        paygent.pg.assign_plan(name, plan)
    app.register_blueprint(paygent.blueprint())  # GET /paygent/me: what the meter shows
    app.add_url_rule("/", view_func=page)
    app.add_url_rule("/upgrade", view_func=page)
    app.add_url_rule("/api/me", view_func=me)
    for endpoint in (login, logout, upgrade, chat):
        app.add_url_rule(f"/api/{endpoint.__name__}", view_func=endpoint, methods=["POST"])
    return app


def log_usage(event: UsageEvent) -> None:
    tokens = f"{event.input_tokens}+{event.output_tokens} tokens"
    log.info("user=%s model=%s %s cost=$%.6f", event.user_id, event.model, tokens, event.cost_total)


def from_openai(client: OpenAI, model: str, messages: list) -> Iterator[str]:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    with client.chat.completions.create(
        model=model, messages=messages, max_completion_tokens=ANSWER_TOKENS_MAX, **options
    ) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


def from_anthropic(client: Anthropic, model: str, messages: list) -> Iterator[str]:
    with client.messages.stream(model=model, messages=messages, max_tokens=ANSWER_TOKENS_MAX) as stream:
        yield from stream.text_stream


def answer(client: object, model: str, messages: list) -> Iterator[bytes]:
    speak = from_openai if isinstance(client, OpenAI) else from_anthropic
    for text in speak(client, model, messages):
        yield event("text", {"text": text})
    yield event("done", {})


def event(name: str, data: dict) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def page() -> Response:
    name = "upgrade.html" if request.path == "/upgrade" else "index.html"
    response = current_app.send_static_file(name)
    response.headers["Content-Security-Policy"] = "default-src 'self'"
    return response


def login() -> ResponseReturnValue:
    name = request.get_json().get("name")  # a demo: a name stands in for a password
    if name not in USERS:
        return {"detail": "There is no such user."}, 404
    session["user_id"] = name  # where the extension looks by default; Flask-Login works as well
    return "", 204


def logout() -> ResponseReturnValue:
    session.clear()
    return "", 204


def me() -> ResponseReturnValue:
    name = session.get("user_id")
    if name is None:
        return {"user": None}
    models = [row.model_dump() for row in paygent.pg.get_model_usage(name)]
    return {"user": name, "choices": list(current_app.extensions["chat"]), "models": models}


def upgrade() -> ResponseReturnValue:
    if "user_id" not in session:
        return {"detail": "Sign in first."}, 401
    paygent.pg.assign_plan(session["user_id"], PRO.name)  # a real app takes the money first
    return {"plan": PRO.name}


def chat() -> ResponseReturnValue:
    if "user_id" not in session:
        return {"detail": "Sign in first."}, 401
    asked = request.get_json()
    client = current_app.extensions["chat"].get(asked.get("model"))
    if client is None or not asked.get("messages"):
        return {"detail": "Send a model on offer and messages."}, 422
    parts = answer(client, asked["model"], asked["messages"])
    return Response(parts, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})
