from datetime import timedelta

import pytest
from rest_world import event, gate, lease, now


def test_events_are_counted(api):
    """A batch is taken in, and the usage says so in all its parts."""
    api.user()
    batch = [event(tool_calls=["search", "search"]), event(model="gpt-4o", cost_total=0.5, cost_tokens=0.5)]
    assert api.post("/events/batch", batch).json() == {"accepted": 2, "duplicates": 0, "rejected": []}
    assert api.used() == {
        "user_id": "ada",
        "period": "current_period",
        "total_cost": 0.500008,
        "total_tokens": 56,
        "tokens_by_model": {"gpt-4o": 28, "gpt-4o-mini": 28},
        "cost_by_model": {"gpt-4o": 0.5, "gpt-4o-mini": 0.000008},
        "tool_calls_count": 2,
    }


def test_an_event_counts_once(api):
    """The same id again, in the same batch or a later one, is a duplicate."""
    api.user()
    one = event()
    assert api.post("/events/batch", [one, one]).json() == {"accepted": 1, "duplicates": 1, "rejected": []}
    assert api.post("/events/batch", [one]).json() == {"accepted": 0, "duplicates": 1, "rejected": []}
    assert api.used()["total_tokens"] == 28


@pytest.mark.parametrize(
    "field, value, named",
    [
        ("input_tokens", 21, "input_tokens"),
        ("model", "gpt-4o", "model"),
        ("user_id", "ben", "user_id"),
        ("cost_total", 1.0, "cost_tokens_nusd"),
        ("metadata", {"a": 1}, "metadata"),
        ("tool_calls", ["x"], "tool_calls"),
        ("timestamp", "2026-04-03T10:20:30Z", "timestamp_us"),
    ],
)
def test_the_same_id_with_other_content_is_refused(api, field, value, named):
    """The field is named, what was first stays, and the rest of the batch is taken."""
    api.user()
    one = event()
    api.post("/events/batch", [one])
    answer = api.post("/events/batch", [{**one, field: value}, event()]).json()
    assert (answer["accepted"], answer["duplicates"]) == (1, 0)
    assert [(row["id"], row["field"]) for row in answer["rejected"]] == [(one["id"], named)]
    assert api.used()["total_tokens"] == 56


def test_what_cannot_be_right_is_told_and_the_rest_taken(api):
    """A bad event does not stop its batch; its id, field and reason come back."""
    api.user()
    bad = event(input_tokens=-1)
    answer = api.post("/events/batch", [bad, "nonsense", event()]).json()
    assert answer["accepted"] == 1
    assert [(row["id"], row["field"]) for row in answer["rejected"]] == [
        (bad["id"], "input_tokens"),
        (None, ""),
    ]


def test_an_unknown_user_is_registered(api):
    """No event is lost: the user comes into being on the default plan."""
    api.plan(name="default")
    api.post("/events/batch", [event("new one")])
    session = api.get("/users/new%20one/session").json()
    assert (session["plan"], session["current_usage"]["period_tokens_total"]) == ("default", 28)


def test_an_old_event_counts_in_its_own_period(api):
    """What happened before this period is not on its bill."""
    api.user()
    old = event(timestamp=(now() - timedelta(days=10)).isoformat())
    assert api.post("/events/batch", [old]).json()["accepted"] == 1
    assert api.used()["total_tokens"] == 0
    assert api.used(query="?period=all")["total_tokens"] == 28


def test_an_event_counts_in_the_period_that_bound_then(api):
    """After a change of the billing period a late event still falls into the one before."""
    start = now() - timedelta(days=10)
    api.user(start=start, end=start + timedelta(days=30))
    middle = now() - timedelta(days=5)
    api.post("/events/batch", [event(timestamp=middle.isoformat())])
    api.subscribe("ada", api.plan(), start=now())
    api.post("/events/batch", [event(timestamp=middle.isoformat())])
    windows = {
        window: amount
        for scope, window, amount in api.get("/users/ada/totals").json()
        if scope == "total_spend"
    }
    assert list(windows.values()) == [16_000]


def test_usage_between_two_moments(api):
    """``since`` is included, ``until`` is not."""
    api.user()
    moments = [(now() - timedelta(hours=hours)).isoformat() for hours in (3, 2, 1)]
    api.post("/events/batch", [event(timestamp=moment) for moment in moments])
    since, until = (moment.replace("+", "%2B") for moment in moments[::2])
    used = api.used(query=f"?since={since}&until={until}")
    assert (used["period"], used["total_tokens"]) == ("custom", 56)


def test_events_are_read_back(api):
    """The newest come first, by pages, of all users or of one."""
    for minutes in (3, 2, 1):
        moment = (now() - timedelta(minutes=minutes)).isoformat()
        api.post("/events/batch", [event("ada", timestamp=moment), event("ben", timestamp=moment)])
    page = api.get("/events?user_id=ada&limit=2").json()
    rest = api.get(f"/events?user_id=ada&limit=2&cursor={page['next_cursor']}").json()
    times = [row["timestamp"] for row in page["events"] + rest["events"]]
    assert (len(times), sorted(times, reverse=True), rest["next_cursor"]) == (3, times, None)
    assert len(api.get("/events").json()["events"]) == 6
    assert api.get("/events?user_id=nobody").json()["events"] == []


def test_whole_nano_dollars_are_kept(api):
    """``cost_nusd`` of our own clients wins over the float beside it."""
    api.user()
    api.post("/events/batch", [event(cost_nusd=7, cost_total=1.0)])
    totals = {scope: amount for scope, _, amount in api.get("/users/ada/totals").json()}
    assert totals["total_spend"] == 7


