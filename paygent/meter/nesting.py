"""
Calls within calls: a stream whose reader makes further calls before it has ended.

The context carries the streams that it opened and that still hold something. A call that would not fit even
with all other holds void must not wait: what it waits for would be itself, or whoever reads its stream.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from paygent.core.balance import admits
from paygent.meter.refusals import find_purse

if TYPE_CHECKING:
    from paygent.meter.call import Call
    from paygent.meter.wallet import Wallet

_streams: ContextVar[tuple[Call, ...]] = ContextVar("paygent_streams", default=())


def open_streams() -> tuple[Call, ...]:
    """The streams of this context that still hold something."""
    return tuple([call for call in _streams.get() if call.is_open])


def remember(stream: Call) -> None:
    """Note that *stream* stays open in this context."""
    _streams.set((*open_streams(), stream))


def must_not_wait(call: Call, outer: tuple[Call, ...], wallet: Wallet, scope: str) -> bool:
    """
    Whether *call* lacks room on *scope* for the sake of its own *outer* streams alone.

    The wallet's lock is held, and what it knows of others is fresh.
    """
    purse = find_purse(call, wallet, scope)
    own = sum(stream.holds_on(purse) for stream in outer if stream.is_open)
    if not own:
        return False
    exact = wallet.tariff is not None and wallet.tariff.plan.exact
    return not admits(purse.hard - purse.used - own, call.need_by_scope().get(scope, 0), exact)
