"""A ledger in Redis, shared by every process of a fleet."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from paygent.core.balance import UNLIMITED
from paygent.core.events import Event, decode
from paygent.ledger import Account, Bucket, GateRow, Job, LeaseReply, LeaseRequest, LedgerError
from paygent.ledgers import _redis_keys as keys
from paygent.ledgers._redis_epoch import Epoch
from paygent.ledgers._redis_gates import gate_rows, record_gates
from paygent.ledgers._redis_keys import key
from paygent.ledgers._redis_link import Link
from paygent.ledgers._redis_newest import newest
from paygent.ledgers._redis_transaction import Transaction
from paygent.ledgers._rows import apply_leases, compiled, plan_key, post_events
from paygent.ledgers._staged import Guesses
from paygent.ledgers._urls import journal_folder
from paygent.ledgers._values import from_json, to_json

TRIES = 8
_REST_S = 0.001
_BEHIND_S = 1.0  # the longest that anyone lets others go first


class _Batch(NamedTuple):
    """Some users, and what concerns them."""

    users: tuple[str, ...]
    requests: list[LeaseRequest]
    events: list[Event]


class RedisLedger:
    """
    One family of keys for each user, changed in optimistic transactions; one connection, opened on first use.

    The server's clock is the only clock (*now_us* replaces it in tests). Rows of events and decisions are
    kept for 35 days, totals for good. How safe they are is a matter of how Redis is set up: see
    ``docs/ledgers.md``.

    Args:
        url: ``redis://user:password@host:port/0``, ``rediss://…``, or ``unix:///path/to/redis.sock?db=0``.
    """

    def __init__(self, url: str, now_us: Callable[[], int] | None = None) -> None:
        self._now_us = now_us
        self._journal_dir = journal_folder(url)
        self._link = Link(url, Epoch(self._journal_dir / "epoch"), self._put_own_plans)
        self._guesses = Guesses()
        self._own_plans: dict[str, str] = {}
        self._name = uuid.uuid4().hex

    @property
    def journal_dir(self) -> Path | None:
        """A folder of this machine, where its processes recover each other's journals."""
        return self._journal_dir

    def lease(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        """As the port says; the requests of users who do not fit one transaction are applied one by one."""
        replies: dict[int, LeaseReply] = {}

        def work(batch: _Batch, transaction: Transaction) -> bool:
            answers = apply_leases(transaction.rows, batch.requests)
            if not transaction.commit():
                return False
            self._guesses.learn(answers)
            replies.update(zip(map(id, batch.requests), answers, strict=True))
            return True

        def too_busy(batch: _Batch) -> None:
            for request in batch.requests:
                reply = self._busy(request)
                if batch.events or reply is None:
                    self._too_busy(batch)
                replies[id(request)] = reply

        events = [event for request in requests for event in request.events]
        users = {request.user_id for request in requests} | {event.user_id for event in events}
        self._link.run(lambda: self._each(_batch(users, requests, events), work, too_busy))
        return [replies[id(request)] for request in requests]

    def settle(self, events: Sequence[Event], close: Sequence[str] = ()) -> int:
        new: list[int] = []

        def work(batch: _Batch, transaction: Transaction) -> bool:
            count = post_events(transaction.rows, batch.events)
            is_done = transaction.commit(close)
            new.extend([count] * is_done)
            return is_done

        def operation() -> None:
            users = {event.user_id for event in events} | self._users_of(close)
            self._each(_batch(users, (), events), work, self._too_busy)

        self._link.run(operation)
        return sum(new)

    def totals(self, user_id: str) -> dict[Bucket, int]:
        def operation() -> dict[Bucket, int]:
            (names,) = self._link.trip(("SMEMBERS", key(user_id, "w")))
            windows = [name.decode() for name in names]
            found = self._link.trip(*(("HGETALL", key(user_id, "t", window)) for window in windows))
            return {
                (scope, window): amount
                for window, pairs in zip(windows, found, strict=True)
                for scope, amount in keys.totals_from(pairs).items()
            }

        return self._link.run(operation)

    def put_plan(self, name: str, config: str) -> None:
        self._own_plans[name] = config

        def operation() -> None:
            (text,) = self._link.trip(("HGET", keys.PLANS, name))
            known = keys.plan_from(name, text)
            if known is None or known.key != plan_key(config):
                self._link.trip(("HSET", keys.PLANS, name, keys.plan_to(plan_key(config), config)))

        self._link.run(operation)

    def plans(self) -> dict[str, str]:
        (pairs,) = self._link.run(lambda: self._link.trip(("HGETALL", keys.PLANS)))
        rows = {name.decode(): keys.plan_from("", text) for name, text in keys.pairs_of(pairs)}
        return {name: row.config or "{}" for name, row in sorted(rows.items()) if row is not None}

    def put_account(self, user_id: str, changes: Mapping[str, Any]) -> None:
        def work(_: _Batch, transaction: Transaction) -> bool:
            account = transaction.rows.account(user_id) or Account(user_id)
            transaction.rows.put_account(account._replace(**changes))
            return transaction.commit()

        self._link.run(lambda: self._each(_batch({user_id}, (), ()), work, self._too_busy))

    def record_gates(self, rows: Sequence[GateRow]) -> None:
        self._link.run(lambda: record_gates(self._link, rows, self._clock_us()))

    def events(self, user_id: str | None = None, *, limit: int = 1000) -> list[Event]:
        found = self._link.run(lambda: newest(self._link, keys.USERS, "e", user_id, limit))
        return [decode(text.decode()) for _, text, _ in found]

    def gate_events(self, user_id: str | None = None, *, limit: int = 100) -> list[GateRow]:
        return self._link.run(lambda: gate_rows(self._link, user_id, limit))

    def put_job(self, job: Job) -> None:
        name = keys.job_key("job", job.provider, job.job_id)
        self._link.run(lambda: self._link.trip(("SET", name, to_json(job), "EX", keys.EVENTS_KEPT_S)))

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        name = keys.job_key("alias", provider, alias)
        self._link.run(lambda: self._link.trip(("SET", name, job_id, "EX", keys.EVENTS_KEPT_S)))

    def job(self, provider: str, name: str) -> Job | None:
        def operation() -> Any:
            alias, job = keys.job_key("alias", provider, name), keys.job_key("job", provider, name)
            text, job_id = self._link.trip(("GET", job), ("GET", alias))
            if text is None and job_id is not None:
                (text,) = self._link.trip(("GET", keys.job_key("job", provider, job_id.decode())))
            return text

        found = from_json(self._link.run(operation))
        return None if found is None else Job(*found)

    def pulse(self) -> int:
        """How often the server has answered: where others are in the way, it is not away."""
        return self._link.answered

    def forget_after_fork(self) -> None:
        """The child opens a connection of its own, and its parent notices nothing."""
        self._name = uuid.uuid4().hex
        self._link.forget_after_fork()

    def close(self) -> None:
        self._link.close()

    # -- transactions --------------------------------------------------------------------------------------

    def _each(
        self,
        batch: _Batch,
        work: Callable[[_Batch, Transaction], bool],
        too_busy: Callable[[_Batch], None],
    ) -> None:
        """Do *work* on all of *batch*: at once where one transaction can hold it, else user by user."""
        if not batch.users:
            self._link.trip()  # at least find out whether it is there
        elif self._link.is_cluster:
            for one in _parts(batch, 1):
                self._persist(one, work, too_busy)
        else:
            self._persist(batch, work, too_busy)

    def _persist(
        self,
        batch: _Batch,
        work: Callable[[_Batch, Transaction], bool],
        too_busy: Callable[[_Batch], None],
    ) -> None:
        """
        Try until nobody is faster; what many users stand in the way of goes on in halves.

        A process that gets little time is overtaken again and again: after the second time it goes first.
        """
        tries, ends_s = 0, time.monotonic() + _BEHIND_S
        while tries < TRIES:
            transaction = self._begin(batch, turn=tries > 1)
            waits = transaction.is_behind and time.monotonic() < ends_s
            if not waits and work(batch, transaction):
                return
            if len(batch.users) > 1:
                for half in _parts(batch, (len(batch.users) + 1) // 2):
                    self._persist(half, work, too_busy)
                return
            tries += not waits
            # So that they do not meet again; who goes first does not keep the others waiting.
            rests = 8 if waits else 2 ** min(tries, 2)
            time.sleep(random.uniform(0, _REST_S * rests))  # noqa: S311
        too_busy(batch)

    def _begin(self, batch: _Batch, *, turn: bool = False) -> Transaction:
        transaction = Transaction(self._link, self._now_us, self._guesses, self._name, turn=turn)
        transaction.begin(batch.users, batch.requests, batch.events)
        return transaction

    def _busy(self, request: LeaseRequest) -> LeaseReply | None:
        """
        The answer to an operation that never came through: the stored lease stands, and a need is busy.

        ``None`` where that cannot be said, as a session would have to begin.
        """
        rows = self._begin(_batch({request.user_id}, [request], ())).rows
        stored = rows.leases_of[request.user_id].get(request.lease_id)
        (reply,) = apply_leases(rows, [request])  # what it changes is not written
        if rows.changed_sessions:
            return None
        limits = compiled(reply.plan)
        finite = (scope for scope in request.need if limits.limit_of(scope).hard < UNLIMITED)
        reply.lease = dict(stored.amounts) if stored is not None else {}
        reply.denied = next(finite, None)
        reply.busy = reply.denied is not None
        return reply

    def _too_busy(self, batch: _Batch) -> NoReturn:
        raise LedgerError(f"{self._link.name}: too many others changed {batch.users[0]!r}")

    def _users_of(self, leases: Sequence[str]) -> set[str]:
        found = self._link.trip(*(("ZRANGE", keys.lease_key(name), 0, -1) for name in leases))
        return {user_id.decode() for users in found for user_id in users}

    def _clock_us(self) -> int:
        if self._now_us is not None:
            return self._now_us()
        ((seconds, micros),) = self._link.trip(("TIME",))
        return int(seconds) * 1_000_000 + int(micros)

    def _put_own_plans(self, link: Link) -> None:
        """Data begun anew must not make the plans of this process unlimited."""
        for name, config in self._own_plans.items():
            link.raw(("HSETNX", keys.PLANS, name, keys.plan_to(plan_key(config), config)))


def _batch(users: Iterable[str], requests: Sequence[LeaseRequest], events: Iterable[Event]) -> _Batch:
    distinct = {event.id: event for event in events}
    return _Batch(tuple(sorted(users)), list(requests), list(distinct.values()))


def _parts(batch: _Batch, size: int) -> Iterator[_Batch]:
    """*batch* by users, *size* of them at a time."""
    for start in range(0, len(batch.users), size):
        users = batch.users[start : start + size]
        yield _Batch(
            users,
            [request for request in batch.requests if request.user_id in users],
            [event for event in batch.events if event.user_id in users],
        )