def test_decisions_are_kept_once_and_found(api):
    """Gate events come back newest first, filtered as asked, each once."""
    api.user()
    soft = gate(status="soft_gate", blocked=False, timestamp=(now() - timedelta(minutes=1)).isoformat())
    hard = gate()
    assert api.post("/gate-events/batch", [soft, hard]).json()["accepted"] == 2
    assert api.post("/gate-events/batch", [soft]).json() == {"accepted": 0, "duplicates": 1, "rejected": []}

    def found(query=""):
        return [row["id"] for row in api.get(f"/users/ada/gate-events{query}").json()["events"]]

    assert found() == [hard["id"], soft["id"]]
    assert found("?blocked_only=true") == [hard["id"]]
    assert found("?status=soft_gate") == [soft["id"]]
    assert found("?gate_reason=session_spend") == []
    assert found("?limit=1") == [hard["id"]]
    since = (now() - timedelta(seconds=30)).isoformat().replace("+", "%2B")
    assert (found(f"?since={since}"), found(f"?until={since}")) == ([hard["id"]], [soft["id"]])


def test_a_decision_says_all_that_clients_read(api):
    """Every documented field comes back, the user's own ids among them."""
    api.user()
    said = gate(metadata={"a": [1]})
    api.post("/gate-events/batch", [said])
    row = api.get("/users/ada/gate-events").json()["events"][0]
    told = {name: row[name] for name in said if name not in ("paygent_user_id", "timestamp")}
    assert told == {name: said[name] for name in told}
    assert row["paygent_user_id"] == api.get("/users/ada").json()["paygent_user_id"]


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"id": "7"}, "id"),
        ({"timestamp": "9999-12-31T23:59:59Z"}, "timestamp"),
        ({"timestamp": "0001-01-01T00:00:00Z"}, "timestamp"),
        ({"cost_nusd": 10**30}, "cost_nusd"),
        ({"period": "p" + "9" * 40}, "period"),
        ({"period": "next"}, "period"),
        ({"session": "mine"}, "session"),
        ({"source": "correction"}, "source"),
        ({"source": "x" * 40}, "source"),
        ({"user_id": "\ud800"}, "user_id"),
        ({"user_id": "\0" * 400}, "user_id"),
        ({"session_id": "\u2400" * 400}, "session_id"),
        ({"session": "s1:" + "\0" * 400, "period": "p0"}, "session"),
        ({"session": "s1:" + "x" * 990, "period": "p0"}, "session"),
        ({"tool_calls": ["x" * 600]}, "tool_calls"),
    ],
)
def test_no_event_is_more_than_the_database_can_store(api, changes, field):
    """What would not fit is rejected alone and with its field, and is no fault of the server."""
    answer = api.post("/events/batch", [event("ben"), event(**changes)])
    assert answer.status_code == 200
    assert [row["field"] for row in answer.json()["rejected"]] == [field]
    assert answer.json()["accepted"] == 1


def test_no_decision_is_more_than_the_database_can_store(api):
    """A count beyond a column is rejected alone; the largest that fits is kept."""
    answer = api.post("/gate-events/batch", [gate(count=2**31 - 1), gate(count=2**31)])
    assert answer.status_code == 200
    assert (answer.json()["accepted"], answer.json()["rejected"][0]["field"]) == (1, "count")


def test_the_longest_names_that_fit_are_kept(api):
    """512 characters, or 350 that a database stores as two each, are a user and a session like any other."""
    names = ["x" * 512, "\0" * 350]
    posted = [event(name, session_id=name, session=f"s{'9' * 16}:{name}", period="p0") for name in names]
    assert api.post("/events/batch", posted).json() == {"accepted": 2, "duplicates": 0, "rejected": []}
    replies = api.post("/leases", [lease(name, session_id=name) for name in names]).json()
    assert [reply["user_id"] for reply in replies] == names


def test_texts_of_any_kind_are_kept(api):
    """NUL, unpaired quotes and the like come back as they were sent."""
    odd = "a\0b\u2400'\";--💥"
    api.user(odd)
    api.post("/events/batch", [event(odd, model=odd, description=odd, session_id=odd, metadata={odd: odd})])
    row = api.get("/events").json()["events"][0]
    assert (row["user_id"], row["model"], row["description"], row["session_id"]) == (odd, odd, odd, odd)
    assert row["metadata"] == {odd: odd}


def test_sums_beyond_a_machine_word_are_refused(postgres_alias):
    """A total that no longer fits is the caller's 422, not a 500."""
    from django.test import override_settings
    from rest_world import Api

    with override_settings(PAYGENT={"DATABASE": postgres_alias}):
        api = Api.of_new_project()
        batch = [event(cost_nusd=10**15) for _ in range(4000)]
        assert api.post("/events/batch", batch).status_code == 200
        statuses = {
            api.post("/events/batch", [event(cost_nusd=10**15) for _ in range(5000)]).status_code
            for _ in range(2)
        }
    assert statuses <= {200, 422}
    assert 422 in statuses


def test_an_empty_batch_is_nothing(sqlite_api):
    """No events are no error."""
    assert sqlite_api.post("/events/batch", []).json() == {"accepted": 0, "duplicates": 0, "rejected": []}
    assert sqlite_api.post("/gate-events/batch", []).json()["accepted"] == 0
