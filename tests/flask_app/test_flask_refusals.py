import contextlib
import json
import sqlite3
import threading
from contextvars import copy_context

import anyio
import openai
import pytest
from flask import Blueprint, Flask, Response, g, jsonify, make_response, stream_with_context
from flask_world import Chat, get, sse, used

from paygent import Paygent as Core
from paygent import PaygentLimitExceeded, PaygentUnavailable, PlanConfig
from paygent_flask import Offer, Paygent


def spent(chat):
    """A view's work, refused for ben, as every kind of view does it."""

    async def asynchronous():
        return await chat.ask_async()

    return {
        "plain": chat.ask,
        "async": asynchronous,
        "stream": lambda: sse(chat.stream()),
        "stream with context": lambda: sse(stream_with_context(chat.stream())),
        "plain text stream": lambda: Response(chat.stream(), mimetype="text/plain"),
    }


KINDS = ["plain", "async", "stream", "stream with context", "plain text stream"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_spent_plan_is_a_429(kind, make_app, chat):
    """A refused call is the 429 with its upgrade, also where the first chunk of a body makes it."""
    app = make_app(spent(chat)[kind], upgrade_url="/up?from={plan}", offers={"free": Offer("pro")})
    answer = get(app, user="ben")
    assert (answer.status, answer.json["code"]) == ("429 TOO MANY REQUESTS", "period_spend")
    assert answer.json["upgrade"]["url"] == "/up?from=free"
    assert answer.headers.getlist("content-type") == ["application/json"]
    assert answer.headers.getlist("content-length") == [str(len(answer.data))]
    assert (answer.headers["x-should-retry"], answer.headers["cache-control"]) == ("false", "no-store")


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_call_charges_nothing(kind, make_app, chat, pg):
    """After a refusal nothing is posted and nothing is held."""
    get(make_app(spent(chat)[kind]), user="ben")
    assert (used(pg, "ben"), pg.get_usage("ben").reserved_cost) == (0, 0)


def test_a_browser_gets_a_page(make_app, chat):
    """The same refusal is a page where a browser opens the address, from a stream as well."""
    app = make_app(lambda: sse(chat.stream()))
    answer = get(app, user="ben", accept="text/html,*/*;q=0.8", sec_fetch_dest="document")
    assert (answer.status_code, answer.mimetype) == (429, "text/html")
    assert "You have used all of your Free plan." in answer.text


@pytest.mark.parametrize("kind", ["plain", "stream"])
def test_a_head_request_gets_no_body(kind, make_app, chat):
    """A refused HEAD request has the headers of the answer and no body."""
    view = {"plain": chat.ask, "stream": lambda: sse(list(chat.stream()))}[kind]
    answer = make_app(view).test_client().head("/", headers={"x-user": "ben"})
    assert (answer.status_code, answer.data) == (429, b"")


def test_a_started_event_stream_ends_with_an_error_event(make_app, chat):
    """A limit met after the first event is one last ``event: error``, and the body ends normally."""

    def parts():
        yield "data: first\n\n"
        chat.ask()

    answer = get(make_app(lambda: sse(parts())), user="ben")
    assert answer.status_code == 200
    first, last = (part for part in answer.text.split("\n\n") if part.strip())
    name, data = last.strip().split("\n")
    assert (first, name) == ("data: first", "event: error")
    told = json.loads(data.removeprefix("data: "))
    assert (told["type"], told["code"]) == ("error", "period_spend")


@pytest.mark.parametrize("headers", [{"content-type": "text/plain"}, {"content-encoding": "gzip"}])
def test_a_started_body_of_another_kind_is_cut(headers, make_app, chat):
    """Half of a plain text must not look whole: the server is told by the error itself."""

    def parts():
        yield "half of it"
        chat.ask()

    app = make_app(lambda: Response(parts(), headers={"content-type": "text/event-stream", **headers}))
    with pytest.raises(PaygentLimitExceeded):
        get(app, user="ben")


def test_an_unavailable_ledger_is_a_503(make_app, pg):
    """``PaygentUnavailable`` is answered with 503 and never with 429."""

    def view():
        raise PaygentUnavailable("no ledger")

    answer = get(make_app(view))
    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")


def test_nobody_is_a_401_where_the_app_says_so(make_app, chat):
    """With ``anonymous="block"`` a call that belongs to nobody is a 401."""
    answer = get(make_app(chat.ask, anonymous="block"))
    assert (answer.status_code, answer.json["code"]) == (401, "no_user")


# --- refusals in disguise -----------------------------------------------------------------------------------


def test_a_refusal_made_into_another_error_is_found(make_app, chat):
    """What a library raises from our refusal is the 429 all the same, and no error in the app's log."""

    def view():
        try:
            chat.ask()
        except PaygentLimitExceeded as error:
            raise RuntimeError("the agent failed") from error

    assert get(make_app(view), user="ben").status_code == 429


def test_a_refusal_within_a_task_group_is_found(make_app, chat):
    """Task groups wrap the refusal in an exception group; it is a 429 all the same."""

    async def view():
        async with anyio.create_task_group() as group:
            group.start_soon(chat.ask_async)
            group.start_soon(anyio.sleep, 5)

    assert get(make_app(view), user="ben").status_code == 429


def test_a_refusal_in_a_thread_leaves_the_response(make_app, chat, pg):
    """Work that a view hands to a thread is refused there, and the response goes out as it is."""
    told, threads = [], []
    pg.on_hard_gate(told.append)

    def work():
        with pytest.raises(PaygentLimitExceeded):
            chat.ask()
        told.append("refused")

    def view():
        threads.append(threading.Thread(target=copy_context().run, args=(work,)))
        threads[0].start()
        threads[0].join()
        return "later"

    answer = get(make_app(view), user="ben")
    assert (answer.status_code, answer.text) == (200, "later")
    assert told[1:] == ["refused"]
    assert used(pg, "ben") == 0


def test_a_refusal_in_an_after_request_function_is_a_429(make_app, chat):
    """A call that the app makes when the view is done is refused as one within it."""
    app = make_app(lambda: "text")

    @app.after_request
    def more(response):
        chat.ask()
        return response

    assert get(app, user="ben").status_code == 429


def test_a_refusal_in_a_before_request_function_is_a_429(make_app, chat):
    """A call that the app makes before the view is refused as one within it."""
    app = make_app(lambda: "text")
    app.before_request(lambda: chat.ask() and None)
    assert get(app, user="ben").status_code == 429


def test_a_broken_error_handler_is_an_error_of_the_app(make_app, chat, caplog):
    """A bug of the app's own error handler is not hidden behind the refusal that it was to answer."""
    app = make_app(chat.ask)

    @app.errorhandler(PaygentLimitExceeded)
    def broken(error):
        raise ValueError("a bug")

    assert get(app, user="ben").status_code == 500
    assert "ValueError: a bug" in caplog.text


def test_an_error_page_made_of_a_refusal_is_replaced(make_app, chat):
    """A handler of all errors, such as that of a REST toolkit, cannot turn a wrapped refusal into a 500."""

    def view():
        try:
            chat.ask()
        except PaygentLimitExceeded as error:
            raise RuntimeError("the agent failed") from error

    app = make_app(view)
    app.register_error_handler(Exception, lambda error: ({"message": "Internal Server Error"}, 500))
    answer = get(app, user="ben")
    assert (answer.status_code, answer.json["code"]) == (429, "period_spend")


def test_a_handled_refusal_is_the_apps_business(make_app, chat):
    """A view that catches the refusal and goes on answers what it likes."""

    def view():
        try:
            return chat.ask()
        except PaygentLimitExceeded:
            return "a cheaper answer"

    answer = get(make_app(view), user="ben")
    assert (answer.status_code, answer.text) == (200, "a cheaper answer")


@pytest.mark.parametrize("kind", ["plain", "stream"])
def test_an_error_of_the_app_stays_the_apps(kind, make_app, pg):
    """Another error is the app's own, in a view and in a body; a body's start is not sent before it."""

    def parts():
        raise ValueError("a bug")
        yield ""

    def plain():
        raise ValueError("a bug")

    app = make_app({"plain": plain, "stream": lambda: sse(parts())}[kind])
    app.testing = True
    with pytest.raises(ValueError, match="a bug"):
        get(app)


# --- the app's own answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_apps_own_error_handler_wins(when, kind, make_app, chat):
    """An error handler of the app answers instead of ours, wherever it is registered, for streams too."""

    def handler(error):
        return jsonify(said=error.refusal.code, by=g.paygent.user_id), 402

    app = Flask("app")
    if when == "before":
        app.register_error_handler(PaygentLimitExceeded, handler)
    Paygent(app, get_user_id=lambda request: "ben")
    if when == "after":
        app.register_error_handler(PaygentLimitExceeded, handler)
    app.add_url_rule("/", "view", spent(chat)[kind])
    answer = get(app)
    assert (answer.status_code, answer.json) == (402, {"said": "period_spend", "by": "ben"})


def test_a_blueprints_own_error_handler_wins(make_app, chat):
    """An error handler of a blueprint answers for the views of that blueprint, and for no other."""
    blueprint = Blueprint("part", __name__, url_prefix="/part")
    blueprint.add_url_rule("/", "view", chat.ask)
    blueprint.register_error_handler(PaygentLimitExceeded, lambda error: ("the part's own", 429))
    app = make_app(chat.ask)
    app.register_blueprint(blueprint)
    assert get(app, "/part/", user="ben").text == "the part's own"
    assert get(app, user="ben").json["code"] == "period_spend"


@pytest.mark.parametrize("kind", KINDS)
def test_a_blueprints_handler_of_all_errors_hides_no_refusal(kind, make_app, chat):
    """A 500 that a blueprint makes of every error is replaced by the 429, which SDK clients do not retry."""
    answer = get(app_with_a_catch_all(make_app(), spent(chat)[kind]), user="ben")
    assert (answer.status_code, answer.json["code"]) == (429, "period_spend")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("kind", ["plain", "stream"])
def test_the_apps_own_handler_comes_before_ours_in_such_a_blueprint(kind, make_app, chat):
    """Where a blueprint makes a 500 of every error, the app's own handler of refusals says the answer."""
    app = app_with_a_catch_all(make_app(), spent(chat)[kind])

    async def own(error):
        return {"own": error.refusal.code}, 402

    app.register_error_handler(PaygentLimitExceeded, own)
    answer = get(app, user="ben")
    assert (answer.status_code, answer.json) == (402, {"own": "period_spend"})


@pytest.mark.parametrize("kind", ["plain", "stream"])
def test_another_answer_of_a_blueprints_catch_all_stays(kind, make_app, chat):
    """What a blueprint answers to all errors, and is no 500, it means."""
    app = app_with_a_catch_all(make_app(), spent(chat)[kind], status=400)
    answer = get(app, user="ben")
    assert (answer.status_code, answer.text) == (400, "oops")


def app_with_a_catch_all(app, view, status=500):
    """Put *view* into a blueprint that answers every error alike."""
    blueprint = Blueprint("part", __name__)
    blueprint.add_url_rule("/", "part", view)
    blueprint.register_error_handler(Exception, lambda error: ("oops", status))
    app.register_blueprint(blueprint)
    return app


@pytest.mark.parametrize("kind", KINDS)
def test_on_limit_replaces_the_answer(kind, make_app, chat):
    """The option ``on_limit`` may answer with any response of the app."""

    def on_limit(request, problem):
        return make_response(f"{request.path} {problem['code']}", 402)

    answer = get(make_app(spent(chat)[kind], on_limit=on_limit), user="ben")
    assert (answer.status_code, answer.text) == (402, "/ period_spend")


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_app_says_of_every_response_stays(kind, make_app, chat):
    """Headers that the app adds to each response, such as CORS and cookies, are on the refusal too."""
    app = make_app(spent(chat)[kind])

    @app.after_request
    def cors(response):
        response.headers["Access-Control-Allow-Origin"] = "https://front.example"
        response.vary.add("Origin")
        response.set_cookie("seen", "1")
        return response

    headers = get(app, user="ben").headers
    assert headers["Access-Control-Allow-Origin"] == "https://front.example"
    assert headers["Set-Cookie"].startswith("seen=1")
    assert {value for text in headers.getlist("Vary") for value in text.split(", ")} == {"Accept", "Origin"}


@pytest.mark.parametrize("error_format", ["problem", "openai"])
def test_a_real_sdk_client_gives_up_at_once(error_format, make_app, chat, serve):
    """The OpenAI client, pointed at such an app, raises its usual error without a retry."""
    app = make_app(error_format=error_format)
    asked = []

    @app.post("/v1/chat/completions")
    def completions():
        asked.append(1)
        return sse(chat.stream())

    settings = {"base_url": f"{serve(app)}/v1", "api_key": "any", "default_headers": {"x-user": "ben"}}
    with openai.OpenAI(**settings, max_retries=2) as client, pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
    assert len(asked) == 1
    assert caught.value.response.headers["x-should-retry"] == "false"


# --- the ledger is away -------------------------------------------------------------------------------------


@pytest.fixture
def stalled(tmp_path, llm):
    """Make an app whose ledger is locked by another program; gives it and an LLM client."""
    path = tmp_path / "p.db"

    @contextlib.contextmanager
    def stalling(make_app, **options):
        pg = Core.init(db_path=path, **options)
        pg.configure_plan("pro", PlanConfig(max_spend_per_period=10.0))
        pg.assign_plan("ada", "pro")
        chat = Chat(llm.openai_base_url)
        with chat.client, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            chat.ask()  # the client's first call takes its time, whoever pays
            pg.flush()
            other.execute("BEGIN IMMEDIATE")
            yield make_app(chat.ask)
            other.execute("ROLLBACK")
        pg.shutdown()

    return stalling


@pytest.mark.parametrize(("fail_open", "status"), [(True, 200), (False, 503)])
def test_a_stalled_ledger_delays_no_request_for_long(fail_open, status, stalled, make_app, ledger_waits):
    """With the ledger away requests are served, or are a 503; the first waits for it, and nobody again."""
    with stalled(make_app, fail_open=fail_open) as app:
        assert get(app, user="cleo").status_code == status
        assert len(ledger_waits)
        ledger_waits.forget()
        answers = [get(app, user=user) for user in ("cleo", "dora", "cleo") * 5]
        assert len(ledger_waits) == 0
    assert {answer.status_code for answer in answers} == {status}
    assert fail_open or {answer.json["code"] for answer in answers} == {"unavailable"}
