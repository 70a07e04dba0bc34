"""Behind gunicorn and uvicorn: 200 users at once, and clients who leave in mid-stream."""

import contextlib
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from listening import Listening

USERS = 200
PLANS = "[plans.spent]\nmax_spend_per_period = 0.0\n"
HERE = Path(__file__).resolve().parent
STOP_S_MAX = 25  # after which gunicorn would soon end its workers by force


def gunicorn(port, *options, app="application"):
    options = ("-b", f"127.0.0.1:{port}", "--log-level", "warning", *options)
    return ["-m", "gunicorn", f"served:{app}", *options]


def uvicorn(port):
    return ["-m", "uvicorn", "served:app", "--port", str(port), "--log-level", "warning"]


def uvicorn_worker(port):
    return gunicorn(port, "-k", "uvicorn_worker.UvicornWorker", "--workers", "2", "--preload", app="app")


SERVERS = {
    "gunicorn-sync": lambda port: gunicorn(port, "--workers", "3"),
    "gunicorn-gthread": lambda port: gunicorn(port, "--workers", "2", "--threads", "8", "--preload"),
    "uvicorn": uvicorn,
    "gunicorn-uvicorn": uvicorn_worker,
}


class Site:
    """A project behind one server, with the ledger that it writes."""

    def __init__(self, url, ledger, cookies):
        self.url = url
        self.ledger = ledger
        self.cookies = cookies

    def browser(self):
        """A client for requests of many users; without TLS, whose set-up takes long."""
        return httpx.Client(base_url=self.url, trust_env=False, verify=False, timeout=60)

    def as_user(self, user_id):
        return {"cookie": f"sessionid={self.cookies[user_id]}"}

    def rows(self, statement):
        with contextlib.closing(sqlite3.connect(self.ledger)) as connection:
            return connection.execute(statement).fetchall()

    def charged(self):
        """Output tokens by user, as the ledger's events say."""
        return dict(self.rows("SELECT user_id, sum(output_tokens) FROM events GROUP BY user_id"))


@pytest.fixture(scope="module")
def people(django_unblocked):
    """Two hundred users, and the cookie of each one's session."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.signed_cookies import SessionStore
    from django_project.harness import migrated

    migrated()
    names = [f"person-{number}" for number in range(USERS + 1)]
    User.objects.bulk_create([User(username=name, password="!") for name in names], ignore_conflicts=True)

    def cookie(user):
        store = SessionStore()
        store[SESSION_KEY] = str(user.pk)
        store[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        store[HASH_SESSION_KEY] = user.get_session_auth_hash()
        store.save()
        return store.session_key

    return {str(user.pk): cookie(user) for user in User.objects.filter(username__in=names)}


@pytest.fixture(scope="module", params=SERVERS)
def server(request, llm, tmp_path_factory):
    """One server for all tests with it; killed if it is still there in the end."""
    from django.conf import settings

    folder = tmp_path_factory.mktemp("served")
    (folder / "plans.toml").write_text(PLANS)
    path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    given = {
        "SERVED_LEDGER": str(folder / "p.db"),
        "SERVED_PLANS": str(folder / "plans.toml"),
        "PAYGENT_TEST_FOLDER": str(settings.FOLDER),
        "PYTHONPATH": path,
        "OPENAI_BASE_URL": llm.openai_base_url,
        "OPENAI_API_KEY": "any",
        "HOME": str(folder),
    }
    served = Listening(SERVERS[request.param], folder / "log", env=os.environ | given)
    try:
        yield served.until_up("/hello"), folder / "p.db"
    finally:
        served.kill()


@pytest.fixture
def site(server, people):
    served, ledger = server
    return Site(served.url, ledger, people)


def is_asgi(server):
    return "served:app" in server[0].process.args


def until(condition, limit_s=60.0):
    """Wait for *condition*."""
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > limit_s:
            raise AssertionError(f"not within {limit_s} s")
        time.sleep(0.02)


def test_two_hundred_users_at_once(site, server):
    """Each of 200 interleaved users is charged what his plain, streamed and late calls said, to the token."""
    views = ["stream", "plain", "threaded"]
    views += ["stream-async", "plain-async", "afterwards"] if is_asgi(server) else []
    users = list(site.cookies)[:USERS]
    asked = {user: 3 + number for number, user in enumerate(users)}
    paths = [f"/{views[n % len(views)]}?chunks=3&reply-tokens={asked[user]}" for n, user in enumerate(users)]
    with site.browser() as browser, ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda user, path: browser.get(path, headers=site.as_user(user)), users, paths)
        )
    assert {answer.status_code for answer in answers} <= {200, 202}
    until(lambda: len(site.charged()) >= USERS)
    charged = site.charged()
    assert {user: charged.get(user) for user in users} == asked


def test_a_client_who_leaves_in_mid_stream(site, server):
    """What was streamed until then is settled within two ticks of the engine, and nothing more is read."""
    user = list(site.cookies)[USERS]
    path = "/stream-async" if is_asgi(server) else "/stream"
    path = f"{path}?chunk-latency-ms=30&reply-tokens=2000"  # a minute
    with site.browser() as browser, browser.stream("GET", path, headers=site.as_user(user)) as answer:
        assert next(answer.iter_bytes()).startswith(b"data: ")
    until(lambda: user in site.charged())
    assert 0 < site.charged()[user] < 1000


def test_nothing_is_held_afterwards(site, server):
    """After a stop in good order no lease is left in the ledger."""
    server[0].end(STOP_S_MAX)
    assert site.rows("SELECT count(*) FROM leases") == [(0,)]
