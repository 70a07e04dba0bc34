"""The example apps over HTTP, as their page drives them, started as their READMEs say."""

import re

import httpx
import pytest
from served_apps import EXAMPLES, ROOT, readme_command, served

from paygent.testing.llm_server import LLMServer

SENDS_MAX = 8


@pytest.fixture(scope="module")
def apps(tmp_path_factory):
    commands = {name: readme_command(name) for name in EXAMPLES}
    with (
        LLMServer(reply_tokens=450) as llm,
        served(commands, tmp_path_factory.mktemp("apps"), llm) as running,
    ):
        yield running


@pytest.fixture(params=EXAMPLES)
def browser(request, apps):
    with httpx.Client(base_url=apps[request.param].until_up().url, trust_env=False, timeout=60) as client:
        yield client


def sign_in(browser, name):
    assert browser.post("/api/login", json={"name": name}).status_code == 204
    return browser.get("/paygent/me").raise_for_status().json()


def ask(browser, model="claude-haiku-4-5"):
    message = {"role": "user", "content": "How do I start?"}
    return browser.post("/api/chat", json={"model": model, "messages": [message]})


@pytest.mark.parametrize("model", ["gpt-5-mini", "claude-haiku-4-5"])
def test_an_answer_is_streamed_and_metered(model, browser):
    """Both providers' answers arrive as events with an end, and are in the user's usage right after it."""
    used = float(sign_in(browser, "cleo")["used"])
    answer = ask(browser, model)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.count("event: text") > 1
    assert answer.text.endswith("event: done\ndata: {}\n\n")
    assert float(browser.get("/paygent/me").json()["used"]) > used
    rows = {row["model"]: row["cost"] for row in browser.get("/api/me").json()["models"]}
    assert rows[model] > 0


def test_the_way_from_ok_to_blocked_to_upgraded(browser):
    """A free user is warned, then refused with the offer, and passes again right after the upgrade."""
    sign_in(browser, "ada")
    states, answers = [], []
    for _ in range(SENDS_MAX):
        answers.append(ask(browser))
        states.append(browser.get("/paygent/me").json()["state"])
        if answers[-1].status_code != 200:
            break
    assert list(dict.fromkeys(states)) == ["ok", "soft_gate", "hard_gate"]
    problem = answers[-1].json()
    assert (answers[-1].status_code, problem["code"]) == (429, "period_spend")
    assert problem["upgrade"]["label"] == "Upgrade to Pro"
    assert "Upgrade to Pro" in browser.get(problem["upgrade"]["url"]).raise_for_status().text
    used = browser.get("/paygent/me").json()["used"]
    assert browser.post("/api/upgrade").json() == {"plan": "pro"}
    account = browser.get("/paygent/me").json()
    assert (account["plan"]["name"], account["used"], account["state"]) == ("pro", used, "ok")
    assert ask(browser).status_code == 200


def test_users_do_not_share_their_plans(browser):
    """What one user spends shows on no other's meter."""
    sign_in(browser, "cleo")
    ask(browser)
    assert float(sign_in(browser, "ben")["used"]) == 0
    assert float(sign_in(browser, "cleo")["used"]) > 0


def test_nobody_reaches_the_models(browser):
    """Without a sign-in there is no account, no usage, no answer and no upgrade."""
    assert browser.get("/api/me").json() == {"user": None}
    assert browser.get("/paygent/me").status_code == 401
    assert ask(browser).status_code == 401
    assert browser.post("/api/upgrade").status_code == 401
    assert browser.post("/api/login", json={"name": "mallory"}).status_code == 404


def test_who_signs_out_is_nobody(browser):
    """After signing out the browser is nobody's."""
    sign_in(browser, "cleo")
    assert browser.post("/api/logout").status_code == 204
    assert browser.get("/api/me").json() == {"user": None}


def test_a_model_that_is_not_on_offer_is_refused(browser):
    """Only the models on offer can be asked."""
    sign_in(browser, "cleo")
    assert ask(browser, "gpt-99").status_code == 422


@pytest.mark.parametrize("address", ["/", "/upgrade"])
def test_the_pages_bring_all_they_need(address, browser):
    """A page loads nothing from elsewhere, has no inline code or style, and all its files are there."""
    page = browser.get(address)
    assert page.headers["content-security-policy"] == "default-src 'self'"
    assert not re.search(r"<style|style=|onclick=|<script(?![^>]*src=)|https?://", page.text)
    wanted = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {browser.get(address).status_code for address in wanted} == {200}
    assert browser.get("/static/no-such-file").status_code == 404


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_app_stays_short(name):
    """Each example fits on a few screens."""
    folder = ROOT / "example_apps" / name
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.glob("**/*.py"))
    assert lines <= 150


@pytest.mark.parametrize("name", ["chat_flask", "chat_django"])
def test_an_app_needs_no_key(name, tmp_path):
    """Without any provider's key the README's command serves answers of a loopback server, and says so."""
    with served({name: readme_command(name)}, tmp_path) as running:
        app = running[name].until_up()
        with httpx.Client(base_url=app.url, trust_env=False, timeout=60) as client:
            sign_in(client, "ada")
            assert "event: done" in ask(client).text
        assert "a loopback server answers, at no cost" in app.said()
        assert app.url in app.said()
