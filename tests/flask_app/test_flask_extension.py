import json
from html.parser import HTMLParser

import pytest
from flask import Blueprint, Flask, Response, g, render_template_string, request, send_file
from flask.views import MethodView
from flask_world import TOKENS, get, sse, used, user_header

from paygent import Paygent as Core
from paygent import PlanConfig, paygent_context
from paygent_flask import Paygent, exempt, require_budget, tag

# --- options and config -----------------------------------------------------------------------------------


def test_an_application_factory_sets_up_each_of_its_apps(chat, pg):
    """One extension object serves several apps, each with the options of its own config."""
    paygent = Paygent(get_user_id=user_header)

    def create_app(upgrade_url):
        app = Flask("made")
        app.config["PAYGENT_UPGRADE_URL"] = upgrade_url
        paygent.init_app(app)
        app.add_url_rule("/", "view", chat.ask)
        return app

    for url, app in [(url, create_app(url)) for url in ("/a", "/b")]:
        assert get(app, user="ben").json["upgrade"]["url"] == url
    assert paygent.pg is pg


def test_an_argument_wins_over_the_config(chat, pg):
    """What the extension is given counts more than what the config says."""
    app = Flask("app")
    app.config.update(PAYGENT_STATUS_CODE=402, PAYGENT_EXPOSE_AMOUNTS=False)
    Paygent(app, status_code=429, get_user_id=lambda request: "ben")
    app.add_url_rule("/", "view", chat.ask)
    answer = get(app)
    assert (answer.status_code, answer.json["limit"]) == (429, {"unit": "usd", "model": None})


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({"PAYGENT_UPGRADE_ULR": "/up"}, {}, "did you mean PAYGENT_UPGRADE_URL"),
        ({}, {"upgrade_ulr": "/up"}, "did you mean upgrade_url"),
        ({"PAYGENT_STATUS_CODE": 500}, {}, "status_code=500"),
    ],
)
def test_a_wrong_option_is_named_when_the_app_starts(config, options, message):
    """A misspelt or impossible option fails at the set-up, with a message that names it."""
    app = Flask("app")
    app.config.update(config)
    with pytest.raises((TypeError, ValueError), match=message):
        Paygent(app, **options)
    assert "paygent" not in app.extensions


def test_a_second_set_up_changes_nothing(make_app, chat, pg):
    """``init_app`` on an app that is set up already warns, and calls are still metered once."""
    app = make_app(chat.ask)
    with pytest.warns(UserWarning, match="set up twice"):
        Paygent(app, get_user_id=lambda request: "nobody-else")
    get(app, user="ada")
    assert used(pg) == TOKENS


def test_the_core_is_made_from_the_config_where_the_app_has_not(tmp_path, llm, shut_down):
    """Without ``paygent.Paygent.init()`` the first request makes it, with the config's arguments for it."""
    plans = tmp_path / "plans.toml"
    plans.write_text("[plans.free]\nmax_spend_per_period = 0\n")
    app = Flask("app")
    app.config.update(PAYGENT_LEDGER="memory://", PAYGENT_PLANS=plans)
    paygent = Paygent(app)
    app.add_url_rule("/", "view", lambda: "text")
    assert Core.get_instance() is None
    get(app)
    assert Core.get_instance() is paygent.pg is app.extensions["paygent"].pg
    assert paygent.pg.assign_plan("ada", "free").plan_config.max_spend_per_period == 0


def test_the_apps_own_init_wins(pg):
    """The extension's arguments for the core count only where the app has made none."""
    app = Flask("app")
    paygent = Paygent(app, ledger="sqlite:///nowhere/at/all.db")
    app.add_url_rule("/", "view", lambda: "text")
    get(app)
    assert paygent.pg is pg


def test_a_core_that_cannot_be_made_harms_no_request(shut_down, caplog):
    """Requests are served where ``init()`` fails; who asks for the core is told."""
    app = Flask("app")
    paygent = Paygent(app, ledger="nonsense://")
    app.add_url_rule("/", "view", lambda: "text")
    assert get(app).text == "text"
    assert "Paygent.init() failed" in caplog.text
    with pytest.raises(RuntimeError, match="not running"):
        _ = paygent.pg


