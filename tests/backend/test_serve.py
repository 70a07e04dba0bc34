import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from backend_server import BackendServer
from django_app import app_databases
from rest_world import PRO, event

from paygent_django.server import environment

ENVIRONMENT = {"PAYGENT_BOOTSTRAP_KEY": None}


@pytest.fixture
def server(tmp_path):
    """A server that nobody has started yet, on a database with tables."""
    shutil.copy(app_databases.migrated_file(), tmp_path / "server.db")
    server = BackendServer(tmp_path)
    yield server
    server.kill()


def test_the_first_start_says_once_what_it_made(tmp_path):
    """Login and key are printed, open admin and API, and are not printed again."""
    server = BackendServer(tmp_path, **ENVIRONMENT)
    try:
        server.start()
        key = re.search(r"API key +(pg_live_\S+)", server.said())[1]
        password = re.search(r"admin login +admin / (\S+)", server.said())[1]
        with server.client(key) as client:
            assert client.post("/config/plans", json={"plans": [PRO]}).status_code == 200
        assert signed_in(server, password).status_code == 302
        assert server.stop() == 0
        server.start()
        assert (server.said().count(key), server.said().count(password)) == (1, 1)
        with server.client(key) as client:
            assert [plan["name"] for plan in client.get("/config/plans").json()["plans"]] == ["pro"]
    finally:
        server.kill()


