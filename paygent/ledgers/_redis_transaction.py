"""One optimistic transaction of the Redis ledger: watch, load, let the rule run, write if nobody else did."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from paygent.core.events import Event, encode
from paygent.ledger import LEASE_TTL_S, LeaseRequest
from paygent.ledgers import _redis_keys as keys
from paygent.ledgers._redis_keys import key
from paygent.ledgers._redis_link import Command, Link
from paygent.ledgers._rows import SESSIONS_KEPT_US
from paygent.ledgers._staged import Guesses, StagedRows

_SECOND_US = 1_000_000
_TURN_MS = 100  # how long the others let somebody go first: several transactions of a process in want of time


class Transaction:
    """
    One try over some users; ``rows`` is what the rule works on.

    :meth:`begin` watches the number of changes of each user. :meth:`commit` writes everything, or nothing
    where another process has changed one of them since. With *turn* the others let the process called *name*
    go first, and find themselves ``is_behind``.
    """

    def __init__(
        self, link: Link, clock: Callable[[], int] | None, guesses: Guesses, name: str, *, turn: bool = False
    ) -> None:
        self._link = link
        self._clock = clock
        self._guesses = guesses
        self._name = name
        self._turn = turn
        self.is_behind = False
        self.rows = StagedRows()

    def begin(
        self, users: Collection[str], requests: Sequence[LeaseRequest], events: Sequence[Event]
    ) -> None:
        """Watch *users* and load what *requests* and *events* need of them."""
        own = list({(request.user_id, request.session_id or "") for request in requests})
        ids = _ids_by_user(events)
        windows = {(event.user_id, window) for event in events for window in (event.period, event.session)}
        windows |= self._guesses.windows(requests)
        loads: list[tuple[Command, Callable[[Any], object]]] = []
        rows = StagedRows()
        for user_id in users:
            loads += self._load_user(rows, user_id)
        for user_id, own_id in own:
            loads.append(_load_session(rows, user_id, own_id))
        for user_id, wanted in ids.items():
            loads.append(_load_ids(rows, user_id, wanted))
        loads += self._load_rest(rows, list(self._guesses.plans(requests)), list(windows))
        watched = [key(user_id, "v") for user_id in users]
        turns: list[Command] = [
            ("SET", key(user_id, "q"), self._name, "NX", "PX", _TURN_MS) for user_id in users if self._turn
        ]
        commands: list[Command] = [("WATCH", *watched), ("TIME",), *(load[0] for load in loads)]
        _, *answers = self._link.trip(("UNWATCH",), *turns, *commands)
        _, (seconds, micros), *answers = answers[len(turns) :]
        server_now_us = int(seconds) * _SECOND_US + int(micros)
        rows.moment_us = self._clock() if self._clock is not None else server_now_us
        for (_, take), answer in zip(loads, answers, strict=True):
            take(answer)
        self.rows = rows
        self._load_missing(requests)

    def commit(self, closed: Sequence[str] = ()) -> bool:
        """
        Write what has changed.

        Args:
            closed: Leases to drop, whether loaded or not.

        Returns:
            False if somebody else changed one of the users meanwhile; nothing is written then.
        """
        writes = list(self._writes(closed))
        if self._turn and not self.is_behind:
            writes += [("DEL", key(user_id, "q")) for user_id in self.rows.accounts]
        if not writes:
            return True
        before = list(self._index())
        *_, done = self._link.raw(*before, ("MULTI",), *writes, ("EXEC",))
        return done is not None

    # -- loading -------------------------------------------------------------------------------------------

    def _load_user(self, rows: StagedRows, user_id: str) -> list[tuple[Command, Callable[[Any], object]]]:
        def take_account(text: bytes | None) -> None:
            rows.accounts[user_id] = keys.account_from(user_id, text)

        def take_leases(pairs: list[bytes]) -> None:
            rows.leases_of[user_id] = {
                name.decode(): keys.lease_from(name.decode(), text) for name, text in keys.pairs_of(pairs)
            }

        def take_turn(name: bytes | None) -> None:
            self.is_behind |= name is not None and name.decode() != self._name

        return [
            (("GET", key(user_id, "q")), take_turn),
            (("GET", key(user_id, "a")), take_account),
            (("HGETALL", key(user_id, "l")), take_leases),
        ]

    def _load_rest(
        self, rows: StagedRows, plans: list[str], windows: list[tuple[str, str]]
    ) -> list[tuple[Command, Callable[[Any], object]]]:
        loads: list[tuple[Command, Callable[[Any], object]]] = []
        if plans:

            def take_plans(texts: list[bytes | None]) -> None:
                for name, text in zip(plans, texts, strict=True):
                    rows.plans[name] = keys.plan_from(name, text)

            loads.append((("HMGET", keys.PLANS, *plans), take_plans))
        loads += [_load_window(rows, user_id, window) for user_id, window in windows]
        return loads

    def _load_missing(self, requests: Sequence[LeaseRequest]) -> None:
        loads = self._load_rest(
            self.rows,
            list(self.rows.plans_asked(requests)) if requests else [],
            list(self.rows.windows_asked(requests)),
        )
        if loads:
            for (_, take), answer in zip(loads, self._link.trip(*(load[0] for load in loads)), strict=True):
                take(answer)

    # -- writing -------------------------------------------------------------------------------------------

    def _index(self) -> Iterable[Command]:
        """What leads to the users, written first: a user who is listed and has nothing harms nobody."""
        latest: dict[str, int] = {}
        for event in self.rows.new_events:
            latest[event.user_id] = max(event.timestamp_us, latest.get(event.user_id, 0))
        for user_id, moment_us in latest.items():
            yield "ZADD", keys.USERS, "GT", moment_us, user_id
        now_us = self.rows.now_us()
        for (user_id, lease_id), lease in self.rows.changed_leases.items():
            if lease is not None:
                name = keys.lease_key(lease_id)
                yield "ZADD", name, now_us, user_id
                yield "ZREMRANGEBYSCORE", name, "-inf", now_us - int(2 * LEASE_TTL_S) * _SECOND_US
                yield "EXPIRE", name, keys.DAY_S

    def _writes(self, closed: Sequence[str]) -> Iterable[Command]:
        rows = self.rows
        changed: set[str] = set()
        for user_id, account in rows.changed_accounts.items():
            changed.add(user_id)
            yield "SET", key(user_id, "a"), keys.account_to(account)
        for (user_id, own_id), session in rows.changed_sessions.items():
            changed.add(user_id)
            kept_ms = max(session.ends_us - rows.now_us(), 0) // 1000 + SESSIONS_KEPT_US // 1000
            yield "SET", key(user_id, "s", own_id), keys.session_to(session), "PX", kept_ms
        for (user_id, lease_id), lease in rows.changed_leases.items():
            changed.add(user_id)
            if lease is None:
                yield "HDEL", key(user_id, "l"), lease_id
            else:
                yield "HSET", key(user_id, "l"), lease_id, keys.lease_to(lease)
                yield "EXPIRE", key(user_id, "l"), keys.LEASES_KEPT_S
        for user_id in rows.accounts if closed else ():
            changed.add(user_id)
            yield "HDEL", key(user_id, "l"), *closed
        changed.update(event.user_id for event in rows.new_events)
        yield from self._write_events()
        yield from (("INCR", key(user_id, "v")) for user_id in sorted(changed))

    def _write_events(self) -> Iterable[Command]:
        now_us, by_user = self.rows.now_us(), _by_user(self.rows.new_events)
        long_ago_us = now_us - keys.EVENTS_KEPT_S * _SECOND_US
        for user_id, events in by_user.items():
            ids, texts = key(user_id, "i"), key(user_id, "e")
            yield "ZADD", ids, *(part for event in events for part in (now_us, event.id))
            yield "ZADD", texts, *(part for event in events for part in (event.timestamp_us, encode(event)))
            for name in (ids, texts):
                yield "ZREMRANGEBYSCORE", name, "-inf", f"({long_ago_us}"
                yield "EXPIRE", name, keys.EVENTS_KEPT_S + keys.DAY_S
        scopes: dict[tuple[str, str], list[str]] = {}
        for user_id, scope, window in self.rows.deltas:
            scopes.setdefault((user_id, window), []).append(scope)
        for (user_id, window), names in scopes.items():
            totals, amounts = key(user_id, "t", window), self.rows.posted[user_id][window]
            yield "HSET", totals, *(part for scope in names for part in (scope, amounts[scope]))
            yield "SADD", key(user_id, "w"), window
            if window.startswith("s"):
                yield "EXPIRE", totals, keys.TOTALS_OF_SESSION_KEPT_S


def _load_session(rows: StagedRows, user_id: str, own_id: str) -> tuple[Command, Callable[[Any], object]]:
    def take(text: bytes | None) -> None:
        rows.own_sessions[user_id, own_id] = keys.session_from(text)

    return ("GET", key(user_id, "s", own_id)), take


def _load_ids(rows: StagedRows, user_id: str, ids: list[str]) -> tuple[Command, Callable[[Any], object]]:
    def take(scores: list[bytes | None]) -> None:
        rows.known_ids.update(name for name, score in zip(ids, scores, strict=True) if score is not None)

    return ("ZMSCORE", key(user_id, "i"), *ids), take


def _load_window(rows: StagedRows, user_id: str, window: str) -> tuple[Command, Callable[[Any], object]]:
    def take(pairs: list[bytes]) -> None:
        rows.posted[user_id][window] = keys.totals_from(pairs)

    return ("HGETALL", key(user_id, "t", window)), take


def _by_user(events: Iterable[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.user_id, []).append(event)
    return found


def _ids_by_user(events: Iterable[Event]) -> dict[str, list[str]]:
    return {user_id: [event.id for event in mine] for user_id, mine in _by_user(events).items()}
