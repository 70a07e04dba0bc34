"""Real Flask apps, with the real SDK talking to the loopback LLM server."""

import contextlib

import pytest
from flask import Flask
from flask_world import Chat, serving, user_header
from ledger_waits import ledger_waits

from paygent import Paygent as Core
from paygent import PlanConfig
from paygent.testing.llm_server import LLMServer
from paygent_flask import Paygent

__all__ = ["ledger_waits"]


@pytest.fixture(scope="session")
def llm():
    with LLMServer(reply_tokens=20) as server:
        yield server


@pytest.fixture
def pg():
    """``ada`` may spend, ``ben``'s plan is spent."""
    pg = Core.init(ledger="memory://")
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
    pg.configure_plan("pro", PlanConfig(max_spend_per_period=10.0))
    pg.assign_plan("ada", "pro")
    pg.assign_plan("ben", "free")
    yield pg
    pg.shutdown()


@pytest.fixture
def shut_down():
    """For apps that initialise Paygent themselves."""
    yield
    if Core.get_instance() is not None:
        Core.get_instance().shutdown()


@pytest.fixture
def chat(llm, pg):
    chat = Chat(llm.openai_base_url)
    with chat.client:
        yield chat


@pytest.fixture
def make_app():
    """Make an app with the extension; users name themselves in a header unless options say otherwise."""

    def make(view=None, *, name="app", **options):
        app = Flask(name)
        app.secret_key = "test"
        Paygent(app, **{"get_user_id": user_header, **options})
        if view is not None:
            app.add_url_rule("/", "view", view)
        return app

    return make


@pytest.fixture
def serve():
    """Serve apps on Werkzeug's threaded server; gives the URL."""
    with contextlib.ExitStack() as stack:
        yield lambda app: stack.enter_context(serving(app))
