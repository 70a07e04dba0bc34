"""The quickstart and the eight checks of the runbook, as printed apart from the address and the key."""

import time
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import NamedTuple

import httpx
import pytest
from openai import OpenAI

from paygent import Paygent, PaygentLimitExceeded, paygent_context
from paygent.testing.llm_server import LLMServer

PLANS = {
    "soft_gate_at": 0.80,
    "hard_gate_at": 1.00,
    "plans": [
        {
            "name": "free",
            "max_spend_per_period": 5.00,
            "max_spend_per_session": 0.50,
            "model_limits": {"gpt-4o-mini": {"max_tokens_per_period": 10000}},
            "cost_rates": {"gpt-4o-mini": {"input": 0.00015, "output": 0.0006}},
        },
        {
            "name": "pro",
            "max_spend_per_period": 49.00,
            "max_spend_per_session": 5.00,
            "model_limits": {
                "gpt-4o": {"max_tokens_per_period": 50000},
                "gpt-4o-mini": {"max_tokens_per_period": 200000},
            },
            "cost_rates": {
                "gpt-4o": {"input": 0.0025, "output": 0.01},
                "gpt-4o-mini": {"input": 0.00015, "output": 0.0006},
            },
        },
    ],
}
PRO_USER = "user_123"
FREE_USER = "test_free"
WAIT_S_MAX = 60


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def world(request, tmp_path_factory):
    """Everything the quickstart sets up, and its first call."""
    with pytest.MonkeyPatch.context() as patch, LLMServer(reply_tokens=300) as llm:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("OPENAI_BASE_URL", llm.openai_base_url)
        patch.setenv("OPENAI_API_KEY", "sk-loopback")
        backend = request.getfixturevalue(f"{request.param}_backend")
        pg = Paygent.init(api_key=backend.key, base_url=backend.url)
        try:
            yield World(pg, backend, llm)
        finally:
            pg.shutdown()


class Robots(NamedTuple):
    """What became of the loop of check 7."""

    passed: int
    sent: int
    reason: str | None
    soft_gates: list
    hard_gates: list


class World:
    def __init__(self, pg, backend, llm):
        self.pg, self.llm = pg, llm
        self.base, self.headers = backend.api, backend.headers
        self.plans = self._quickstart_plans()
        self._quickstart_user()
        self.client = OpenAI()
        with paygent_context(user_id="user_123"):
            self.first = self.client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "Say hello in five words"}],
            )
        self.settle()

    def settle(self):
        """Have everything metered so far at the backend."""
        ends_s = time.monotonic() + WAIT_S_MAX
        while self.pg.pending_events:
            assert time.monotonic() < ends_s, self.pg.queue_stats
            self.pg.flush()

    def _quickstart_plans(self):
        resp = httpx.post(f"{self.base}/config/plans", headers=self.headers, json=PLANS)
        return {p["name"]: p["id"] for p in resp.json()["plans"]}

    def _quickstart_user(self):
        httpx.post(
            f"{self.base}/users",
            headers=self.headers,
            json={"external_user_id": "user_123", "name": "Alice"},
        )
        self.subscribe("user_123", "pro")

    def subscribe(self, user_id, plan):
        now = datetime.now(timezone.utc)
        httpx.post(
            f"{self.base}/users/{user_id}/subscription",
            headers=self.headers,
            json={
                "plan_id": self.plans[plan],
                "period_start": now.isoformat(),
                "period_end": (now + timedelta(days=30)).isoformat(),
            },
        ).raise_for_status()

    @cached_property
    def robots(self):
        """The loop of check 7 over the free plan: how many calls passed, the refusal, and both callbacks."""
        r = httpx.post(
            f"{self.base}/users",
            headers=self.headers,
            json={"external_user_id": FREE_USER, "name": "Test Free User"},
        )
        if r.status_code not in (201, 409):
            r.raise_for_status()
        self.subscribe(FREE_USER, "free")
        soft_gates, hard_gates = [], []
        self.pg.on_soft_gate(lambda r: soft_gates.append(r))  # noqa: PLW0108  # as printed
        self.pg.on_hard_gate(lambda r: hard_gates.append(r))  # noqa: PLW0108  # as printed
        reason, seen = None, len(self.llm.requests)
        with paygent_context(user_id=FREE_USER):
            for i in range(50):
                try:
                    self.client.chat.completions.create(
                        model="gpt-4o-mini",
                        messages=[
                            {"role": "user", "content": f"Tell me a long story about robot number {i}"}
                        ],
                        max_tokens=200,
                    )
                except PaygentLimitExceeded as e:
                    reason = e.guard_result.gate_reason
                    break
        return Robots(i, len(self.llm.requests) - seen, reason, soft_gates, hard_gates)

    def get(self, path):
        return httpx.get(f"{self.base}{path}", headers=self.headers)


def test_the_live_state_has_the_backends_own_id(world):
    """The id that the API answered when the user was made is in the state of the SDK."""
    told = httpx.get(f"{world.base}/users/{PRO_USER}", headers=world.headers).json()
    assert world.pg.get_user_state(PRO_USER).paygent_user_id == told["paygent_user_id"]