def test_switched_off_it_leaves_the_app_alone(make_app, chat, pg):
    """With ``PAYGENT_ENABLED`` false nothing is attributed or gated; views may still read ``g.paygent``."""
    app = make_app(lambda: f"{chat.ask()[:0]}{g.paygent.calls} {g.paygent.user_id}")
    app.config["PAYGENT_ENABLED"] = False
    assert get(app, user="ben").text == "0 ben"
    app.config["PAYGENT_ENABLED"] = True
    assert get(app, user="ben").status_code == 429


def test_report_only_lets_the_call_run_and_posts_it(make_app, chat, pg):
    """With ``report_only`` a call beyond the limit is answered, and counted."""
    assert get(make_app(chat.ask, report_only=True), user="ben").status_code == 200
    assert used(pg, "ben") == TOKENS


def test_an_outer_context_does_not_pay_for_a_request(make_app, chat, pg):
    """Who calls the app within a context of his own, as tests do, is not charged for the app's users."""
    with paygent_context("cleo"):
        get(make_app(chat.ask), user="ada")
    assert (used(pg), used(pg, "cleo")) == (TOKENS, 0)


# --- what views can say -----------------------------------------------------------------------------------


def test_a_request_knows_what_it_has_cost(make_app, chat, pg):
    """``g.paygent`` has the user, and what the calls so far came to."""

    def view():
        chat.ask()
        chat.ask()
        slot = g.paygent
        return {"user": slot.user_id, "calls": slot.calls, "tokens": slot.tokens, "cost": slot.cost}

    found = get(make_app(view), user="ada").json
    assert found == {"user": "ada", "calls": 2, "tokens": 2 * TOKENS, "cost": pg.get_usage("ada").period_cost}


def test_a_request_knows_of_a_warning(make_app, chat, pg):
    """``g.paygent.warning`` is a sentence once a soft mark is passed, and ``None`` before."""
    pg.configure_plan("pro", PlanConfig(max_spend_per_period=10.0, soft_gate_at=0.0))
    app = make_app(lambda: {"before": g.paygent.warning, "text": chat.ask(), "after": g.paygent.warning})
    found = get(app, user="ada").json
    assert found["before"] is None
    assert "%" in found["after"]


def test_an_app_keeps_its_own_g_paygent(make_app, pg):
    """An app that puts something of its own into ``g.paygent`` gets that back; outside there is nothing."""

    def view():
        g.paygent = "mine"
        return g.paygent

    app = make_app(view)
    assert get(app).text == "mine"
    with app.app_context():
        assert g.paygent is None


@pytest.mark.parametrize("way", ["decorator", "blueprint", "path", "endpoint", "function", "method view"])
def test_exempt_requests_pass_unmetered(way, make_app, chat, pg):
    """An exempt view, blueprint, path, endpoint or request is neither gated nor counted, streams included."""
    blueprint = Blueprint("part", __name__)
    options = {
        "path": {"exempt": ["/free"]},
        "endpoint": {"exempt": ["part.free"]},
        "function": {"exempt": [lambda found: found is request._get_current_object()]},
    }.get(way, {})

    def view():
        return sse(chat.stream())

    class View(MethodView):
        decorators = (exempt,)

        def get(self):
            return sse(chat.stream())

    view = {"decorator": exempt(view), "method view": View.as_view("free")}.get(way, view)
    blueprint.add_url_rule("/free", "free", view)
    app = make_app(**options)
    app.register_blueprint(exempt(blueprint) if way == "blueprint" else blueprint)
    assert get(app, "/free", user="ben").status_code == 200
    assert used(pg, "ben") == 0


@pytest.mark.parametrize("way", ["decorator", "blueprint", "async"])
def test_a_tag_is_on_each_event(way, make_app, chat, pg):
    """``tag`` notes its words on the usage events of a view's or a blueprint's requests."""
    events = []
    pg.on_usage(events.append)
    blueprint = Blueprint("part", __name__)

    async def asynchronous():
        return await chat.ask_async()

    mark = tag(feature="summary")
    view = {"decorator": mark(chat_view(chat)), "async": mark(asynchronous)}.get(way, chat_view(chat))
    blueprint.add_url_rule("/", "view", view)
    app = make_app()
    app.register_blueprint(mark(blueprint) if way == "blueprint" else blueprint)
    get(app, user="ada")
    assert [event.metadata["feature"] for event in events] == ["summary"]


