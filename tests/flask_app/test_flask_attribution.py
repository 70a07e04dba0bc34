import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import flask_login
import pytest
from flask import Flask, Response, copy_current_request_context, g, request, session, stream_with_context
from flask_world import TOKENS, get, sse, used

from paygent import PaygentLimitExceeded
from paygent.context import current_payer
from paygent_flask import Paygent

# --- every place where a call can be made -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "async", "stream", "stream with context", "sized stream"])
def test_a_call_belongs_to_the_user_of_its_request(kind, make_app, chat, pg):
    """Plain and async views and bodies of every kind charge the user of the request."""

    async def asynchronous():
        return await chat.ask_async()

    def sized():
        return Response((chat.ask()[:5] for _ in "1"), headers={"Content-Length": "5"})

    view = {
        "plain": chat.ask,
        "async": asynchronous,
        "stream": lambda: sse(chat.stream()),
        "stream with context": lambda: sse(stream_with_context(chat.stream())),
        "sized stream": sized,
    }[kind]
    assert get(make_app(view), user="ada").status_code == 200
    assert used(pg) == TOKENS


def test_a_call_in_a_body_of_stated_length_is_attributed(make_app, chat, pg):
    """A response that is not held back, as its length is known, still has its body stepped for its user."""

    def body():
        yield b"half"
        chat.ask()
        yield b"half"

    answer = get(make_app(lambda: Response(body(), headers={"content-length": "8"})), user="ada")
    assert (answer.data, used(pg)) == (b"halfhalf", TOKENS)
    with pytest.raises(PaygentLimitExceeded):
        get(make_app(lambda: Response(body(), headers={"content-length": "8"})), user="ben")
    assert current_payer() is None


@pytest.mark.parametrize("when", ["before_request", "after_request", "teardown_request"])
def test_hooks_of_the_app_are_attributed(when, make_app, chat, pg):
    """What the app calls before and after its views is charged to the user of the request too."""
    app = make_app(lambda: "text")

    def hook(response=None):
        chat.ask()
        return response if when == "after_request" else None

    getattr(app, when)(hook)
    get(app, user="ada")
    assert used(pg) == TOKENS


def test_work_handed_to_a_thread_is_attributed(make_app, chat, pg):
    """A thread that was started in a copy of the request's context charges its user after the response."""
    threads = []

    def view():
        threads.append(threading.Thread(target=copy_context().run, args=(chat.ask,)))
        return "later"

    get(make_app(view), user="ada")
    threads[0].start()
    threads[0].join()
    assert used(pg) == TOKENS


def test_a_copied_request_context_is_attributed(make_app, chat, pg):
    """Flask's own way to carry a request into a thread works together with a copied context."""
    threads = []

    def view():
        ask = copy_current_request_context(chat.ask)
        threads.append(threading.Thread(target=copy_context().run, args=(ask,)))
        return "later"

    get(make_app(view), user="ada")
    threads[0].start()
    threads[0].join()
    assert used(pg) == TOKENS


def test_nothing_leaks_to_the_thread(make_app, chat, pg):
    """After a request nobody pays in its thread: plain, streamed, failed and abandoned ones alike."""

    def fails():
        chat.ask()
        raise ValueError("a bug")

    app = make_app(chat.ask)
    app.add_url_rule("/stream", "stream", lambda: sse(chat.stream()))
    app.add_url_rule("/fails", "fails", fails)
    get(app, user="ada")
    get(app, "/stream", user="ada")
    assert get(app, "/fails", user="ada").status_code == 500
    abandoned = app.test_client().get("/stream", headers={"x-user": "ada"}, buffered=False)
    next(abandoned.iter_encoded())
    assert current_payer() is None
    abandoned.close()
    assert current_payer() is None


def test_two_hundred_users_at_once_are_never_mixed(make_app, chat, pg):
    """Two hundred users who stream at the same time are each charged for their own call and no other."""
    users = [f"user-{number}" for number in range(200)]
    app = make_app(lambda: sse(chat.stream(max_tokens=5 + int(request.args["n"]))))
    pg.configure_plan("default", pg.get_user_state("ada").plan_config)
    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda n: get(app, f"/?n={n % 10}", user=users[n]).status_code, range(200)))
    assert set(answers) == {200}
    assert [used(pg, user) for user in users] == [3 + 5 + n % 10 for n in range(200)]
    assert sum(pg.get_usage(user).reserved_cost for user in users) == 0


# --- whose request it is ------------------------------------------------------------------------------------


@pytest.fixture
def login_app(pg):
    """An app with Flask-Login: ``/in/<name>`` signs in."""
    app = Flask("login")
    app.secret_key = "test"
    Paygent(app)
    manager = flask_login.LoginManager(app)
    app.loaded = []

    class User(flask_login.UserMixin):
        def __init__(self, name):
            self.id = name

    @manager.user_loader
    def load(name):
        app.loaded.append(name)
        return User(name)

    @app.get("/in/<name>")
    def sign_in(name):
        flask_login.login_user(User(name))
        return ""

    return app


