"""What only a server of its own shows: addresses as they were sent, many clients at once, and its death."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import quote

import httpx
import pytest
from backend_server import BackendServer
from django_app import app_databases
from openai import OpenAI
from rest_world import MODEL, PRO, event, gate, lease, now

from paygent import Paygent, PaygentLimitExceeded, paygent_context
from paygent.testing.llm_server import LLMServer

ODD = ["org/42?x=#é 💥", "x/session", "/", "a%2Fb", "..", "%", "a+b;c=d", "x\ny\0", "'\"<script>", "ünï", " "]


def prepared(client, user_id, **plan):
    """A user of that name on a plan whose period began a day ago."""
    made = client.post("/config/plans", json={"plans": [{**PRO, **plan}]}).json()["plans"][0]
    client.post("/users", json={"external_user_id": user_id})
    period = {
        "period_start": (now() - timedelta(days=1)).isoformat(),
        "period_end": (now() + timedelta(days=29)).isoformat(),
    }
    answer = client.post(
        f"/users/{quote(user_id, safe='')}/subscription", json={"plan_id": made["id"], **period}
    )
    assert answer.status_code == 200, answer.text
    return made["id"]


@pytest.mark.parametrize("user_id", ODD, ids=repr)
def test_any_id_works_in_every_address(sqlite_backend, user_id):
    """An id with slashes and all else goes through every endpoint, and never means another's."""
    path = f"/users/{quote(user_id, safe='')}"
    path = path.replace("/..", "/%2E%2E")
    with sqlite_backend.client() as client:
        client.post("/users", json={"external_user_id": "x"})
        assert client.post("/users", json={"external_user_id": user_id}).status_code == 201
        plan_id = client.post("/config/plans", json={"plans": [PRO]}).json()["plans"][0]["id"]
        period = {"period_start": now().isoformat(), "period_end": (now() + timedelta(days=9)).isoformat()}
        said = client.post(f"{path}/subscription", json={"plan_id": plan_id, **period}).json()
        assert said["user_id"] == user_id
        client.post("/events/batch", json=[event(user_id)])
        client.post("/gate-events/batch", json=[gate(user_id)])
        client.post("/leases", json=[lease(user_id)])
        assert client.get(path).json()["external_user_id"] == user_id
        assert client.get(f"{path}/session").json()["user_id"] == user_id
        assert client.get(f"{path}/usage").json()["total_tokens"] == 28
        assert client.get(f"{path}/gate-events").json()["events"][0]["user_id"] == user_id
        assert client.get(f"{path}/totals").json()
        events = client.get(f"/events?user_id={quote(user_id, safe='')}").json()["events"]
        assert events[0]["user_id"] == user_id
        assert client.delete(path).status_code == 204
        assert client.get(path).status_code == 404
        assert client.get("/users/x").status_code == 200


