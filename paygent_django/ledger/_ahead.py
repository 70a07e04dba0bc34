"""What an operation will ask for, read before it runs: in a pipeline that saves a trip for each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from paygent.ledger import LeaseRequest
from paygent.ledgers._rows import LeaseRow, SessionRow
from paygent.ledgers._staged import Guesses
from paygent_django.ledger._sql import Sql, array
from paygent_django.ledger._values import LEASE_COLUMNS, to_lease
from paygent_django.models import EndUser, Lease, Session, Total, UsageEvent
from paygent_django.models.fields import escape, unescape

Pair = tuple[str, str]


class Asking(NamedTuple):
    """What an operation will ask for: users, ids of events, and what its requests name."""

    looking: Collection[str] = ()
    event_ids: Sequence[str] = ()
    requests: Sequence[LeaseRequest] = ()

    @classmethod
    def of(cls, requests: Sequence[LeaseRequest]) -> Asking:
        """What *requests* will ask for."""
        ids = [event.id for request in requests for event in request.events]
        return cls({request.user_id for request in requests}, ids, requests)


class Found(NamedTuple):
    """What was there, by user and by lease id, own id or window; and which events are known."""

    leases: dict[str, dict[str, LeaseRow]]
    sessions: dict[Pair, SessionRow | None]
    totals: dict[Pair, dict[str, int]]
    known_ids: set[str]


def ask(sql: Sql, project_pk: int, asking: Asking, guesses: Guesses) -> Callable[[], Found]:
    """Ask for all that *asking* names and *guesses* add; the answers are taken by calling the result."""
    users = {request.user_id for request in asking.requests}
    own = {(request.user_id, request.session_id or "") for request in asking.requests}
    windows = guesses.windows(asking.requests)
    leases = _leases(sql, project_pk, users)
    sessions = _by_pair(sql, project_pk, Session, "own_id", ("session_id", "started_us", "ends_us"), own)
    totals = _by_pair(sql, project_pk, Total, "window", ("scope", "amount"), windows)
    known = _known(sql, project_pk, asking.event_ids)

    def take() -> Found:
        found = Found(
            {user_id: {} for user_id in users}, dict.fromkeys(own), {pair: {} for pair in windows}, set()
        )
        for user_id, *row in leases():
            lease = to_lease(row)
            found.leases[unescape(user_id)][lease.lease_id] = lease
        for user_id, own_id, session_id, started_us, ends_us in sessions():
            row = SessionRow(unescape(session_id), started_us, ends_us)
            found.sessions[unescape(user_id), unescape(own_id)] = row
        for user_id, window, scope, amount in totals():
            found.totals[unescape(user_id), unescape(window)][unescape(scope)] = amount
        found.known_ids.update(unescape(event_id) for (event_id,) in known())
        return found

    return take


def _nothing() -> list[Any]:
    return []


def _leases(sql: Sql, project_pk: int, users: Collection[str]) -> Callable[[], list[Any]]:
    if not users:
        return _nothing
    names = [escape(user_id) for user_id in users]
    named, values = sql.of_project(EndUser, "external_user_id", project_pk, names, "u")
    columns = ", ".join(f"l.{sql.quoted(name)}" for name in LEASE_COLUMNS)
    query = (
        f"SELECT u.external_user_id, {columns} FROM {sql.table(Lease)} l "  # noqa: S608  # names of our own
        f"JOIN {sql.table(EndUser)} u ON u.id = l.user_id WHERE {named}"
    )
    return sql.ask(query, values)


def _by_pair(
    sql: Sql, project_pk: int, model: Any, name: str, others: Sequence[str], pairs: Collection[Pair]
) -> Callable[[], list[Any]]:
    """Rows of *model* by user and the column *name*: user, that column, and the columns *others*."""
    if not pairs:
        return _nothing
    columns = ", ".join(f"t.{sql.quoted(column)}" for column in (name, *others))
    # Not as a join with the users, whose order a planner may turn round: from the names to the rows.
    his = (
        f"SELECT u.id FROM {sql.table(EndUser)} u WHERE u.project_id = %s AND u.external_user_id = asked.name"  # noqa: S608
    )
    query = (
        f"SELECT asked.name, {columns} FROM unnest(%s::text[], %s::text[]) AS asked (name, other) "  # noqa: S608
        f"JOIN {sql.table(model)} t ON t.user_id = ({his}) AND t.{sql.quoted(name)} = asked.other"
    )
    firsts, seconds = ([escape(pair[side]) for pair in pairs] for side in (0, 1))
    return sql.ask(query, [array(firsts), array(seconds), project_pk])


def _known(sql: Sql, project_pk: int, event_ids: Sequence[str]) -> Callable[[], list[Any]]:
    if not event_ids:
        return _nothing
    ids = [escape(event_id) for event_id in event_ids]
    named, values = sql.of_project(UsageEvent, "event_id", project_pk, ids)
    return sql.ask(f"SELECT event_id FROM {sql.table(UsageEvent)} WHERE {named}", values)  # noqa: S608
