"""Where users stand on the limits of their plans, as the ledger knows it now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from paygent.core.balance import UNLIMITED
from paygent.core.models import PlanConfig
from paygent.core.plan import (
    MODEL_COST,
    MODEL_LIMIT,
    SESSION_SPEND,
    TOTAL_SPEND,
    CompiledPlan,
    Limit,
    compile_plan,
)
from paygent.core.windows import Window
from paygent.ledger import Bucket, LeaseReply, LeaseRequest, Ledger, PlanRow

READER = "dashboard"  # the lease of nobody: a request without amounts reads, and stores nothing
_STATES = ("off", "ok", "soft", "blocked")
_USERS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class LimitLine:
    """
    One scope of a user: nano-dollars, or tokens of a model.

    ``cap`` of ``None`` is no limit; ``reserved`` is held for calls in flight and by leases of processes.
    """

    scope: str
    used: int
    reserved: int
    cap: int | None
    soft: int
    hard: int
    resets_us: int | None

    @property
    def state(self) -> str:
        """``ok``, ``soft`` (warned) or ``blocked``."""
        if self.cap is None:
            return "ok"
        return "blocked" if self.used >= self.hard else "soft" if self.used >= self.soft else "ok"

    @property
    def soft_at(self) -> float | None:
        """The share of the cap at which warnings begin."""
        return self.soft / self.cap if self.cap else None


@dataclass(frozen=True, slots=True)
class Standing:
    """One user: his plan, and where he stands on each of its limits, the spend of the period first."""

    user_id: str
    plan: str
    has_plan: bool
    has_own_terms: bool
    is_metered: bool
    period: Window
    lines: tuple[LimitLine, ...]
    cost_by_model: tuple[tuple[str, int], ...]

    @property
    def state(self) -> str:
        """``off`` (metering is switched off), else the most restrictive of his limits."""
        return self.worst.state if self.is_metered else "off"

    @property
    def worst(self) -> LimitLine:
        """The limit that is nearest to its end; of several alike the first."""
        return max(self.lines, key=lambda line: _STATES.index(line.state))

    @property
    def spend(self) -> LimitLine:
        """The spend of the billing period."""
        return self.lines[0]


def standings(ledger: Ledger, user_ids: Sequence[str]) -> list[Standing]:
    """Where each of these users stands, in their order."""
    found: list[Standing] = []
    for start in range(0, len(user_ids), _USERS_AT_ONCE):
        asked = [LeaseRequest(user_id, READER, 0) for user_id in user_ids[start : start + _USERS_AT_ONCE]]
        found += map(standing, ledger.lease(asked))
    return found


def standing(reply: LeaseReply) -> Standing:
    """Read the ledger's answer about one user."""
    plan = compiled(reply.plan)
    costs = (
        (scope[len(MODEL_COST) :], nusd)
        for (scope, window), nusd in reply.posted.items()
        if scope.startswith(MODEL_COST) and window == reply.period.key
    )
    return Standing(
        user_id=reply.account.user_id,
        plan=reply.plan.name,
        has_plan=reply.plan.config is not None,
        has_own_terms=reply.account.own_config is not None,
        is_metered=reply.account.sdk_enabled,
        period=reply.period,
        lines=tuple(_lines(reply, plan)),
        cost_by_model=tuple(sorted(costs, key=lambda one: (-one[1], one[0]))),
    )


@lru_cache(maxsize=256)
def compiled(plan: PlanRow) -> CompiledPlan:
    """A stored plan as integers; what a newer version may have added to it is left out."""
    return compile_plan(plan.name, PlanConfig.from_backend(json.loads(plan.config or "{}")))


def _lines(reply: LeaseReply, plan: CompiledPlan) -> Iterator[LimitLine]:
    yield _line(TOTAL_SPEND, plan.period, reply.period, reply.posted, reply.others)
    session = reply.session.window if reply.session is not None else None
    yield _line(SESSION_SPEND, plan.session, session, reply.posted, reply.others)
    for model, limit in sorted(plan.models.items()):
        yield _line(MODEL_LIMIT + model, limit, reply.period, reply.posted, reply.others)


def _line(
    scope: str,
    limit: Limit,
    window: Window | None,
    posted: Mapping[Bucket, int],
    held: Mapping[Bucket, int],
) -> LimitLine:
    """One scope; without a window (no session runs) nothing is used of it."""
    bucket = (scope, window.key if window is not None else "")
    cap = limit.cap if limit.cap < UNLIMITED else None
    ends_us = window.end_us if window is not None else None
    return LimitLine(scope, posted.get(bucket, 0), held.get(bucket, 0), cap, limit.soft, limit.hard, ends_us)
