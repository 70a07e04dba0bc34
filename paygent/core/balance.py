"""
The rule of the gate, over integer totals: reserve, post, void, expire.

Budgets nest: a plan's limit is what processes take leases from, and a lease is what calls take holds from.
On both levels an amount is *reserved*, then *posted* with the true amount (also above the reservation: the
provider has charged), *voided*, or it *expires*. The amounts themselves live where they belong, a hold on
its call and a lease on its row; the rule only ever sees totals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Stands for "no limit": far above any amount, and still a machine word for the interpreter.
UNLIMITED = 1 << 62
SLICE_CALLS = 64


class Balance(NamedTuple):
    """Totals of one scope against its limit, in the scope's unit (nano-dollars or tokens)."""

    limit: int = UNLIMITED
    posted: int = 0
    held: int = 0

    @property
    def room(self) -> int:
        """What can still be reserved; negative once more is posted and held than the limit."""
        return self.limit - self.posted - self.held


class Denied(NamedTuple):
    """A refused reservation: the first scope without room, and whether only other holds are in the way."""

    scope: str
    busy: bool


class Granted(NamedTuple):
    """A reservation on every scope asked for: amounts by scope, the need and the slice on top together."""

    amounts: dict[str, int]


def reserve(
    balances: Mapping[str, Balance],
    need: Mapping[str, int],
    *,
    exact: bool,
    sharers: int = 1,
    slice_calls: int = SLICE_CALLS,
) -> Granted | Denied:
    """
    Reserve *need* on all its scopes or on none.

    Args:
        balances: By scope; a scope that is missing is unlimited.
        need: The estimate of one call, by scope.
        exact: True (``pre_call_estimate``): the whole need must fit. False: where there is any room at
            all, the need of one call is granted in full, even past the limit. As the room is negative
            after that, at most one such grant is outstanding.
        sharers: Live leases on the account, this one included; the slice shrinks with them.
        slice_calls: How many calls ahead may be reserved on top of the need; 0 grants the bare need.

    Returns:
        ``Granted``, or ``Denied``: *spent* if the need would be refused even with every hold void, else
        *busy*.
    """
    spent = busy = None
    for scope, amount in need.items():
        balance = balances.get(scope)
        if balance is None or balance.limit >= UNLIMITED:
            continue
        if not admits(balance.room, amount, exact):
            if not admits(balance.limit - balance.posted, amount, exact):
                spent = spent or scope
            else:
                busy = busy or scope
    if spent is not None or busy is not None:
        return Denied(spent or busy or "", busy=spent is None)
    return Granted(
        {
            scope: amount + share(balances[scope].room - amount, amount, sharers, slice_calls)
            for scope, amount in need.items()
            if scope in balances and balances[scope].limit < UNLIMITED
        }
    )


def admits(room: int, need: int, exact: bool) -> bool:
    """
    Whether *need* may be taken from *room*: whole if *exact*, else as soon as there is any room at all.

    A room of nothing admits nothing, not even a need of 0.
    """
    return room > 0 and (not exact or need <= room)


def share(room: int, need: int, sharers: int, slice_calls: int = SLICE_CALLS) -> int:
    """The slice that one of *sharers* may hold idle: large far from the limit, single calls near it."""
    return max(0, min(slice_calls * need, room // (2 * max(1, sharers))))


def covers(held: int, need: int, lease: int) -> bool:
    """The wallet's own test, always strict: the holds stay within the lease."""
    return held + need <= lease


def within(lease: int, held: int, room: int) -> int:
    """A lease without what goes past the limit and no hold needs; *room* is what the limit leaves."""
    return lease if lease <= held or lease <= room else max(held, room)
