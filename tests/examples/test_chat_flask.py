"""The example app over HTTP, as its page drives it."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from werkzeug.serving import make_server

from paygent import Paygent
from paygent.testing.llm_server import LLMServer

FOLDER = Path(__file__).resolve().parents[2] / "example_apps" / "chat_flask"


@pytest.fixture(scope="module")
def llm():
    with LLMServer(reply_tokens=200) as server:
        yield server


@pytest.fixture
def url(llm, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", llm.openai_base_url)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", llm.anthropic_base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
    spec = importlib.util.spec_from_file_location("example_chat_flask", FOLDER / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pg = Paygent.init(ledger="memory://", plans=FOLDER / "plans.toml")
    app = module.create_app()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()
    for client in app.extensions["chat"].values():
        client.close()
    pg.shutdown()


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
    sign_in(browser, "ada")
    answer = ask(browser, model)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.count("event: text") > 1
    assert answer.text.count("event: account") == 1
    (row,) = browser.get("/api/me").json()["models"]
    assert row["model"] == model
    assert row["cost"] > 0


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
    sign_in(browser, "ada")
    ask(browser)
    assert sign_in(browser, "ben")["used"] == 0
    assert sign_in(browser, "ada")["used"] > 0


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
    """The page loads nothing from elsewhere, has no inline code or style, and all its files are there."""
    page = browser.get("/")
    assert page.headers["content-security-policy"] == "default-src 'self'"
    assert not re.search(r"<style|style=|onclick=|<script(?![^>]*src=)|https?://", page.text)
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert browser.get(address).status_code == 200, address


def test_the_app_stays_short():
    """The example fits on a few screens."""
    assert len((FOLDER / "app.py").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_command_of_the_readme_starts_it(tmp_path):
    """The one command that the README prints serves the page, without any key."""
    assert "\npython example_apps/chat_flask/app.py\n" in (FOLDER / "README.md").read_text(encoding="utf-8")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    env = {**os.environ, "HOME": str(tmp_path), "PORT": str(port)}
    command = [sys.executable, "example_apps/chat_flask/app.py"]
    server = subprocess.Popen(command, cwd=FOLDER.parents[1], env=env, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            while True:
                try:
                    page = client.get("/")
                    break
                except httpx.TransportError:
                    assert server.poll() is None, "the app has ended"
                    time.sleep(0.1)
            assert "chat.js" in page.text
            assert client.post("/api/login", json={"name": "ada"}).status_code == 204
            assert "event: account" in ask(client).text
    finally:
        server.terminate()
        server.wait(10)
