import io
import time

import pytest
from django.db import connections
from django.test import override_settings
from rest_world import PRO, ROOT, event, lease

from paygent_django import services
from paygent_django.api import limits
from paygent_django.api.limits import BODY_MAX

SCOPE_OF = [
    ("GET", "/config/plans", "read"),
    ("GET", "/users", "read"),
    ("GET", "/users/ada", "read"),
    ("GET", "/users/ada/session", "read"),
    ("GET", "/users/ada/usage", "read"),
    ("GET", "/users/ada/totals", "read"),
    ("GET", "/users/ada/gate-events", "read"),
    ("GET", "/events", "read"),
    ("GET", "/gate-events", "read"),
    ("POST", "/events/batch", "ingest"),
    ("POST", "/gate-events/batch", "ingest"),
    ("POST", "/leases", "ingest"),
    ("DELETE", "/leases/x", "ingest"),
    ("POST", "/config/plans", "admin"),
    ("PATCH", "/config/plans/x", "admin"),
    ("POST", "/users", "admin"),
    ("POST", "/users/ada/subscription", "admin"),
    ("DELETE", "/users/ada", "admin"),
    ("POST", "/webhooks", "admin"),
    ("GET", "/webhooks", "admin"),
    ("GET", "/webhooks/x", "admin"),
    ("PATCH", "/webhooks/x", "admin"),
    ("DELETE", "/webhooks/x", "admin"),
    ("POST", "/webhooks/x/test", "admin"),
    ("GET", "/webhooks/x/deliveries", "admin"),
]


@pytest.mark.parametrize("kind", ["none", "empty", "unknown", "odd", "shortened", "revoked"])
def test_nothing_is_open_without_a_key(sqlite_api, kind):
    """401 without a key, with an unknown one and with a revoked one, as a problem that says so."""
    revoked = services.create_key(sqlite_api.project)
    services.revoke(revoked.row)
    key = {"none": None, "empty": "", "unknown": "pg_live_wrong", "odd": "\xe9",
           "shortened": sqlite_api.key[:-1], "revoked": revoked.secret}[kind]  # fmt: skip
    for method, path, _ in SCOPE_OF:
        answer = sqlite_api.with_key(key).request(method, path, {})
        assert (answer.status_code, answer["Content-Type"]) == (401, "application/problem+json")
        assert answer["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("scope", services.SCOPES)
def test_a_key_opens_what_it_may(sqlite_api, scope):
    """403 for a key that has every right but the one that is asked for; with that one, anything else."""
    without = sqlite_api.limited_to(*({"read", "ingest", "admin"} - {scope}))
    alone = sqlite_api.limited_to(scope)
    for method, path, needed in SCOPE_OF:
        if needed == scope:
            assert without.request(method, path, {}).status_code == 403
            assert alone.request(method, path, {}).status_code not in (401, 403)


def test_health_needs_no_key(sqlite_api):
    """Whether the server is there is no secret, and it says nothing else."""
    answer = sqlite_api.with_key(None).get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_health_asks_no_database(sqlite_api):
    """A database that is away does not make a server look dead that will come back with it."""
    with override_settings(PAYGENT={"DATABASE": "no such database"}):
        assert sqlite_api.with_key(None).get("/health").status_code == 200


POSTS = ["/config/plans", "/users", "/users/ada/subscription", "/events/batch", "/gate-events/batch",
         "/leases", "/webhooks"]  # fmt: skip


BODIES = (
    [b"", b"{", b"nonsense", b"\xff\xfe", b"null", b"7", b'"a"', b"{}", b"[NaN]", b'{"plans":NaN}', b"[[]]",
     b"[1e999]", b"[" * 100_000, b"[" + b"9" * 5000 + b"]", b'{"a":' * 50_000, b"[{}]", b"[null]"]
)  # fmt: skip


@pytest.mark.parametrize("path", POSTS)
def test_no_body_is_a_fault_of_the_server(sqlite_api, path):
    """Whatever is posted is answered with what is wrong with it."""
    sqlite_api.post("/users", {"external_user_id": "ada"})
    for body in BODIES:
        answer = sqlite_api.post(path, body=body)
        assert answer.status_code in (200, 422)
        if answer.status_code == 422:
            assert answer["Content-Type"] == "application/problem+json"
            assert answer.json()["detail"]


def test_a_number_that_is_none_is_named(sqlite_api):
    """NaN is no JSON, and the answer says so."""
    answer = sqlite_api.post("/events/batch", body=b'[{"cost_total": NaN}]')
    assert (answer.status_code, "NaN" in answer.json()["detail"]) == (422, True)


def test_a_body_has_a_bound(sqlite_api, monkeypatch):
    """413 for more bytes than a request may have, also where Django's own bound is lower."""
    monkeypatch.setattr("paygent_django.api.bodies.BODY_MAX", 1000)
    assert sqlite_api.post("/events/batch", [event()] * 10).status_code == 413
    monkeypatch.setattr("paygent_django.api.bodies.BODY_MAX", limits.BODY_MAX)
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000):
        assert sqlite_api.post("/events/batch", [event()] * 10).status_code == 413


@pytest.mark.parametrize("path", ["/events/batch", "/gate-events/batch", "/leases"])
def test_a_batch_has_a_bound(sqlite_api, path):
    """413 for more items than a batch may have."""
    assert sqlite_api.post(path, [None] * (limits.BATCH_MAX + 1)).status_code == 413


@pytest.mark.parametrize("path", ["/", "/nothing", "/users/ada/nothing", "/users//session", "/config"])
def test_an_unknown_address_is_a_problem(sqlite_api, path):
    """404 in the form of all other errors."""
    answer = sqlite_api.get(path)
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")


