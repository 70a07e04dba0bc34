"""
A sandbox for the tests of an app: Paygent on a ledger of its own, and providers that cost nothing.

::

    with sandbox() as box:
        box.provider.reply("Hello!", tokens=(10, 20))
        ...  # drive the app
        box.assert_spend("user_123", 0.0007)

With pytest, take the fixture ``paygent_sandbox`` instead (see ``paygent.testing.plugin``).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import cast
from unittest.mock import patch

from paygent import _settings, client
from paygent._connection import Store
from paygent._metering import Metering
from paygent.client import Paygent
from paygent.core.events import to_model
from paygent.core.models import UsageEvent
from paygent.instrumentation import ProviderRegistry
from paygent.ledger import Ledger
from paygent.ledgers.memory import MemoryLedger
from paygent.meter import active
from paygent.meter.meter import Meter
from paygent.meter.options import Options
from paygent.testing._scripted import ScriptedProvider, answering
from paygent.testing._travel import LedgerSwitch, TravelClock

_EXACT_USD = 1e-9  # the ledger counts in nano-dollars
_RECOVERY_S = 5.0
_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")


class Sandbox:
    """
    What the test holds: the provider, the ledger's switch, the clock, and what was spent.

    ``provider`` scripts answers, ``ledger`` can ``fail()``, ``stall()`` and ``recover()``.
    """

    def __init__(self) -> None:
        self.provider = ScriptedProvider()
        self._clock = TravelClock()
        self.ledger = LedgerSwitch(MemoryLedger(now_us=self._clock.now_us), self._settled)

    @property
    def pg(self) -> Paygent:
        """The app's own Paygent, or one of ours where it has none."""
        pg = Paygent.get_instance()
        return Paygent.init() if pg is None else pg

    @property
    def now(self) -> datetime:
        """The time in the sandbox."""
        return self._clock.now()

    def travel(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """
        Let time pass: sessions end, periods begin anew.

        Raises:
            ValueError: Back in time.
        """
        by = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if by >= timedelta(0):
            self.pg.flush()  # what was spent belongs to the time before
        self._clock.advance(by)

    def events(self, user_id: str | None = None) -> list[UsageEvent]:
        """What was metered, for one user or for all, oldest first."""
        pg = self.pg
        pg.flush()
        rows = pg._meter.exporter.call(lambda ledger: ledger.events(user_id))  # noqa: SLF001  # same package
        return [to_model(row) for row in reversed(rows.result(_RECOVERY_S))]

    def assert_spend(self, user_id: str, usd: float) -> None:
        """
        Check what the user has spent in the running period, to the nano-dollar.

        Raises:
            AssertionError: It is another amount; the message lists the user's calls.
        """
        __tracebackhide__ = True
        spent = self.pg.get_usage(user_id).period_cost
        if not math.isclose(spent, usd, rel_tol=0, abs_tol=_EXACT_USD):
            raise AssertionError(f"{user_id!r} spent ${spent:.9f}, not ${usd:.9f}{self._listed(user_id)}")

    def assert_blocked(self, user_id: str, model: str | None = None) -> None:
        """
        Check that the user's next call, of *model* if given, would be refused.

        Raises:
            AssertionError: It would pass; the message says what is left.
        """
        __tracebackhide__ = True
        guard = self.pg.check_guard(user_id, model)
        if guard.status != "hard_gate":
            left = self.pg.get_remaining_budget(user_id)
            raise AssertionError(f"{user_id!r} is not blocked: {guard.status}, left is {left!r}")

    def _listed(self, user_id: str) -> str:
        events = self.events(user_id)
        lines = [
            f"\n  {event.timestamp:%Y-%m-%d %H:%M:%S} {event.model} {event.input_tokens} + "
            f"{event.output_tokens} tokens ${event.cost_total:.9f}"
            for event in events
        ]
        return "".join(lines) or "; no call of this user was metered"

    def _settled(self) -> None:
        """Wait until the engine has noticed that the ledger is back."""
        pg = self.pg
        ends_s = time.monotonic() + _RECOVERY_S
        pg.flush()
        while pg.queue_stats["degraded"] and time.monotonic() < ends_s:
            time.sleep(0.01)
        pg.flush()

    def meter(self, options: Options) -> Meter:
        """Make an engine on the sandbox's ledger and clock."""
        options.boot = self._clock.boot
        meter = Meter(cast("Ledger", self.ledger), options)
        meter.now_us = self._clock.now_us  # type: ignore[method-assign]  # the clock where the ledger is away
        return meter


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """
    Give the process's Paygent a ledger in memory, a clock that can travel, and a provider without a network.

    A Paygent that the app has made already is the same object inside, with its options, plans and callbacks,
    and has its own ledger again afterwards. One that the app makes inside gets the sandbox's ledger, whatever
    it asks for, and no backend.
    """
    box = Sandbox()
    with ExitStack() as stack:
        keys = {name: "sandbox" for name in _KEYS if name not in os.environ}
        stack.enter_context(patch.dict(os.environ, keys))
        stack.enter_context(answering(box.provider))
        store = Store(cast("Ledger", box.ledger), "memory://", None, _settings.BASE_URL)
        stack.enter_context(patch.object(client, "open_store", lambda *_args, **_options: store))
        stack.enter_context(patch.object(client, "Meter", lambda _ledger, options: box.meter(options)))
        stack.enter_context(_in_its_place(box))
        yield box


@contextmanager
def _in_its_place(box: Sandbox) -> Iterator[None]:
    """Put the sandbox's engine into the Paygent that is there, or make one."""
    pg = Paygent.get_instance()
    own = None if pg is None else pg._meter  # noqa: SLF001  # its engine is what is exchanged
    if pg is None or own is None:
        pg = Paygent.init()
    else:
        meter = box.meter(Options(**vars(own.options)))
        meter.callbacks = own.callbacks
        _give(pg, meter)
        for name, plan in own.plans.items():
            pg.configure_plan(name, plan)
    try:
        yield
    finally:
        box.ledger.release()
        _end(pg, own)


def _end(pg: Paygent, own: Meter | None) -> None:
    """Give the app's Paygent its own engine back; one that was made inside ends with the sandbox."""
    present = Paygent.get_instance()
    if present is not None and (present is not pg or own is None):
        present.shutdown()
    if own is not None:
        pg._meter.close(_RECOVERY_S)  # noqa: SLF001  # the sandbox's engine
        _give(pg, own)


def _give(pg: Paygent, meter: Meter) -> None:
    registry: ProviderRegistry = pg._registry  # noqa: SLF001  # its engine is what is exchanged
    Metering.__init__(pg, meter, registry)
    if Paygent.get_instance() is pg:
        active.activate(meter)
    client._meters.add(meter)  # noqa: SLF001  # those that are told of a fork
