"""
The ledger port: what a store must do so that many processes share one cap, and the values it exchanges.

A ledger is written once, blocking, and is only ever called from one thread of the process (see
``paygent.exporter``). It supplies atomicity; the rule itself is ``paygent.core.balance``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from paygent.core.events import Event
from paygent.core.windows import Window

# A scope within one window, such as ("total_spend", "p1764547200000000").
Bucket = tuple[str, str]

LEASE_TTL_S = 30.0
GRANT_TTL_S = 20.0
DEFAULT_PLAN = "default"


class LedgerError(Exception):
    """The ledger could not do what it was asked for: unreachable, locked, full or broken."""


class PlanRow(NamedTuple):
    """A plan as stored: ``key`` names the content, so that equal content is an equal version."""

    name: str
    key: str
    config: str | None  # JSON of a PlanConfig; None: no plan, hence no limits


class Account(NamedTuple):
    """What the ledger knows of one user besides totals; ``period`` is start and end in microseconds."""

    user_id: str
    plan: str | None = None
    own_config: str | None = None
    period: tuple[int, int] | None = None
    sdk_enabled: bool = True
    contended_us: int = 0
    paygent_user_id: str | None = None  # a backend's own id of the user, a UUID


class Session(NamedTuple):
    """A session of one user; ``session_id`` is the caller's own or a generated one."""

    session_id: str
    window: Window


@dataclass(slots=True)
class LeaseRequest:
    """
    One absolute operation on the lease of one process for one user.

    The ledger posts the *events* it has not seen, sets the lease to *keep* (open holds plus the idle part
    that is kept), then grants *need* and, where room is ample, a slice on top. *want* asks for the slice
    alone. A *seq* not above the stored one changes no lease.

    Amounts of *held* and *keep* are by bucket, those of *need* and *want* by scope: the ledger knows the
    windows. ``session_id`` names the caller's own session, ``begin_session`` says that a call is about to
    be made, so that a default session begins if none is running. ``plan`` moves the user to that plan first,
    if it is registered.
    """

    user_id: str
    lease_id: str
    seq: int
    session_id: str | None = None
    begin_session: bool = False
    plan: str | None = None
    held: dict[Bucket, int] = field(default_factory=dict)
    keep: dict[Bucket, int] = field(default_factory=dict)
    need: dict[str, int] = field(default_factory=dict)
    want: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


@dataclass(slots=True)
class LeaseReply:
    """
    The state after the operation. ``denied`` is the scope without room, ``busy`` whether only other holds are
    in its way. ``lease`` and ``others`` are amounts by bucket; ``sharers`` counts the live leases, this one
    included; ``contended`` asks to hand back what is idle.
    """

    account: Account
    plan: PlanRow
    period: Window
    session: Session | None
    posted: dict[Bucket, int]
    lease: dict[Bucket, int] = field(default_factory=dict)
    others: dict[Bucket, int] = field(default_factory=dict)
    sharers: int = 1
    denied: str | None = None
    busy: bool = False
    contended: bool = False
    now_us: int = 0


class GateRow(NamedTuple):
    """One decision other than *ok*, or ``count`` equal ones, for the audit trail."""

    id: str
    user_id: str
    timestamp_us: int
    session_id: str | None
    status: str
    gate_reason: str | None
    usage_pct: float
    current_value: float
    limit_value: float
    model: str | None
    blocked: int
    message: str | None
    metadata: dict[str, Any] | None
    count: int  # type: ignore[assignment]  # the word of the public model; tuple.count is never used


class Job(NamedTuple):
    """A batch or background response whose usage comes later: whom it belongs to."""

    job_id: str
    user_id: str
    session_id: str | None
    provider: str
    model: str | None
    metadata: dict[str, Any] | None


class Ledger(Protocol):
    """One store. Every method blocks, and raises :class:`LedgerError` when the store cannot be asked."""

    @property
    def journal_dir(self) -> Path | None:
        """Where processes keep their journals; ``None``: nothing outlives the process, so no journal."""

    def lease(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        """Apply the requests of several users in one transaction, in sorted order; replies in theirs."""

    def settle(self, events: Sequence[Event], close: Sequence[str] = ()) -> int:
        """Post *events* and drop the leases named by *close*; returns how many events were new."""

    def totals(self, user_id: str) -> dict[Bucket, int]:
        """Everything posted for a user, by bucket."""

    def put_plan(self, name: str, config: str) -> None:
        """Register a plan; equal content changes nothing."""

    def plans(self) -> dict[str, str]:
        """All plans by name, as JSON."""

    def put_account(self, user_id: str, changes: Mapping[str, Any]) -> None:
        """Change fields of :class:`Account`; usage is never touched."""

    def record_gates(self, rows: Sequence[GateRow]) -> None:
        """Append to the audit trail; a known id is not appended again."""

    def events(self, user_id: str | None = None, *, limit: int = 1000) -> list[Event]:
        """The newest events, newest first."""

    def gate_events(self, user_id: str | None = None, *, limit: int = 100) -> list[GateRow]:
        """The newest decisions, newest first."""

    def put_job(self, job: Job) -> None:
        """Remember whom a batch belongs to."""

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        """Let *alias* (a result file) name the batch too."""

    def job(self, provider: str, name: str) -> Job | None:
        """The batch of that id or alias."""

    def pulse(self) -> int:
        """
        A number that changes whenever any process has a turn at the store; it never waits and never raises.

        Whoever waits for his turn sees by it that others have theirs: the store is busy, and not away. Where
        that cannot be told without asking the store, it changes whenever the store answers within one
        operation of many questions, or else is 0.
        """

    def forget_after_fork(self) -> None:
        """In a forked child: let go of what the parent holds open, without closing it."""

    def close(self) -> None:
        """Give back what the ledger holds open."""
