import json
import threading
import time

import pytest
from django.db import connections, transaction
from django.test import override_settings
from rest_world import MODEL, PRO, Api

from paygent_django import services

PRO_CONFIG = {field: value for field, value in PRO.items() if field != "name"}


def test_plans_are_made_and_listed(api):
    """What is posted comes back with an id, and is listed."""
    made = api.post("/config/plans", {"soft_gate_at": 0.7, "hard_gate_at": 0.9, "plans": [PRO]}).json()[
        "plans"
    ]
    assert {name: made[0][name] for name in PRO} == PRO
    assert (made[0]["soft_gate_at"], made[0]["hard_gate_at"]) == (0.7, 0.9)
    assert api.get("/config/plans").json()["plans"] == made


def test_a_plan_of_the_same_name_is_changed(api):
    """Posting a plan again keeps its id, and what it does not say is back to its default."""
    first = api.plan()
    second = api.post("/config/plans", {"plans": [{"name": "pro", "max_spend_per_period": 9.0}]}).json()[
        "plans"
    ]
    assert second[0]["id"] == first
    assert second[0]["max_spend_per_period"] == 9.0
    assert "max_spend_per_session" not in second[0]


def test_a_limit_that_is_none_is_absent(api):
    """An unlimited amount is neither ``null`` nor ``Infinity`` in an answer, at any depth."""
    given = {
        "name": "free",
        "max_spend_per_period": None,
        "model_limits": {MODEL: {"max_tokens_per_period": None}},
    }
    text = api.post("/config/plans", {"plans": [given]}).content.decode()
    assert "null" not in text
    assert "Infinity" not in text
    assert json.loads(text)["plans"][0]["model_limits"] == {MODEL: {}}


def test_some_fields_of_a_plan_are_changed(api):
    """A PATCH changes what it names, and nothing else."""
    plan_id = api.plan(label="Pro", price=49)
    changed = api.patch(
        f"/config/plans/{plan_id}", {"max_spend_per_period": 0.001, "soft_gate_at": 0.5}
    ).json()
    assert (changed["max_spend_per_period"], changed["soft_gate_at"]) == (0.001, 0.5)
    assert (changed["cost_rates"], changed["label"], changed["price"]) == (PRO["cost_rates"], "Pro", 49.0)


def test_a_limit_is_taken_away_with_null(api):
    """A PATCH with ``null`` makes an amount unlimited."""
    changed = api.patch(f"/config/plans/{api.plan()}", {"max_spend_per_session": None}).json()
    assert "max_spend_per_session" not in changed


def test_what_a_plan_says_to_users_is_kept(api):
    """Label, price, interval and rank come back as given."""
    said = {"label": "Pro", "price": 49.99, "currency": "EUR", "interval": "year", "rank": 2}
    plan = api.post("/config/plans", {"plans": [{**PRO, **said}]}).json()["plans"][0]
    assert {name: plan[name] for name in said} == said


def test_equal_content_is_no_new_version(api):
    """Posting the same plan twice leaves its version as it is."""
    api.plan()
    before = api.get("/config/plans").json()
    api.plan()
    assert api.get("/config/plans").json() == before


@pytest.mark.parametrize(
    "plan, field",
    [
        ({"name": "a", "max_spend_per_period": -1}, "plans.1.max_spend_per_period"),
        ({"name": "a", "soft_gate_at": 0.9, "hard_gate_at": 0.5}, "plans.1"),
        ({"name": "a", "soft_gate_at": 1.5}, "plans.1.soft_gate_at"),
        ({"name": ""}, "plans.1.name"),
        ({"name": "x" * 501}, "plans.1.name"),
        ({"max_spend_per_period": 1}, "plans.1.name"),
        ({"name": "a", "max_spend": 1}, "plans.1.max_spend"),
        ({"name": "a", "cost_rates": {MODEL: {"input": -1, "output": 1}}},
         f"plans.1.cost_rates.{MODEL}.input"),
        ({"name": "a", "model_limits": {MODEL: {"max_tokens_per_period": 1.5}}},
         f"plans.1.model_limits.{MODEL}.max_tokens_per_period"),
        ({"name": "ok"}, "plans.1.name"),
        ({"name": "\ud800"}, "plans.1.name"),
        ("a", "plans.1"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused_with_its_field(sqlite_api, plan, field):
    """The path of the failing field is named, and nothing of the request is kept."""
    answer = sqlite_api.post("/config/plans", {"plans": [{"name": "ok"}, plan]})
    assert (answer.status_code, answer["Content-Type"]) == (422, "application/problem+json")
    assert answer.json()["field"] == field
    assert sqlite_api.get("/config/plans").json() == {"plans": []}


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"hard_gate_at": 0.1}, ""),
        ({"name": "other"}, "name"),
        ({"tool_costs": {"search": -1}}, "tool_costs.search"),
        ({"price": -1}, "price"),
        ([], ""),
    ],
)
def test_a_change_that_cannot_be_is_refused(sqlite_api, changes, field):
    """A PATCH that would make a plan invalid changes nothing."""
    plan_id = sqlite_api.plan()
    before = sqlite_api.get("/config/plans").json()
    answer = sqlite_api.patch(f"/config/plans/{plan_id}", changes)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert sqlite_api.get("/config/plans").json() == before


@pytest.mark.parametrize("plan_id", ["no-uuid", "5b0e9f0e-6f0a-4c67-9d2a-0d5b8a6f2c11"])
def test_an_unknown_plan_is_not_found(sqlite_api, plan_id):
    """404 for an id that no plan has."""
    assert sqlite_api.patch(f"/config/plans/{plan_id}", {}).status_code == 404


def test_changes_at_the_same_moment_are_both_kept(postgres_alias):
    """A PATCH that comes while another change of the plan is being written is made of what that one left."""
    with override_settings(PAYGENT={"DATABASE": postgres_alias}):
        api = Api.of_new_project()
        plan_id = api.plan()
        answers = []

        def label():
            try:
                answers.append(api.patch(f"/config/plans/{plan_id}", {"label": "Pro"}).status_code)
            finally:
                connections.close_all()

        patching = threading.Thread(target=label)
        with transaction.atomic(using=postgres_alias):
            services.save_plan(api.project, "pro", {**PRO_CONFIG, "max_spend_per_period": 7.0})
            patching.start()
            until_somebody_waits_for(connections[postgres_alias])
        patching.join(30)
        plan = api.get("/config/plans").json()["plans"][0]
        assert (answers, plan["label"], plan["max_spend_per_period"]) == ([200], "Pro", 7.0)


def until_somebody_waits_for(connection):
    """Return when another connection waits for a lock that this one holds."""
    ends_s = time.monotonic() + 30
    with connection.cursor() as cursor:
        while time.monotonic() < ends_s:
            cursor.execute(
                "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if cursor.fetchone():
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")
