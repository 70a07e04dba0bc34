"""Billing periods and sessions, computed from the clock when they are read: no job resets them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_US = timedelta(microseconds=1)


class Window(NamedTuple):
    """A stretch of time in microseconds since the epoch, without ``end_us``; ``key`` names it in a ledger."""

    key: str
    start_us: int
    end_us: int


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch; a naive *moment* is read as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return (moment - EPOCH) // _US


def from_us(moment_us: int) -> datetime:
    """The moment as an aware datetime in UTC."""
    return EPOCH + timedelta(microseconds=moment_us)


def calendar_month(now_us: int) -> Window:
    """The calendar month in UTC that holds *now_us*."""
    now = from_us(now_us)
    return _month(now.year, now.month)


@lru_cache(maxsize=64)
def _month(year: int, month: int) -> Window:
    start = datetime(year, month, 1, tzinfo=timezone.utc)
    end = (start + timedelta(days=32)).replace(day=1)
    return _period(to_us(start), to_us(end))


def billing_period(assigned: tuple[int, int] | None, now_us: int) -> Window:
    """
    The billing period that holds *now_us*.

    Args:
        assigned: Start and end (exclusive) in microseconds, or ``None`` for the calendar month in UTC.

    Returns:
        The assigned period; before it or after it, a period of the same length that a whole number of
        lengths lies between: a subscription that nobody renewed rolls on.
    """
    if assigned is None:
        return calendar_month(now_us)
    start_us, end_us = assigned
    length_us = end_us - start_us
    rolled = (now_us - start_us) // length_us
    return _period(start_us + rolled * length_us, end_us + rolled * length_us)


@lru_cache(maxsize=1024)
def _period(start_us: int, end_us: int) -> Window:
    """One object per period: many users share it, and so its key."""
    return Window(f"p{start_us}", start_us, end_us)


def session_window(session_id: str, started_us: int, timeout_s: float) -> Window:
    """The window of one session: it ends *timeout_s* seconds after it began, whatever happens in it."""
    return Window(f"s{started_us}:{session_id}", started_us, started_us + int(timeout_s * 1_000_000))