@pytest.fixture
def call(backend, monkeypatch):
    """Makes one call of a user through the real SDK, in connected mode."""
    with LLMServer(reply_tokens=50) as llm:
        monkeypatch.setenv("OPENAI_BASE_URL", llm.openai_base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
        pg = Paygent.init(api_key=backend.key, base_url=f"{backend.url}/api/v1/")
        openai = OpenAI()

        def call(user_id, times=1):
            with paygent_context(user_id=user_id):
                for _ in range(times):
                    openai.chat.completions.create(
                        model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=50
                    )

        yield call
        openai.close()
        pg.shutdown()


def test_any_id_works_in_the_sdk(backend, call):
    """Metered, read back and blocked under a name with slashes and an emoji."""
    user_id = f"{ODD[0]}{uuid.uuid4()}"
    path = f"/users/{quote(user_id, safe='')}"
    with backend.client() as client:
        prepared(client, user_id, name="odd", model_limits={MODEL: {"max_tokens_per_period": 200}})
        with pytest.raises(PaygentLimitExceeded):
            call(user_id, times=20)
        pg = Paygent.get_instance()
        pg.flush()
        used = pg.get_usage(user_id).period_tokens_total
        assert client.get(f"{path}/usage").json()["total_tokens"] == used >= 200


def test_an_upgrade_binds_the_next_call(backend, call):
    """After the subscription POST a user who was blocked is judged by the new plan, without a restart."""
    user_id = f"upgraded {uuid.uuid4()}"
    with backend.client() as client:
        prepared(client, user_id, name="tiny", model_limits={MODEL: {"max_tokens_per_period": 60}})
        with pytest.raises(PaygentLimitExceeded):
            call(user_id, times=5)
        prepared(client, user_id, name="large")
    ends_s = time.monotonic() + 20  # with the next tick, within a second; else after 30, with its lease
    while True:
        try:
            call(user_id)
            break
        except PaygentLimitExceeded:
            assert time.monotonic() < ends_s
            time.sleep(0.02)


def test_a_probe_leaves_its_connection_in_order(sqlite_backend):
    """The answer to HEAD has no body that the next answer on the connection could be mistaken for."""
    with sqlite_backend.client() as client:
        probed = [client.head(path) for path in ("/health", "/users", "/leases")]
        assert [answer.status_code for answer in probed] == [200, 200, 405]
        assert not any(answer.content for answer in probed)
        assert client.get("/health").json() == {"status": "ok"}


def test_eight_clients_with_the_same_batch_count_it_once(backend):
    """Identical batches at the same moment: each event counts once, and all others are duplicates."""
    user_id = f"eightfold {uuid.uuid4()}"
    batch, barrier = [event(user_id) for _ in range(100)], threading.Barrier(8)

    def post(_):
        with backend.client() as client:
            client.get("/health")
            barrier.wait(60)
            return client.post("/events/batch", json=batch).json()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert sum(answer["accepted"] for answer in answers) == 100
    assert sum(answer["duplicates"] for answer in answers) == 700
    assert not any(answer["rejected"] for answer in answers)
    with backend.client() as client:
        totals = {
            scope: amount
            for scope, _, amount in client.get(f"/users/{quote(user_id, safe='')}/totals").json()
        }
    assert totals["total_spend"] == 100 * 8000


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_killed_server_loses_nothing_and_counts_nothing_twice(kind, tmp_path, request):
    """``kill -9`` in mid-batch: clients that send again until they are heard find each event counted once."""
    database = request.getfixturevalue("postgres_url") if kind == "postgres" else None
    server = BackendServer(tmp_path, database)
    batches = [[event("ada") for _ in range(50)] for _ in range(24)]
    try:
        server.start()

        def deliver(batch):
            ends_s = time.monotonic() + 60
            while time.monotonic() < ends_s:
                try:
                    with server.client() as client:
                        answer = client.post("/events/batch", json=batch)
                    if answer.status_code == 200:
                        return answer.json()
                except httpx.TransportError:
                    time.sleep(0.1)
            raise AssertionError("the server does not come back")

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(deliver, batch) for batch in batches]
            while not running[4].done():
                time.sleep(0.005)
            server.kill()
            server.start()
            answers = [future.result() for future in running]
        assert all(answer["accepted"] + answer["duplicates"] == 50 for answer in answers)
        with server.client() as client:
            totals = {scope: amount for scope, _, amount in client.get("/users/ada/totals").json()}
            assert totals["total_spend"] == 24 * 50 * 8000
    finally:
        server.kill()


def test_where_the_server_tells_no_address_the_longest_id_is_meant(sqlite_api):
    """A WSGI server that hands over only the decoded path still finds ids with slashes."""
    user_id = "org/42/deep"
    sqlite_api.user(user_id)
    for path in ("", "/session", "/usage", "/totals", "/gate-events"):
        assert sqlite_api.get(f"/users/org/42/deep{path}").status_code == 200
    assert app_databases.migrated_file().exists()


@pytest.mark.parametrize("user_id", ODD[:4], ids=repr)
def test_any_id_works_under_asgi(sqlite_api, user_id):
    """An ASGI server's path is read as it was sent, too."""
    import asyncio

    from django.core.asgi import get_asgi_application

    sqlite_api.post("/users", {"external_user_id": user_id})
    app = get_asgi_application()
    path = f"/paygent/api/v1/users/{quote(user_id, safe='')}"

    async def get():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.get(path, headers={"Authorization": f"Bearer {sqlite_api.key}"})

    answer = asyncio.run(get())
    assert (answer.status_code, answer.json()["external_user_id"]) == (200, user_id)
