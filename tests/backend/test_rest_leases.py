from concurrent.futures import ThreadPoolExecutor

from rest_world import event, lease

PROCESSES = 8
CAP = {"max_spend_per_period": 1.0, "max_spend_per_session": None}


def test_a_lease_is_granted_with_its_plan(api):
    """The answer says what was granted, what was posted, the window and the plan."""
    api.user(plan_id=api.plan(**CAP))
    reply = api.post("/leases", [lease()]).json()[0]
    granted = {scope: amount for scope, _, amount in reply["granted"]}
    assert granted["total_spend"] >= 10_000_000
    assert (reply["user_id"], reply["plan"], reply["refusal"]) == ("ada", "pro", None)
    assert reply["plan_config"]["max_spend_per_period"] == 1.0
    assert reply["server_time"]


def test_a_lease_names_the_user_as_the_backend_does(api):
    """The live state of a connected SDK has the id that the API calls him by."""
    api.user(plan_id=api.plan(**CAP))
    reply = api.post("/leases", [lease()]).json()[0]
    assert reply["account"]["paygent_user_id"] == api.get("/users/ada").json()["paygent_user_id"]


def test_a_known_plan_is_not_sent_again(api):
    """Who names the version that he knows gets no content."""
    api.user(plan_id=api.plan(**CAP))
    version = api.post("/leases", [lease()]).json()[0]["plan_version"]
    again = api.post("/leases", [lease(seq=2, plan_version=version)]).json()[0]
    assert (again["plan_config"], again["has_plan"]) == (None, True)


def test_events_of_an_operation_are_posted(api):
    """What was spent is posted before anything is granted."""
    api.user(plan_id=api.plan(**CAP))
    reply = api.post("/leases", [lease(events=[event(cost_nusd=250_000_000)])]).json()[0]
    assert {scope: amount for scope, _, amount in reply["posted"]}["total_spend"] == 250_000_000
    assert api.used()["total_cost"] == 0.25


def test_what_is_spent_is_refused(api):
    """A need beyond a plan that is used up is answered with the limit and ``spent``."""
    api.user(plan_id=api.plan(**CAP))
    api.post("/events/batch", [event(cost_nusd=10**9)])
    reply = api.post("/leases", [lease()]).json()[0]
    assert reply["refusal"] == {"scope": "total_spend", "kind": "spent"}


def test_processes_share_one_cap(api):
    """What one process holds, another cannot have; dropped, it can."""
    api.user(plan_id=api.plan(**CAP, pre_call_estimate=True))
    everything = {"total_spend": 10**9}
    assert api.post("/leases", [lease(need=everything, want={})]).json()[0]["refusal"] is None
    refused = api.post("/leases", [lease(lease_id="process-2", need=everything, want={})]).json()[0]
    assert refused["refusal"] == {"scope": "total_spend", "kind": "busy"}
    assert api.delete("/leases/process-1").status_code == 204
    granted = api.post("/leases", [lease(lease_id="process-2", seq=2, need=everything, want={})]).json()[0]
    assert granted["refusal"] is None


def test_many_users_fit_into_one_request(api):
    """Replies come in the order of the operations."""
    api.plan(name="default", **CAP)
    names = ["zoe", "ada", "müller", "ben"]
    replies = api.post("/leases", [lease(name) for name in names]).json()
    assert [reply["user_id"] for reply in replies] == names


def test_no_operations_are_no_error(api):
    """An empty array asks whether the key is good."""
    assert api.post("/leases", []).json() == []
    assert api.limited_to("read").post("/leases", []).status_code == 403


def test_a_cap_holds_over_many_processes(backend):
    """Eight clients that ask for all they can get are granted the cap once, but for less than one need."""
    with backend.client() as client:
        plan = client.post(
            "/config/plans", json={"plans": [{"name": "cap", **CAP, "pre_call_estimate": True}]}
        )
        client.post("/users", json={"external_user_id": "capped"})
        said = {"plan_id": plan.json()["plans"][0]["id"], "period_start": "2026-04-01T00:00:00Z",
                "period_end": "2026-05-01T00:00:00Z"}  # fmt: skip
        assert client.post("/users/capped/subscription", json=said).status_code == 200

        def grab(number):
            granted, window = 0, ""
            for seq in range(1, 11):
                keep = [["total_spend", window, granted]] if granted else []
                asked = lease(
                    "capped", f"grabber-{number}", seq, need={"total_spend": 10**8}, want={}, keep=keep
                )
                reply = client.post("/leases", json=[asked]).json()[0]
                window = reply["period"]["key"]
                granted = sum(amount for scope, _, amount in reply["granted"] if scope == "total_spend")
            return granted

        with ThreadPoolExecutor(PROCESSES) as pool:
            granted = list(pool.map(grab, range(PROCESSES)))
        for number in range(PROCESSES):
            client.delete(f"/leases/grabber-{number}")
    assert 9 * 10**8 < sum(granted) <= 10**9


def test_a_key_that_may_only_ingest_moves_nobody_to_a_plan(api):
    """The plan of an operation counts where the key may administer users, and is passed over elsewhere."""
    api.user(plan_id=api.plan(**CAP))
    api.plan(name="enterprise", max_spend_per_period=None)
    ingesting = api.limited_to("ingest")
    reply = ingesting.post("/leases", [lease(plan="enterprise")]).json()[0]
    assert reply["plan"] == "pro"
    assert api.get("/users/ada/session").json()["plan"] == "pro"
    assert api.post("/leases", [lease(seq=2, plan="enterprise")]).json()[0]["plan"] == "enterprise"
