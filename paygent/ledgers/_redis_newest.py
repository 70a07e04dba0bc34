"""Reading the newest rows of all users, where each user has a list of his own."""

from __future__ import annotations

from paygent.ledgers._redis_keys import key, pairs_of
from paygent.ledgers._redis_link import Link

_USERS_AT_ONCE = 100

# When, what (a row, or its id), and whose.
Found = tuple[float, bytes, str]


def newest(link: Link, index: str, part: str, user_id: str | None, limit: int) -> list[Found]:
    """
    The newest members of one user's list, or of all.

    Args:
        index: The users by the time of their newest member.
        part: Which of a user's lists.

    Returns:
        At most *limit*, the newest first; within one moment by name, the last first.
    """
    if limit <= 0:
        return []
    if user_id is not None:
        return _members(link, [user_id], part, "-inf", limit)
    found: list[Found] = []
    start = 0
    while True:
        # Users come in the order of their newest row: once that is older than all we need, we are done.
        oldest = found[-1][0] if len(found) >= limit else float("-inf")
        (flat,) = link.trip(("ZREVRANGE", index, start, start + _USERS_AT_ONCE - 1, "WITHSCORES"))
        users = [name.decode() for name, score in pairs_of(flat) if float(score) >= oldest]
        if not users:
            return found
        since = "-inf" if oldest == float("-inf") else repr(oldest)
        found = sorted(found + _members(link, users, part, since, limit), reverse=True)[:limit]
        start += _USERS_AT_ONCE


def _members(link: Link, users: list[str], part: str, since: str, limit: int) -> list[Found]:
    answers = link.trip(
        *(
            ("ZREVRANGEBYSCORE", key(user_id, part), "+inf", since, "WITHSCORES", "LIMIT", 0, limit)
            for user_id in users
        )
    )
    return [
        (float(score), member, user_id)
        for user_id, flat in zip(users, answers, strict=True)
        for member, score in pairs_of(flat)
    ]
