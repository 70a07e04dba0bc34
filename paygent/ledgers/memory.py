"""A ledger within the process: for tests and tools, gone with the process."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from paygent.core.events import Event
from paygent.ledger import Account, Bucket, GateRow, Job, LeaseReply, LeaseRequest, PlanRow
from paygent.ledgers._memory_insight import MemoryInsight
from paygent.ledgers._rows import LeaseRow, SessionRow, Sweeper, apply_leases, plan_key, post_events


class MemoryLedger(MemoryInsight):
    """Dictionaries under one lock: a step is a transaction."""

    def __init__(self, now_us: Callable[[], int] | None = None) -> None:
        self._now_us = now_us or (lambda: time.time_ns() // 1000)
        self._lock = threading.RLock()
        self._sweeper = Sweeper()
        self._accounts: dict[str, Account] = {}
        self._plans: dict[str, PlanRow] = {}
        self._sessions: dict[tuple[str, str], SessionRow] = {}
        self._events: dict[str, Event] = {}
        self._totals: dict[str, dict[Bucket, int]] = defaultdict(lambda: defaultdict(int))
        self._leases: dict[str, dict[str, LeaseRow]] = {}
        self._gates: dict[str, GateRow] = {}
        self._jobs: dict[tuple[str, str], Job] = {}
        self._aliases: dict[tuple[str, str], str] = {}

    @property
    def journal_dir(self) -> Path | None:
        """Nothing of this ledger outlives the process, so a journal would have nowhere to go."""
        return None

    def lease(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        with self._lock:
            rows = _MemoryRows(self)
            self._sweeper.sweep(rows)
            return apply_leases(rows, requests)

    def settle(self, events: Sequence[Event], close: Sequence[str] = ()) -> int:
        with self._lock:
            for leases in self._leases.values() if close else ():
                for lease_id in close:
                    leases.pop(lease_id, None)
            return post_events(_MemoryRows(self), events)

    def totals(self, user_id: str) -> dict[Bucket, int]:
        with self._lock:
            return dict(self._totals.get(user_id, {}))

    def put_plan(self, name: str, config: str) -> None:
        with self._lock:
            known, key = self._plans.get(name), plan_key(config)
            if known is None or known.key != key:
                self._plans[name] = PlanRow(name, key, config)

    def plans(self) -> dict[str, str]:
        with self._lock:
            return {name: self._plans[name].config or "{}" for name in sorted(self._plans)}

    def put_account(self, user_id: str, changes: Mapping[str, Any]) -> None:
        with self._lock:
            self._accounts[user_id] = self._accounts.get(user_id, Account(user_id))._replace(**changes)

    def record_gates(self, rows: Sequence[GateRow]) -> None:
        with self._lock:
            for row in rows:
                self._gates.setdefault(row.id, row)

    def events(self, user_id: str | None = None, *, limit: int = 1000) -> list[Event]:
        with self._lock:
            rows = [event for event in self._events.values() if user_id in (None, event.user_id)]
        return sorted(rows, key=lambda event: (event.timestamp_us, event.id), reverse=True)[:limit]

    def gate_events(self, user_id: str | None = None, *, limit: int = 100) -> list[GateRow]:
        with self._lock:
            rows = [row for row in self._gates.values() if user_id in (None, row.user_id)]
        return sorted(rows, key=lambda row: (row.timestamp_us, row.id), reverse=True)[:limit]

    def put_job(self, job: Job) -> None:
        with self._lock:
            self._jobs[job.provider, job.job_id] = job

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        with self._lock:
            self._aliases[provider, alias] = job_id

    def job(self, provider: str, name: str) -> Job | None:
        with self._lock:
            job_id = self._aliases.get((provider, name), name)
            return self._jobs.get((provider, name)) or self._jobs.get((provider, job_id))

    def beside(self) -> MemoryLedger:
        """The ledger itself: there is no other handle on it, and closing it does nothing."""
        return self

    def pulse(self) -> int:
        """Nobody waits for another process here."""
        return 0

    def forget_after_fork(self) -> None:
        """The child has its own copy; a thread that is not there any more may have held the lock."""
        self._lock = threading.RLock()

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

    def session(self, user_id: str, own_id: str) -> SessionRow | None:
        return self._store._sessions.get((user_id, own_id))

    def put_session(self, user_id: str, own_id: str, session: SessionRow) -> None:
        self._store._sessions[user_id, own_id] = session

    def insert_events(self, events: Sequence[Event]) -> Sequence[Event]:
        new = [event for event in events if event.id not in self._store._events]
        self._store._events.update((event.id, event) for event in new)
        return new

    def add(self, deltas: Mapping[tuple[str, str, str], int]) -> None:
        for (user_id, scope, window), amount in deltas.items():
            self._store._totals[user_id][scope, window] += amount

    def leases(self, user_id: str) -> list[LeaseRow]:
        return list(self._store._leases.get(user_id, {}).values())

    def put_lease(self, user_id: str, row: LeaseRow) -> None:
        self._store._leases.setdefault(user_id, {})[row.lease_id] = row

    def drop_lease(self, user_id: str, lease_id: str) -> None:
        self._store._leases.get(user_id, {}).pop(lease_id, None)

    def sweep(self, leases_before_us: int, sessions_before_us: int) -> None:
        leases, sessions = self._store._leases, self._store._sessions
        for user_id, rows in tuple(leases.items()):
            live = {row.lease_id: row for row in rows.values() if row.expires_us > leases_before_us}
            leases.pop(user_id) if not live else leases.update({user_id: live})
        for key in [key for key, row in sessions.items() if row.ends_us <= sessions_before_us]:
            del sessions[key]

    def put_account(self, account: Account) -> None:
        self._store._accounts[account.user_id] = account

    def totals(self, user_id: str, windows: Collection[str]) -> dict[Bucket, int]:
        totals = self._store._totals.get(user_id, {})
        return {bucket: amount for bucket, amount in totals.items() if bucket[1] in windows}