@pytest.mark.parametrize("kind", ["plain", "stream", "stream with context"])
def test_the_user_of_flask_login_pays(kind, login_app, chat, pg):
    """By default it is Flask-Login's user, also where the request's context has ended before the body."""
    view = {
        "plain": chat.ask,
        "stream": lambda: sse(chat.stream()),
        "stream with context": lambda: sse(stream_with_context(chat.stream())),
    }[kind]
    login_app.add_url_rule("/chat", "chat", view)
    client = login_app.test_client()
    client.get("/in/ada")
    assert client.get("/chat", buffered=True).status_code == 200
    assert used(pg) == TOKENS


def test_a_user_who_signs_in_with_the_request_pays(login_app, chat, pg):
    """A user who is signed in by the view itself is seen by the calls after that."""

    @login_app.get("/both")
    def both():
        login_app.view_functions["sign_in"]("ada")
        return sse(chat.stream())

    assert login_app.test_client().get("/both", buffered=True).status_code == 200
    assert used(pg) == TOKENS


def test_a_page_without_a_call_does_not_load_the_user(login_app):
    """Without an LLM call Flask-Login loads nobody, for plain and for streamed responses."""
    login_app.add_url_rule("/page", "page", lambda: "no model here")
    login_app.add_url_rule("/export", "export", lambda: Response(iter(["a", "b"]), mimetype="text/csv"))
    client = login_app.test_client()
    client.get("/in/ada")
    assert (client.get("/page").text, client.get("/export").text) == ("no model here", "ab")
    assert login_app.loaded == []


def test_a_page_without_a_call_does_not_read_the_session(make_app, pg):
    """Without an LLM call the session is not read, so that ``Vary: Cookie`` stays away."""
    app = make_app(lambda: "no model here", get_user_id=None, usage_headers=True)
    assert "Vary" not in get(app).headers


def test_a_page_with_a_call_varies_by_cookie(make_app, chat):
    """A response that a plan has decided on is no other user's: a cache is told so."""
    assert get(make_app(chat.ask, get_user_id=None)).headers["Vary"] == "Cookie"


def test_without_flask_login_the_session_says_who_pays(make_app, chat, pg):
    """``session["user_id"]``, as in Flask's tutorial, is the default otherwise; a number will do."""
    app = make_app(chat.ask, get_user_id=None)
    pg.assign_plan("7", "pro")
    client = app.test_client()
    with client.session_transaction() as stored:
        stored["user_id"] = 7
    assert client.get("/").status_code == 200
    assert used(pg, "7") == TOKENS


def test_what_the_app_keeps_in_g_is_there_for_a_stream(make_app, chat, pg):
    """A finder that reads ``g`` works in a plain generator, for which Flask has already emptied ``g``."""
    app = make_app(lambda: sse(chat.stream()), get_user_id=lambda request: g.user)

    @app.before_request
    def load_user():
        g.user = "ada"

    assert get(app).status_code == 200
    assert used(pg) == TOKENS


def test_a_session_that_the_view_fills_is_there_for_its_stream(make_app, chat, pg):
    """The finder of a streamed body sees the session as the view left it."""

    def view():
        session["user_id"] = "ada"
        return sse(chat.stream())

    get(make_app(view, get_user_id=None))
    assert used(pg) == TOKENS


@pytest.mark.parametrize("kind", ["plain", "async", "stream"])
def test_an_async_finder_is_awaited(kind, make_app, chat, pg):
    """An async ``get_user_id`` works under every kind of view, also where a loop is running already."""

    async def find(request):
        return request.headers["x-user"]

    async def asynchronous():
        return await chat.ask_async()

    view = {"plain": chat.ask, "async": asynchronous, "stream": lambda: sse(chat.stream())}[kind]
    get(make_app(view, get_user_id=find), user="ada")
    assert used(pg) == TOKENS


def test_a_user_found_late_pays(make_app, chat, pg):
    """Code that learns the user in the view sets ``g.paygent.user_id``."""

    def view():
        g.paygent.user_id = "ada"
        return chat.ask()

    get(make_app(view))
    assert used(pg) == TOKENS


def test_a_failing_finder_is_logged_and_harms_nobody(make_app, chat, caplog):
    """An error in ``get_user_id`` is logged, and the call passes as nobody's."""

    def find(request):
        raise LookupError("no such session")

    assert get(make_app(chat.ask, get_user_id=find)).status_code == 200
    assert "get_user_id failed" in caplog.text


def test_a_call_in_another_apps_request_asks_its_own_user(make_app, chat, pg):
    """An app that serves another one within its own request keeps the two users apart."""
    inner = make_app(chat.ask, name="inner", get_user_id=lambda request: "ada")

    def view():
        get(inner)
        return chat.ask()

    pg.assign_plan("cleo", "pro")
    get(make_app(view, get_user_id=lambda request: "cleo"))
    assert (used(pg), used(pg, "cleo")) == (TOKENS, TOKENS)