def chat_view(chat):
    def view():
        return chat.ask()

    return view


@pytest.mark.parametrize("way", ["decorator", "blueprint", "async"])
def test_a_budget_is_asked_for_before_the_view_runs(way, make_app, pg):
    """``require_budget`` answers 429 before the view; who can pay, and nobody, goes on."""
    seen = []
    blueprint = Blueprint("part", __name__)

    def view():
        seen.append(user_header(request))
        return "ran"

    async def asynchronous():
        return view()

    demand = require_budget(0.01)
    blueprint.add_url_rule(
        "/", "view", {"decorator": demand(view), "async": demand(asynchronous)}.get(way, view)
    )
    app = make_app()
    app.register_blueprint(demand(blueprint) if way == "blueprint" else blueprint)
    assert [get(app, user=user).status_code for user in ("ada", "ben", None)] == [200, 429, 200]
    assert seen == ["ada", None]


def test_the_verbs_are_on_the_extension_too():
    """``paygent.exempt``, ``.tag`` and ``.require_budget`` are the module's functions."""
    assert (Paygent.exempt, Paygent.tag, Paygent.require_budget) == (exempt, tag, require_budget)


# --- what users see ---------------------------------------------------------------------------------------


def test_a_response_tells_the_usage_where_asked_to(make_app, chat, pg):
    """With ``usage_headers`` responses say plan and limit, those without a call nothing."""
    app = make_app(chat.ask, usage_headers=True)
    app.add_url_rule("/page", "page", lambda: "text")
    headers = get(app, user="ada").headers
    assert (headers["Paygent-Plan"], headers["Paygent-Limit"]) == ("pro", "10.00")
    assert not [name for name in get(app, "/page", user="ada").headers if name[0].startswith("Paygent")]


def test_a_user_can_read_his_own_usage(make_app, chat, pg):
    """The blueprint answers ``GET /paygent/me`` with plan and usage, and 401 for nobody."""
    app = make_app(chat.ask)
    app.register_blueprint(Paygent().blueprint())
    get(app, user="ada")
    shown = get(app, "/paygent/me", user="ada")
    assert (shown.json["plan"]["name"], shown.json["state"], shown.json["limit"]) == ("pro", "ok", "10.00")
    assert float(shown.json["used"]) > 0
    assert shown.headers["Cache-Control"] == "no-store"
    nobody = get(app, "/paygent/me")
    assert (nobody.status_code, nobody.json["code"]) == (401, "no_user")


class Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def shown_meter(make_app, user, **options):
    app = make_app(lambda: render_template_string("{{ paygent_meter() }}"), **options)
    return get(app, user=user).text


def test_a_template_shows_the_meter(make_app, chat, pg):
    """``{{ paygent_meter() }}`` is a labelled ``<meter>`` with a sentence, without script or style."""
    pg.record_event("ada", cost=2.5)
    text = shown_meter(make_app, "ada")
    tags = dict(Tags(text).tags)
    assert tags["meter"]["aria-label"] == "Used of the plan Pro"
    assert [tags["meter"][name] for name in ("min", "max", "value")] == ["0", "100", "25.0"]
    assert "Pro: $2.50 of $10.00 used" in text
    assert not {"script", "style"} & set(tags)
    assert not any({"style", "onclick"} & set(attributes) for attributes in tags.values())


def test_the_meter_keeps_amounts_to_itself_where_asked_to(make_app, pg):
    """With ``expose_amounts=False`` the meter speaks of percent only."""
    text = shown_meter(make_app, "ben", expose_amounts=False)
    assert "$" not in text
    assert "Free: 100% used" in text


def test_the_meter_escapes_the_name_of_a_plan(make_app, pg):
    """A plan's name cannot break out of the page."""
    pg.configure_plan('"><script>', PlanConfig(max_spend_per_period=1.0))
    pg.assign_plan("eve", '"><script>')
    assert "<script" not in shown_meter(make_app, "eve").lower()


def test_the_meter_is_empty_for_nobody(make_app, pg):
    """A page for somebody who is not signed in shows no meter."""
    assert shown_meter(make_app, None) == ""


