"""How PostgreSQL plans the statements of the ledger."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from time import monotonic
from typing import Any

from paygent_django.models import (
    DailyUsage,
    EndUser,
    Lease,
    Session,
    Subscription,
    Total,
    UsageEvent,
    UserUsage,
)

log = logging.getLogger("paygent")

# All that the ledger reads it finds by keys. A planner that knows too little of a table, because nothing has
# analysed it yet, would rather read the whole of it.
BY_KEYS = {
    **dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off"),
    "plan_cache_mode": "force_generic_plan",  # whichever the key, it is looked up in the same way
}
_PLANNED_S = 60.0  # for so long a plan is kept; in the beginning, when tables are small, for less
_TABLES = tuple(
    model._meta.db_table
    for model in (EndUser, Subscription, Session, Lease, UsageEvent, Total, UserUsage, DailyUsage)
)
_GROWN = (
    "SELECT relname FROM pg_class WHERE oid = ANY(%s::regclass[]) "
    "AND pg_relation_size(oid) > 8192 * 2 "
    "AND (reltuples <= 0 OR pg_relation_size(oid) > 8192::bigint * 8 * relpages)"
)


def setting(settings: Mapping[str, str]) -> str:
    """A statement for the running transaction alone: behind a pooler the connection belongs to others too."""
    return "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())


class Plans:
    """
    The plans of the statements that one connection has prepared, and how old they are.

    A plan for a table of ten rows is no good for one of a million. So all are made anew after 1, 2, 4, 8, …
    transactions, and once a minute; before that, tables that have grown eightfold since they were last
    analysed, or never were, are analysed. Where autovacuum works it has done so long before.
    """

    __slots__ = ("_generation", "_made_s", "_uses")

    def __init__(self) -> None:
        self._made_s = monotonic()
        self._uses = 0
        self._generation = 0

    def used(self, connection: Any) -> str:
        """
        Count a transaction that is about to begin.

        Returns:
            What its statements end with: a comment, in which those differ that are to be planned anew. The
            driver keeps a hundred, and forgets those that it has not seen for longest.
        """
        self._uses += 1
        if self._uses & (self._uses - 1) == 0 or monotonic() - self._made_s > _PLANNED_S:
            self._generation += 1
            self._made_s = monotonic()
            _analyse(connection)
        return f" -- {self._generation}"


_kept: weakref.WeakKeyDictionary[Any, Plans] = weakref.WeakKeyDictionary()  # by the driver's connection


def plans_of(connection: Any) -> Plans | None:
    """The plans that a connection of the driver keeps; ``None``: it may not keep any."""
    return None if connection.prepare_threshold is None else _kept.setdefault(connection, Plans())


def _analyse(connection: Any) -> None:
    """Have PostgreSQL look at tables that have grown; one that somebody else is looking at is left to him."""
    import psycopg  # whoever has such a connection has it

    try:
        for (table,) in connection.execute(_GROWN, [list(_TABLES)], prepare=False).fetchall():
            log.debug("table %s has grown: it is analysed", table)
            connection.execute(f"ANALYZE (SKIP_LOCKED) {table}", prepare=False)
    except psycopg.Error as error:  # a lost connection tells it to the transaction
        log.warning("tables could not be analysed, and may be read more slowly: %s", error)
