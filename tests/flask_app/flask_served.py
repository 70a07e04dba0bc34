"""The app that real servers serve: each view makes one LLM call of the user whom a header names."""

import os
import threading
from contextvars import copy_context

from flask import Flask, Response, request
from flask_world import Chat, user_header

from paygent import Paygent as Core
from paygent import PlanConfig
from paygent.context import current_payer
from paygent_flask import Paygent

SPENT = "ben"


def create_app(chat):
    """An app on *chat*; whatever a user asks for is answered in at most ``?n=`` tokens."""
    app = Flask("served")
    paygent = Paygent(app, get_user_id=user_header)

    def size():
        return request.args.get("n", 20, int)

    @app.get("/plain")
    def plain():
        return chat.ask(max_tokens=size())

    @app.get("/stream")
    def stream():
        return Response(chat.stream(max_tokens=size()), mimetype="text/event-stream")

    @app.get("/background")
    def background():
        work = threading.Thread(target=copy_context().run, args=(chat.ask,), kwargs={"max_tokens": size()})
        work.start()
        return "later"

    @app.get("/half")
    def half():
        def parts():
            yield "half"
            chat.ask()

        return Response(parts(), mimetype=request.args["type"])

    @app.get("/usage/<user>")
    def usage(user):
        found = paygent.pg.get_usage(user)
        return {"tokens": found.period_tokens_total, "held": found.reserved_cost}

    @app.get("/leaked")
    def leaked():
        return {"leaked": app.extensions["leaked"]}

    inner, app.extensions["leaked"] = app.wsgi_app, 0

    def watch(environ, start_response):
        app.extensions["leaked"] += current_payer() is not None
        return inner(environ, start_response)

    app.wsgi_app = watch
    return app


def create_served_app():
    """The same for a server process, on the ledger and the provider that the environment names."""
    pg = Core.init(db_path=os.environ["APP_LEDGER"])
    pg.configure_plan("default", PlanConfig(max_spend_per_period=10.0))
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
    pg.assign_plan(SPENT, "free")
    chat = Chat(os.environ["OPENAI_BASE_URL"])
    if os.environ.get("APP_CALLS_BEFORE_FORK"):  # threads, a connection, a journal and a lease: all before it
        early = Chat(os.environ["OPENAI_BASE_URL"])
        with early.client:  # its connections are not for two processes
            create_app(early).test_client().get("/plain?n=5", headers={"x-user": "early"})
    return create_app(chat)
