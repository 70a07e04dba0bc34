from datetime import timedelta

import pytest
from rest_world import event, now

ODD = "org/42?x=#é 💥"


def test_a_user_is_registered_once(api):
    """201 with his ids, then 409."""
    said = {"external_user_id": ODD, "name": "Ada", "email": "ada@example.com", "metadata": {"team": 7}}
    made = api.post("/users", said)
    assert made.status_code == 201
    assert {name: made.json()[name] for name in said} == said
    again = api.post("/users", said)
    assert (again.status_code, again.json()["field"]) == (409, "external_user_id")


def test_users_are_listed_by_pages(api):
    """Following the cursor shows every user once."""
    for number in range(7):
        api.post("/users", {"external_user_id": f"user-{number}"})
    seen, cursor = [], ""
    while cursor is not None:
        page = api.get(f"/users?limit=3{cursor and f'&cursor={cursor}'}").json()
        seen += [user["external_user_id"] for user in page["users"]]
        cursor = page["next_cursor"]
    assert seen == [f"user-{number}" for number in range(7)]


def test_a_subscription_says_what_binds(api):
    """The answer names plan and period, and the session shows both."""
    plan_id = api.plan()
    start = now().replace(microsecond=0)
    made = api.user(plan_id=plan_id, start=start)
    assert (made["plan_id"], made["plan"], made["period_start"]) == (plan_id, "pro", start.isoformat())
    session = api.get("/users/ada/session").json()
    assert session["billing_period"]["start"] == start.isoformat()


def test_a_second_subscription_ends_the_running_one(api):
    """The new plan binds at once, and the same period keeps what was used."""
    start = now() - timedelta(days=1)
    api.user(start=start)
    api.post("/events/batch", [event()])
    api.subscribe("ada", api.plan(name="max", max_spend_per_period=99.0), start=start)
    session = api.get("/users/ada/session").json()
    assert (session["plan"], session["plan_config"]["max_spend_per_period"]) == ("max", 99.0)
    assert session["current_usage"]["period_tokens_total"] == 28


def test_a_new_period_begins_with_nothing_used(api):
    """Another period start is another account."""
    api.user()
    api.post("/events/batch", [event()])
    api.subscribe("ada", api.plan(), start=now())
    assert api.get("/users/ada/session").json()["current_usage"]["period_tokens_total"] == 0


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"period_start": None}, "period_start"),
        ({"period_end": None}, "period_end"),
        ({"period_end": "2026-03-01T00:00:00Z"}, "period_end"),
        ({"period_start": "tomorrow"}, "period_start"),
        ({"period_start": "0001-01-01T00:00:00Z"}, "period_start"),
        ({"period_end": "9999-12-31T23:59:59Z"}, "period_end"),
        ({"plan_id": "5b0e9f0e-6f0a-4c67-9d2a-0d5b8a6f2c11"}, "plan_id"),
        ({"plan_id": "pro"}, "plan_id"),
    ],
)
def test_a_subscription_that_cannot_be_is_refused(sqlite_api, changes, field):
    """Missing dates of a capped plan, an end before the start, an unknown plan: 422 with the field."""
    plan_id = sqlite_api.plan()
    sqlite_api.post("/users", {"external_user_id": "ada"})
    said = {"plan_id": plan_id, "period_start": "2026-04-01T00:00:00Z", "period_end": "2026-05-01T00:00:00Z"}
    answer = sqlite_api.post("/users/ada/subscription", {**said, **changes})
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert sqlite_api.get("/users/ada/session").status_code == 404


def test_a_plan_without_a_cap_needs_no_dates(sqlite_api):
    """Dates may be left out where no period is capped; then it is the calendar month, and ``null``."""
    plan_id = sqlite_api.plan(name="open", max_spend_per_period=None)
    sqlite_api.post("/users", {"external_user_id": "ada"})
    assert sqlite_api.post("/users/ada/subscription", {"plan_id": plan_id}).status_code == 200
    assert sqlite_api.get("/users/ada/session").json()["billing_period"] is None


def test_the_session_is_what_clients_in_the_field_read(sqlite_api):
    """Every documented field is there, and no amount is ``null``."""
    sqlite_api.user()
    session = sqlite_api.get("/users/ada/session").json()
    assert set(session) >= {
        "user_id", "paygent_user_id", "plan", "plan_config", "current_usage", "billing_period", "sdk_enabled",
        "plan_version", "server_time",
    }  # fmt: skip
    assert set(session["plan_config"]) == {
        "max_spend_per_period", "max_spend_per_session", "soft_gate_at", "hard_gate_at", "model_limits",
        "cost_rates", "tool_costs", "default_tool_cost", "session_timeout_minutes", "pre_call_estimate",
        "pre_call_buffer_tokens", "reservation_safety_factor",
    }  # fmt: skip
    assert set(session["current_usage"]) == {
        "period_cost", "period_tokens_total", "period_tokens_by_model", "period_cost_by_model",
    }  # fmt: skip


def test_who_has_no_plan_has_no_session(sqlite_api):
    """404 for an unknown user, and for one with neither a subscription nor a default plan."""
    sqlite_api.post("/users", {"external_user_id": "ada"})
    assert sqlite_api.get("/users/nobody/session").status_code == 404
    assert sqlite_api.get("/users/ada/session").status_code == 404
    sqlite_api.plan(name="default")
    assert sqlite_api.get("/users/ada/session").json()["plan"] == "default"


def test_a_removed_user_leaves_his_sums(api):
    """204; his name opens nothing any more, and what he used still counts for the project."""
    api.user()
    api.post("/events/batch", [event()])
    assert api.delete("/users/ada").status_code == 204
    assert api.get("/users/ada").status_code == 404
    users = api.get("/users").json()["users"]
    assert [user["name"] for user in users] == [""]
    assert api.used(users[0]["external_user_id"])["total_tokens"] == 28


@pytest.mark.parametrize(
    "said, field",
    [
        ({}, "external_user_id"),
        ({"external_user_id": ""}, "external_user_id"),
        ({"external_user_id": 7}, "external_user_id"),
        ({"external_user_id": "x" * 513}, "external_user_id"),
        ({"external_user_id": "\ud800"}, "external_user_id"),
        ({"external_user_id": "ada", "name": "\udc00"}, "name"),
        ({"external_user_id": "ada", "email": "x" * 321}, "email"),
        ({"external_user_id": "ada", "metadata": []}, "metadata"),
    ],
)
def test_a_user_that_cannot_be_is_refused(sqlite_api, said, field):
    """422 with the field, and nobody is registered."""
    answer = sqlite_api.post("/users", said)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert sqlite_api.get("/users").json()["users"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "cursor=%F0", "cursor=bm9wZQ"])
def test_a_page_that_cannot_be_is_refused(sqlite_api, query):
    """422 for a limit or a cursor that none of our pages has."""
    answer = sqlite_api.get(f"/users?{query}")
    assert (answer.status_code, answer.json()["field"]) == (422, query.partition("=")[0])