def test_the_quickstart_call_is_answered(world):
    """The call of step 6 passes through to the model and comes back whole."""
    assert world.first.choices[0].message.content


def test_the_quickstart_reads_usage_from_the_sdk(world):
    """Step 7 shows cost, tokens and the model of the calls so far."""
    usage = world.pg.get_usage("user_123")
    said = (
        f"Period cost: ${usage.period_cost:.4f}",
        f"Tokens used: {usage.period_tokens_total}",
        f"By model: {usage.period_tokens_by_model}",
    )
    assert usage.period_tokens_total >= world.first.usage.total_tokens
    assert said[2] == f"By model: {{'gpt-4o-mini': {usage.period_tokens_total}}}"


def test_check_1_a_real_call_is_metered_in_the_sdk(world):
    """All four values are above zero, and the model is named."""
    with paygent_context(user_id=PRO_USER):
        world.client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=20,
        )
    usage = world.pg.get_usage(PRO_USER)
    assert usage.period_cost > 0
    assert usage.period_tokens_total > 0
    assert "gpt-4o-mini" in usage.period_tokens_by_model
    assert usage.session_cost > 0


def test_check_2_remaining_budget_is_correct(world):
    """What is left is the plan's limit without what was recorded."""
    usage = world.pg.get_usage(PRO_USER)
    budget = world.pg.get_remaining_budget(PRO_USER)
    assert budget.period_spend_remaining == pytest.approx(49.0 - usage.period_cost, abs=1e-9)
    assert budget.session_spend_remaining == pytest.approx(5.0 - usage.session_cost, abs=1e-9)
    assert budget.model_tokens_remaining == {
        "gpt-4o": 50000,
        "gpt-4o-mini": 200000 - usage.period_tokens_total,
    }
    assert budget.most_constrained in ("period_spend", "session_spend", "model_tokens")


def test_check_3_the_breakdown_per_model_is_accurate(world):
    """There is one row per model of the plan; only the model that was called has tokens."""
    used = {row.model: row for row in world.pg.get_model_usage(PRO_USER)}
    assert set(used) == {"gpt-4o", "gpt-4o-mini"}
    assert used["gpt-4o-mini"].tokens_used > 0
    assert (used["gpt-4o"].tokens_used, used["gpt-4o"].tokens_limit) == (0, 50000)


def test_check_4_the_backend_has_the_same_data(world):
    """After a flush the backend reports what the SDK does."""
    world.settle()
    usage = world.pg.get_usage(PRO_USER)
    report = world.get("/users/user_123/usage").json()
    assert report["user_id"] == "user_123"
    assert report["period"] == "current_period"
    assert report["total_cost"] == pytest.approx(usage.period_cost, abs=1e-12)
    assert report["total_tokens"] == usage.period_tokens_total
    assert report["tokens_by_model"] == {"gpt-4o-mini": usage.period_tokens_total}
    assert report["cost_by_model"] == {"gpt-4o-mini": pytest.approx(usage.period_cost, abs=1e-12)}
    assert report["tool_calls_count"] == 0


def test_check_5_the_plans_are_what_was_set(world):
    """Every limit and rate comes back as it was configured."""
    plans = {plan["name"]: plan for plan in world.get("/config/plans").json()["plans"]}
    for given in PLANS["plans"]:
        assert {name: plans[given["name"]][name] for name in given} == given
        assert (plans[given["name"]]["soft_gate_at"], plans[given["name"]]["hard_gate_at"]) == (0.8, 1.0)


def test_check_6_the_user_is_on_the_right_plan(world):
    """The bootstrap names the plan, its limits, the usage and the period."""
    session = world.get("/users/user_123/session").json()
    assert session["plan"] == "pro"
    assert session["plan_config"]["max_spend_per_period"] == 49.0
    assert session["plan_config"]["model_limits"] == PLANS["plans"][1]["model_limits"]
    assert session["current_usage"]["period_cost"] > 0
    start, end = (datetime.fromisoformat(session["billing_period"][side]) for side in ("start", "end"))
    assert end - start == timedelta(days=30)


def test_check_7_the_gate_fires_and_blocks(world):
    """The loop over the free plan is warned of and then blocked, and the blocked call does not leave."""
    robots = world.robots
    assert robots.reason in ("total_spend", "model_limit:gpt-4o-mini")
    assert robots.soft_gates
    assert robots.hard_gates
    assert robots.passed < 50
    assert robots.sent == robots.passed


def test_check_8_gate_events_are_recorded(world):
    """The audit trail holds soft and hard gates, and can be narrowed to what was blocked."""
    assert world.robots.reason
    world.settle()
    ends_s = time.monotonic() + WAIT_S_MAX
    while not (rows := world.get(f"/users/{FREE_USER}/gate-events?blocked_only=true").json()["events"]):
        assert time.monotonic() < ends_s
        time.sleep(0.1)
    assert all(row["blocked"] and row["status"] == "hard_gate" for row in rows)
    everything = world.get(f"/users/{FREE_USER}/gate-events?blocked_only=false").json()["events"]
    assert {row["status"] for row in everything} == {"soft_gate", "hard_gate"}
