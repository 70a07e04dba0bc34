import re

import pytest
from rest_world import ROOT, Api, event, gate, lease

from paygent_django.api.app import document

SECRET = "the neighbour's"


@pytest.fixture
def neighbours(sqlite_api):
    """Two projects; the second has one of everything, under the names that the first one uses too."""
    api, other = sqlite_api, Api.of_new_project()
    plan_id = other.plan(label=SECRET)
    other.user("ada", plan_id)
    other.post("/users", {"external_user_id": "only there", "name": SECRET})
    own = event(description=SECRET)
    other.post("/events/batch", [own])
    other.post("/gate-events/batch", [gate(message=SECRET)])
    other.post("/leases", [lease()])
    hook = other.post("/webhooks", {"url": "https://example.com/", "description": SECRET}).json()
    return api, other, {"plan_id": plan_id, "webhook_id": hook["id"], "lease_id": "process-1", "event": own}


def everything_of(api):
    """What a project's own key sees of it."""
    paths = ["/config/plans", "/users", "/users/ada/usage", "/users/ada/gate-events", "/events",
             "/gate-events", "/webhooks", "/users/ada/totals", "/users/only%20there"]  # fmt: skip
    return {path: api.get(path).json() for path in paths}


OPERATIONS = [
    (method.upper(), path.removeprefix(ROOT))
    for path, operations in document(ROOT + "/")["paths"].items()
    for method in operations
]
BODIES = {
    ("POST", "/config/plans"): {"plans": [{"name": "pro", "max_spend_per_period": 1.0}]},
    ("PATCH", "/config/plans/{plan_id}"): {"max_spend_per_period": 1.0},
    ("POST", "/users"): {"external_user_id": "ada", "name": "mine"},
    ("POST", "/events/batch"): [event()],
    ("POST", "/gate-events/batch"): [gate()],
    ("POST", "/leases"): [lease(lease_id="process-1", seq=99)],
    ("POST", "/webhooks"): {"url": "https://example.com/mine"},
    ("PATCH", "/webhooks/{webhook_id}"): {"is_enabled": False},
}


def test_every_operation_is_tried():
    """The list is the API's own description of itself, so that a new endpoint is in it."""
    assert len(OPERATIONS) >= 25


@pytest.mark.parametrize("method, path", OPERATIONS)
@pytest.mark.parametrize("user_id", ["ada", "only%20there"])
def test_no_operation_sees_or_changes_the_neighbours(neighbours, method, path, user_id):
    """With one project's key and the other's ids, nothing of the other is shown or changed."""
    api, other, ids = neighbours
    before = everything_of(other)
    filled = re.sub(r"\{(\w+)\}", lambda hit: user_id if hit[1] == "user_id" else ids[hit[1]], path)
    body = BODIES.get((method, path))
    if path.endswith("/subscription"):
        body = {
            "plan_id": ids["plan_id"],
            "period_start": "2026-04-01T00:00:00Z",
            "period_end": "2026-05-01T00:00:00Z",
        }
        api.post("/users", {"external_user_id": "ada"})
    answer = api.request(method, filled, body)
    assert answer.status_code < 500
    assert SECRET not in answer.content.decode()
    assert everything_of(other) == before


def test_both_may_use_the_same_event_id(neighbours):
    """An id counts once per project: the neighbour's is no duplicate here."""
    api, _, ids = neighbours
    answer = api.post("/events/batch", [{**ids["event"], "input_tokens": 5}]).json()
    assert (answer["accepted"], answer["rejected"]) == (1, [])