def signed_in(server, password):
    """The answer to the admin's login form."""
    with httpx.Client(base_url=server.url, trust_env=False) as browser:
        page = browser.get("/admin/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[1]
        form = {"username": "admin", "password": password, "csrfmiddlewaretoken": token, "next": "/admin/"}
        return browser.post("/admin/login/", data=form, headers={"Referer": f"{server.url}/admin/login/"})


def test_its_file_is_in_the_home_folder(tmp_path):
    """Without an option the database is ``~/.paygent/server.db``, which nobody else may read."""
    server = BackendServer(tmp_path)
    server.database = ""
    try:
        server.start()
        assert (tmp_path / ".paygent/server.db").is_file()
        assert (tmp_path / ".paygent").stat().st_mode & 0o077 == 0
    finally:
        server.kill()


def test_a_key_that_a_container_chose_is_not_printed(sqlite_backend):
    """``PAYGENT_BOOTSTRAP_KEY`` opens the API and is in no line of the output."""
    with sqlite_backend.client() as client:
        assert client.get("/config/plans").status_code == 200
    assert sqlite_backend.key not in sqlite_backend.said()


@pytest.mark.parametrize(
    "environment, options, said",
    [
        ({"PAYGENT_BOOTSTRAP_KEY": "short"}, (), "PAYGENT_BOOTSTRAP_KEY must begin with pg_live_"),
        ({}, ("--database", "mysql://x/y"), "must be sqlite:///"),
        ({}, ("--database", "sqlite://"), "sqlite:////path/to/file"),
        ({}, ("--database", "postgresql://x/y?prepare=maybe"), "prepare must be on or off"),
        ({"PAYGENT_URL": "pay.example.com"}, (), "PAYGENT_URL: must be written https://"),
        ({"PAYGENT_PROXIES": "nginx"}, (), "PAYGENT_PROXIES: 'nginx'"),
    ],
)
def test_what_cannot_be_meant_is_said(tmp_path, environment, options, said):
    """Exit status 2 and one line that says what to change."""
    command = [sys.executable, "-m", "paygent.cli", "serve", "--port", "0", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "HOME": str(tmp_path), **environment},
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr


@pytest.mark.parametrize("ending, prepares", [("", True), ("?prepare=on", True), ("?prepare=off", False)])
def test_prepared_statements_can_be_switched_off(ending, prepares):
    """Behind a pooler that keeps none, the URL of the database says so; by default they are prepared."""
    options = environment.database(f"postgresql://x/y{ending}")["OPTIONS"]
    assert ("prepare_threshold" in options) == prepares
    assert "prepare" not in options


def test_the_admin_looks_as_it_should(sqlite_backend):
    """Styles and scripts of the admin and of the API's page are served, DEBUG off, with no further step."""
    page = httpx.get(f"{sqlite_backend.url}/admin/login/")
    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    docs = httpx.get(f"{sqlite_backend.api}/docs")
    files += re.findall(r'(?:href|src)="(/static/[^"]+)"', docs.text)
    assert len(files) >= 4
    assert {httpx.get(sqlite_backend.url + file).status_code for file in files} == {200}
    assert "openapi.json" in docs.text
    assert "http://" not in docs.text.replace("http://www.w3.org", "")
    assert "cdn" not in docs.text


def test_metrics_are_for_the_loopback(sqlite_backend):
    """Counters are shown here, and not to whom a proxy forwards."""
    with sqlite_backend.client() as client:
        client.get("/users/somebody%2Fsecret/session")
    mine = httpx.get(f"{sqlite_backend.url}/metrics")
    assert (
        'paygent_http_requests_total{method="GET",route="/api/v1/users/{id}/session",status="404"}'
        in mine.text
    )
    assert "secret" not in mine.text


@pytest.mark.parametrize(
    "headers", [{"X-Forwarded-For": "1.2.3.4"}, {"X-Forwarded-Proto": "https"}, {"Host": "paygent"}], ids=str
)
def test_metrics_are_for_nobody_behind_a_proxy(sqlite_backend, headers):
    """A request that was forwarded, or asks for a name that is not this machine's, is not from here."""
    assert httpx.get(f"{sqlite_backend.url}/metrics", headers=headers).status_code == 403


def test_strangers_add_no_counters(sqlite_backend):
    """Whatever addresses and methods are made up by callers, the counters stay those of the routes."""
    made_up = [("GET", "/adminX17"), ("GET", "/static17/x"), ("GET", "/admin%0Aevil17"), ("Q17Z", "/")]
    for method, path in made_up:
        httpx.request(method, sqlite_backend.url + path)
    counters = httpx.get(f"{sqlite_backend.url}/metrics").text
    assert 'method="{unknown}",route="/"' in counters
    assert "17" not in "".join(re.findall(r'(?:route|method)="([^"]*)"', counters))


def test_the_admin_is_signed_in_to_behind_a_proxy(server):
    """With ``PAYGENT_URL`` a browser signs in at that address, and its cookies travel over TLS alone."""
    server._environment |= {
        "PAYGENT_URL": "https://pay.example.com/",
        "PAYGENT_ADMIN_PASSWORD": "correct horse",
    }
    server.start()
    with httpx.Client(base_url=server.url, trust_env=False, headers={"Host": "pay.example.com"}) as browser:
        page = browser.get("/admin/login/")
        form = {
            "username": "admin",
            "password": "correct horse",
            "csrfmiddlewaretoken": re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[1],
        }
        cookie = page.headers["set-cookie"]
        sent = {"Origin": "https://pay.example.com", "Cookie": cookie.partition(";")[0]}
        answer = browser.post("/admin/login/", data=form, headers=sent)
    assert (answer.status_code, "Secure" in cookie) == (302, True)
    assert all("Secure" in told for told in answer.headers.get_list("set-cookie"))


def test_a_proxy_elsewhere_is_believed(server):
    """Of an address in ``PAYGENT_PROXIES`` the server believes that TLS was spoken; of others it does not."""
    server._environment["PAYGENT_PROXIES"] = "10.1.0.0/16"
    server.start()
    login = f"{server.url}/admin/login/"
    headers = {"Host": "pay.example.com", "X-Forwarded-Proto": "https", "Origin": "https://pay.example.com"}
    assert signing_in(login, headers).status_code == 403
    server.stop()
    server._environment["PAYGENT_PROXIES"] = "10.1.0.0/16,127.0.0.1"
    server.start()
    assert signing_in(login, headers).status_code == 200


def signing_in(login, headers):
    """The answer to a wrong password: the form again, unless the request is refused as a forgery."""
    page = httpx.get(login, headers=headers)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[1]
    form = {"username": "admin", "password": "wrong", "csrfmiddlewaretoken": token}
    cookie = {"Cookie": page.headers["set-cookie"].partition(";")[0]}
    return httpx.post(login, data=form, headers={**headers, **cookie})


def test_a_body_in_chunks_is_read(sqlite_backend):
    """A client that streams its batch says no length: what it sends counts."""
    with sqlite_backend.client() as client:
        body = json.dumps([event("chunked")]).encode()
        parts = iter([body[:40], body[40:]])
        assert client.post("/events/batch", content=parts).json()["accepted"] == 1


def test_metrics_have_a_key_of_their_own(server):
    """With ``PAYGENT_METRICS_KEY`` nobody reads them without it, wherever he is."""
    server._environment["PAYGENT_METRICS_KEY"] = "a key of its own"
    server.start()
    url = f"{server.url}/metrics"
    assert httpx.get(url).status_code == 403
    assert httpx.get(url, headers={"Authorization": f"Bearer {server.key}"}).status_code == 403
    assert httpx.get(url, headers={"Authorization": "Bearer a key of its own"}).status_code == 200


def test_the_log_is_lines_of_json_without_secrets(sqlite_backend):
    """Each request is one line; keys are in none, whichever way they came."""
    with sqlite_backend.client() as client:
        client.get("/users", params={"cursor": sqlite_backend.key})
        client.get(f"/users/{sqlite_backend.key}")
    lines = [line for line in sqlite_backend.said().splitlines() if line.startswith("{")]
    rows = [json.loads(line) for line in lines]
    assert {"method", "path", "status", "ms", "time", "level"} <= set(rows[-1])
    assert sqlite_backend.key not in sqlite_backend.said()


class Steps:
    """Counts how far requests have come: httpx tells it."""

    def __init__(self):
        self.seen = Counter()

    def __call__(self, name, _info):
        self.seen[name] += 1

    def until(self, name, times):
        ends_s = time.monotonic() + 60
        while self.seen[name] < times and time.monotonic() < ends_s:
            time.sleep(0.005)
        assert self.seen[name] >= times


def test_it_stops_gracefully(server):
    """On SIGTERM a request that is being answered is answered, and the exit status is 0."""
    server.start()
    with server.client() as client, ThreadPoolExecutor(4) as pool:
        client.post("/config/plans", json={"plans": [PRO]})
        sent, batches = Steps(), [[event() for _ in range(2000)] for _ in range(4)]
        running = [
            pool.submit(client.post, "/events/batch", json=batch, extensions={"trace": sent})
            for batch in batches
        ]
        sent.until("http11.send_request_body.complete", 4)
        time.sleep(0.3)  # in which the server takes up what has arrived; it answers some of them at most
        os.kill(server.pid, signal.SIGTERM)
        answers = [future.result() for future in running]
        assert server._process.wait(60) == 0
    accepted = [answer.json()["accepted"] for answer in answers if answer.status_code == 200]
    assert accepted == [2000] * 4


@pytest.mark.timeout(300)  # five processes, one after the other
def test_djangos_commands_reach_the_served_database(server):
    """``paygent manage`` works on the same database, and ends as the command does."""
    server.start()

    def manage(*arguments):
        command = [sys.executable, "-m", "paygent.cli", "manage", "--database", server.database, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=100,
            env={**os.environ, "HOME": str(server.folder)},
        )  # fmt: skip

    made = manage("paygent_apikey", "create", "--format", "json")
    key = max(re.findall(r"pg_live_[\w-]+", made.stdout), key=len)
    with server.client(key) as client:
        assert client.get("/config/plans").status_code == 200
    assert manage("migrate", "--check").returncode == 0
    assert manage("check", "--fail-level", "WARNING").returncode == 0
    assert manage("no-such-command").returncode == 1


def test_two_that_start_at_once_set_up_once(postgres_url, tmp_path):
    """Several servers on an empty database wait for each other; one login is made, and all of them serve."""
    servers = [
        BackendServer(tmp_path / str(number), postgres_url, key=f"pg_live_{'k' * 30}") for number in range(2)
    ]
    for server in servers:
        server.folder.mkdir()
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda server: server.start("--workers", "1"), servers))
        for server in servers:
            with server.client() as client:
                assert client.get("/config/plans").status_code == 200
        assert sum(server.said().count("admin login") for server in servers) == 1
    finally:
        for server in servers:
            server.kill()
