"""A ledger within the process: for tests and tools, gone with the process."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from paygent.core.events import Event
from paygent.ledger import Account, Bucket, GateRow, Job, LeaseReply, LeaseRequest, PlanRow
from paygent.ledgers._rows import LeaseRow, apply_leases, plan_key, post_events


class MemoryLedger:
    """Dictionaries. Only the ledger thread touches them, so a step is a transaction."""

    def __init__(self, now_us: Callable[[], int] | None = None) -> None:
        self._now_us = now_us or (lambda: time.time_ns() // 1000)
        self._accounts: dict[str, Account] = {}
        self._plans: dict[str, PlanRow] = {}
        self._sessions: dict[tuple[str, str], tuple[str, int]] = {}
        self._events: dict[str, Event] = {}
        self._totals: dict[str, dict[Bucket, int]] = defaultdict(lambda: defaultdict(int))
        self._leases: dict[str, dict[str, LeaseRow]] = defaultdict(dict)
        self._gates: dict[str, GateRow] = {}
        self._jobs: dict[tuple[str, str], Job] = {}

    @property
    def journal_dir(self) -> Path | None:
        """Nothing of this ledger outlives the process, so a journal would have nowhere to go."""
        return None

    def lease(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        return apply_leases(_MemoryRows(self), requests)

    def settle(self, events: Sequence[Event], close: Sequence[str] = ()) -> int:
        for leases in self._leases.values():
            for lease_id in close:
                leases.pop(lease_id, None)
        return post_events(_MemoryRows(self), events)

    def totals(self, user_id: str) -> dict[Bucket, int]:
        return dict(self._totals[user_id])

    def put_plan(self, name: str, config: str) -> None:
        self._plans[name] = PlanRow(name, plan_key(config), config)

    def plans(self) -> dict[str, str]:
        return {name: plan.config or "{}" for name, plan in self._plans.items()}

    def put_account(self, user_id: str, changes: Mapping[str, Any]) -> None:
        self._accounts[user_id] = self._accounts.get(user_id, Account(user_id))._replace(**changes)

    def record_gates(self, rows: Sequence[GateRow]) -> None:
        for row in rows:
            self._gates.setdefault(row.id, row)

    def events(self, user_id: str | None = None, *, limit: int = 1000) -> list[Event]:
        rows = [event for event in self._events.values() if user_id in (None, event.user_id)]
        return sorted(rows, key=lambda event: (event.timestamp_us, event.id), reverse=True)[:limit]

    def gate_events(self, user_id: str | None = None, *, limit: int = 100) -> list[GateRow]:
        rows = [row for row in self._gates.values() if user_id in (None, row.user_id)]
        return sorted(rows, key=lambda row: (row.timestamp_us, row.id), reverse=True)[:limit]

    def put_job(self, job: Job) -> None:
        self._jobs[job.provider, job.job_id] = job

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        job = self._jobs.get((provider, job_id))
        if job is not None:
            self._jobs[provider, alias] = job

    def job(self, provider: str, name: str) -> Job | None:
        return self._jobs.get((provider, name))

    def forget_after_fork(self) -> None:
        """The child has its own copy."""

    def close(self) -> None:
        """Nothing is held open."""


class _MemoryRows:
    """The rows of a :class:`MemoryLedger` within one step."""

    def __init__(self, store: MemoryLedger) -> None:
        self._store = store

    def now_us(self) -> int:
        return self._store._now_us()

    def account(self, user_id: str) -> Account | None:
        return self._store._accounts.get(user_id)

    def plan(self, name: str) -> PlanRow | None:
        return self._store._plans.get(name)

    def session(self, user_id: str, own_id: str) -> tuple[str, int] | None:
        return self._store._sessions.get((user_id, own_id))

    def put_session(self, user_id: str, own_id: str, session_id: str, started_us: int) -> None:
        self._store._sessions[user_id, own_id] = (session_id, started_us)

    def insert_events(self, events: Sequence[Event]) -> Sequence[Event]:
        new = [event for event in events if event.id not in self._store._events]
        self._store._events.update((event.id, event) for event in new)
        return new

    def add(self, deltas: Mapping[tuple[str, str, str], int]) -> None:
        for (user_id, scope, window), amount in deltas.items():
            self._store._totals[user_id][scope, window] += amount

    def leases(self, user_id: str) -> list[LeaseRow]:
        return list(self._store._leases[user_id].values())

    def put_lease(self, user_id: str, row: LeaseRow) -> None:
        self._store._leases[user_id][row.lease_id] = row

    def drop_lease(self, user_id: str, lease_id: str) -> None:
        self._store._leases[user_id].pop(lease_id, None)

    def put_account(self, account: Account) -> None:
        self._store._accounts[account.user_id] = account

    def totals(self, user_id: str, windows: Collection[str]) -> dict[Bucket, int]:
        totals = self._store._totals.get(user_id, {})
        return {bucket: amount for bucket, amount in totals.items() if bucket[1] in windows}