def test_the_page_loads_nothing_from_elsewhere(sqlite_api):
    """The page to browse the API is there only with its own scripts, which the app "ninja" brings along."""
    answer = sqlite_api.get("/docs")
    assert (answer.status_code, "'ninja' in INSTALLED_APPS" in answer.json()["detail"]) == (404, True)
    assert sqlite_api.get("/openapi.json").status_code == 200


def test_another_method_is_a_problem(sqlite_api):
    """405 says what the address takes."""
    answer = sqlite_api.request("PUT", "/users/ada")
    assert (answer.status_code, answer["Content-Type"]) == (405, "application/problem+json")
    assert "GET" in answer["Allow"]


@pytest.mark.parametrize("path", ["/health", "/users", "/users/ada", "/config/plans", "/webhooks"])
def test_what_can_be_read_can_be_probed(sqlite_api, path):
    """HEAD is answered as GET is, without its body."""
    sqlite_api.post("/users", {"external_user_id": "ada"})
    read, probed = sqlite_api.get(path), sqlite_api.request("HEAD", path)
    assert (probed.status_code, probed.content) == (200, b"")
    assert probed.headers == read.headers


def test_a_probe_needs_what_reading_needs(sqlite_api):
    """HEAD without a key is 401, with one that may not read 403, of what is not there 404."""
    ingests = sqlite_api.limited_to("ingest")
    assert sqlite_api.with_key(None).request("HEAD", "/users").status_code == 401
    assert ingests.request("HEAD", "/users").status_code == 403
    assert sqlite_api.request("HEAD", "/users/nobody").status_code == 404


def test_what_cannot_be_read_cannot_be_probed(sqlite_api):
    """405 names HEAD where there is a GET, and is the answer to it where there is none."""
    assert "HEAD" in sqlite_api.request("PUT", "/users/ada")["Allow"]
    refused = sqlite_api.request("HEAD", "/leases")
    assert (refused.status_code, refused["Allow"]) == (405, "POST")


def test_a_database_that_is_away_is_503(sqlite_api, tmp_path):
    """An outage of ours is no error of the caller's, and tells him to try again."""
    connections.settings["away"] = {
        **connections.settings["default"],
        "NAME": str(tmp_path / "empty.sqlite3"),
    }
    try:
        with override_settings(PAYGENT={"DATABASE": "away"}):  # has no tables
            answer = sqlite_api.get("/users")
    finally:
        connections["away"].close()
        del connections["away"]
        del connections.settings["away"]
    assert (answer.status_code, answer["Retry-After"]) == (503, "1")
    assert "table" not in answer.content.decode()


def test_a_fault_of_ours_says_nothing_of_itself(sqlite_api, monkeypatch, caplog):
    """500 without the reason, which is in the log."""
    monkeypatch.setattr("paygent_django.services.plans_of", lambda project: 1 / 0)
    answer = sqlite_api.get("/config/plans")
    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert "division" not in answer.content.decode()
    assert "ZeroDivisionError" in caplog.text


def test_several_wrong_fields_are_all_told(sqlite_api):
    """The first field stands out, the others are listed."""
    said = {"plans": [{**PRO, "max_spend_per_period": -1, "max_spend_per_session": -1}]}
    problem = sqlite_api.post("/config/plans", said).json()
    assert [error["field"] for error in problem["errors"]] == [
        "plans.0.max_spend_per_period", "plans.0.max_spend_per_session",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "operation, field",
    [
        (lease(seq=-1), "0.seq"),
        (lease(lease_id="x" * 101), "0.lease_id"),
        (lease(need={"total_spend": 1.5}), "0.need"),
        (lease(keep=[["total_spend", "p1", "1"]]), "0.keep"),
        (lease(keep=[["total_spend", "p" * 800, 1]]), "0.keep"),
        (lease(keep=[["\ud800", "p1", 1]]), "0.keep"),
        (lease(events=[event("ben")]), "0.events.user_id"),
        (lease(events=[event(input_tokens=-1)]), "0.events.input_tokens"),
        ("x", "0"),
    ],
)
def test_an_operation_that_cannot_be_is_refused(sqlite_api, operation, field):
    """422 with the operation's number and its field; none of the request is applied."""
    answer = sqlite_api.post("/leases", [operation, lease("zoe")])
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert sqlite_api.get("/users").json()["users"] == []


def test_a_revoked_key_opens_nothing_a_second_later(sqlite_api, monkeypatch):
    """A key that was just used is forgotten by every process within a second of its end."""
    key = services.create_key(sqlite_api.project)
    api = sqlite_api.with_key(key.secret)
    assert api.get("/users").status_code == 200
    services.revoke(key.row)
    later_s = time.monotonic() + 1.01
    monkeypatch.setattr("paygent_django.api.auth.time.monotonic", lambda: later_s)
    assert api.get("/users").status_code == 401


@pytest.mark.parametrize(
    "body, ends_by_itself, status", [(b" " * BODY_MAX + b"[]", True, 413), (b"[]", False, 411)]
)
def test_a_body_in_chunks_is_bounded(sqlite_api, body, ends_by_itself, status):
    """One whose length nobody says is no larger than any other, and refused where nobody sees its end."""
    given = {"wsgi.input": io.BytesIO(body), "wsgi.input_terminated": ends_by_itself}
    answer = sqlite_api._client.generic(
        "POST", f"{ROOT}/events/batch", HTTP_TRANSFER_ENCODING="chunked",
        HTTP_AUTHORIZATION=f"Bearer {sqlite_api.key}", **given,
    )  # fmt: skip
    assert answer.status_code == status