def test_a_plan_without_a_limit_has_no_bar(make_app, pg):
    """For an unlimited plan the meter says what is used, and draws no bar."""
    pg.configure_plan("open", PlanConfig())
    pg.assign_plan("ada", "open")
    text = shown_meter(make_app, "ada")
    assert "Open: $0.00 used" in text
    assert "<meter" not in text


# --- the command line ---------------------------------------------------------------------------------------


def run(app, *words):
    found = app.test_cli_runner().invoke(args=["paygent", *words])
    assert found.exit_code == 0, found.output
    return found.output


def test_the_command_line_shows_a_users_usage(make_app, chat, pg):
    """``flask paygent usage`` shows plan, usage and models of a user."""
    app = make_app(chat.ask)
    get(app, user="ada")
    found = json.loads(run(app, "usage", "ada", "--json"))
    assert (found["user"], found["plan"], found["limit"]) == ("ada", "pro", "10.00")
    assert [(row["model"], row["tokens_used"]) for row in found["models"]] == [("gpt-4o-mini", TOKENS)]
    assert "gpt-4o-mini" in run(app, "usage", "ada")


def test_the_command_line_lists_the_plans(make_app, pg):
    """``flask paygent plans`` lists the plans with what is set of them."""
    assert json.loads(run(make_app(), "plans", "--json")) == {
        "free": {"max_spend_per_period": 0.0},
        "pro": {"max_spend_per_period": 10.0},
    }
    assert "max_spend_per_period 10.0" in run(make_app(), "plans")


def test_the_command_line_shows_whether_all_is_well(make_app, pg):
    """``flask paygent status`` shows whether the SDKs are patched and what waits for delivery."""
    found = json.loads(run(make_app(), "status", "--json"))
    assert (found["mode"], found["instrumented"], found["degraded"]) == ("local", True, False)
    assert "instrumented" in run(make_app(), "status")


# --- everything else stays as it is -----------------------------------------------------------------------


def routes(app, tmp_path):
    app.add_url_rule("/file", "file", lambda: send_file(tmp_path / "file.bin"))
    app.add_url_rule("/empty", "empty", lambda: "")
    app.add_url_rule("/nothing", "nothing", lambda: ("", 204))
    app.add_url_rule("/text", "text", lambda: ("text", {"X-Own": "1"}))
    app.add_url_rule("/parts", "parts", lambda: Response(iter(["", "a", "", "b"])))
    app.add_url_rule("/no-parts", "no_parts", lambda: Response(iter([])))
    return app


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/file", "/empty", "/nothing", "/text", "/parts", "/no-parts", "/404"])
def test_other_responses_are_untouched(method, path, make_app, pg, tmp_path):
    """Files, empty bodies, 204, streams and HEAD are sent byte for byte as without the extension."""
    (tmp_path / "file.bin").write_bytes(bytes(range(256)) * 1000)
    (with_it, without) = (
        routes(app, tmp_path).test_client().open(path, method=method, buffered=True)
        for app in (make_app(), Flask("bare"))
    )
    assert (with_it.status, with_it.data) == (without.status, without.data)
    assert {**with_it.headers, "Date": ""} == {**without.headers, "Date": ""}


def test_a_file_reaches_the_servers_own_way_to_send_it(make_app, pg, tmp_path):
    """A server that sends files by itself gets the very object that it made for that."""
    (tmp_path / "file.bin").write_bytes(b"content")

    class FileWrapper:
        def __init__(self, file, size=8192):
            self.file = file

        def close(self):
            self.file.close()

    app = routes(make_app(), tmp_path)
    environ = app.test_request_context("/file").request.environ
    body = app({**environ, "wsgi.file_wrapper": FileWrapper}, lambda status, headers: None)
    body.close()
    assert type(body) is FileWrapper


def test_a_body_is_closed_once(make_app, pg):
    """What a body cleans up is cleaned up when the client goes away, and once."""
    closed = []

    def parts():
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(1)

    answer = make_app(lambda: Response(parts())).test_client().get("/", buffered=False)
    next(answer.iter_encoded())
    answer.close()
    answer.close()
    assert closed == [1]
