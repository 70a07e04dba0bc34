"""The audit trail in Redis: decisions by id, and their ids by time and by arrival."""

from __future__ import annotations

from collections.abc import Sequence

from paygent.ledger import GateRow
from paygent.ledgers import _redis_keys as keys
from paygent.ledgers._redis_keys import key
from paygent.ledgers._redis_link import Command, Link
from paygent.ledgers._redis_newest import newest
from paygent.ledgers._values import from_json, to_json

_OLD_AT_ONCE = 500
_SECOND_US = 1_000_000


def record_gates(link: Link, rows: Sequence[GateRow], now_us: int) -> None:
    """Append *rows*; one whose id is known is not appended again, and those that came 35 days ago go."""
    users = sorted({row.user_id for row in rows})
    before_us = now_us - keys.EVENTS_KEPT_S * _SECOND_US
    old = link.trip(
        *(
            ("ZRANGEBYSCORE", key(user_id, "ga"), "-inf", f"({before_us}", "LIMIT", 0, _OLD_AT_ONCE)
            for user_id in users
        )
    )
    commands: list[Command] = []
    for row in rows:
        commands += [
            ("ZADD", keys.GATED, "GT", row.timestamp_us, row.user_id),
            ("HSETNX", key(row.user_id, "g"), row.id, to_json(row)),
            ("ZADD", key(row.user_id, "gt"), "NX", row.timestamp_us, row.id),
            ("ZADD", key(row.user_id, "ga"), "NX", now_us, row.id),
        ]
    for user_id, ids in zip(users, old, strict=True):
        if ids:
            commands.append(("HDEL", key(user_id, "g"), *ids))
            commands += [("ZREM", key(user_id, part), *ids) for part in ("gt", "ga")]
        kept_s = keys.EVENTS_KEPT_S + keys.DAY_S
        commands += [("EXPIRE", key(user_id, part), kept_s) for part in ("g", "gt", "ga")]
    link.trip(*commands)


def gate_rows(link: Link, user_id: str | None, limit: int) -> list[GateRow]:
    """The newest decisions, newest first."""
    found = newest(link, keys.GATED, "gt", user_id, limit)
    wanted: dict[str, list[bytes]] = {}
    for _, gate_id, whose in found:
        wanted.setdefault(whose, []).append(gate_id)
    answers = link.trip(*(("HMGET", key(whose, "g"), *ids) for whose, ids in wanted.items()))
    texts = {
        (whose, gate_id): text
        for (whose, ids), told in zip(wanted.items(), answers, strict=True)
        for gate_id, text in zip(ids, told, strict=True)
    }
    rows = (from_json(texts[whose, gate_id]) for _, gate_id, whose in found)
    return [GateRow(*row) for row in rows if row is not None]
