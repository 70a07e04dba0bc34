"""The example app over HTTP, behind the server that its README names."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from paygent.testing.llm_server import LLMServer

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "example_apps" / "chat_django"
START_S_MAX = 30


@pytest.fixture(scope="module")
def llm():
    with LLMServer(reply_tokens=200) as server:
        yield server


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def url(llm, tmp_path_factory):
    """The app as a user starts it, on a free port, with its files in a folder of the test."""
    command = re.search(r"^uvicorn (.+)$", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    folder, port = tmp_path_factory.mktemp("chat"), free_port()
    given = {
        "HOME": str(folder),
        "CHAT_DATABASE": str(folder / "chat.sqlite3"),
        "OPENAI_BASE_URL": llm.openai_base_url,
        "ANTHROPIC_BASE_URL": llm.anthropic_base_url,
        "OPENAI_API_KEY": "any",
        "ANTHROPIC_API_KEY": "any",
    }
    arguments = [*command[1].split(), "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *arguments],
        cwd=ROOT,
        env=os.environ | given,
        start_new_session=True,
    )
    try:
        yield until_up(f"http://127.0.0.1:{port}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def until_up(address):
    ends_s = time.monotonic() + START_S_MAX
    while True:
        try:
            httpx.get(address, trust_env=False).raise_for_status()
        except httpx.TransportError:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.05)
        else:
            return address


@pytest.fixture
def browser(url):
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
        yield client


def sign_in(browser, name):
    assert browser.post("/api/login", json={"name": name}).status_code == 204
    return browser.get("/api/me").json()


def ask(browser, model="claude-haiku-4-5"):
    message = {"role": "user", "content": "How do I start?"}
    return browser.post("/api/chat", json={"model": model, "messages": [message]})


@pytest.mark.parametrize("model", ["gpt-5-mini", "claude-haiku-4-5"])
def test_an_answer_is_streamed_and_metered(model, browser):
    """Both providers' answers arrive as events, followed by the account as it stands then."""
    sign_in(browser, "cleo")
    answer = ask(browser, model)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.count("event: text") > 1
    assert answer.text.count("event: account") == 1
    rows = {row["model"]: row["cost"] for row in browser.get("/api/me").json()["models"]}
    assert rows[model] > 0


def test_the_way_from_ok_to_blocked_to_upgraded(browser):
    """A free user is warned, then refused with the offer, and passes again right after the upgrade."""
    sign_in(browser, "ada")
    gates, answers = [], []
    for _ in range(40):
        answers.append(ask(browser))
        gates.append(browser.get("/api/me").json()["gate"])
        if answers[-1].status_code != 200:
            break
    assert list(dict.fromkeys(gates)) == ["ok", "soft_gate", "hard_gate"]
    problem = answers[-1].json()
    assert (answers[-1].status_code, problem["code"]) == (429, "period_spend")
    assert problem["upgrade"]["label"] == "Upgrade to Pro"
    used = browser.get("/api/me").json()["used"]
    upgraded = browser.post("/api/upgrade").json()
    assert (upgraded["plan"], upgraded["used"], upgraded["gate"]) == ("pro", used, "ok")
    assert ask(browser).status_code == 200


def test_users_do_not_share_their_plans(browser):
    """What one user spends shows on no other's meter."""
    sign_in(browser, "cleo")
    ask(browser)
    assert sign_in(browser, "ben")["used"] == 0
    assert sign_in(browser, "cleo")["used"] > 0


def test_nobody_reaches_the_models(browser):
    """Without a sign-in there is no account, no answer and no upgrade."""
    assert browser.get("/api/me").json() == {"user": None}
    assert ask(browser).status_code == 401
    assert browser.post("/api/upgrade").status_code == 401
    assert browser.post("/api/login", json={"name": "mallory"}).status_code == 404


def test_a_model_that_is_not_on_offer_is_refused(browser):
    """Only the models on offer can be asked."""
    sign_in(browser, "cleo")
    assert ask(browser, "gpt-99").status_code == 422


def test_the_page_brings_all_it_needs(browser):
    """The page loads nothing from elsewhere, and all its files are there."""
    page = browser.get("/")
    assert page.headers["content-security-policy"] == "default-src 'self'"
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert browser.get(address).status_code == 200, address


def test_the_app_stays_short():
    """The example fits on a few screens."""
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in FOLDER.glob("**/*.py"))
    assert lines <= 150
