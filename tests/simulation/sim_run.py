"""A simulated fleet from its first step to rest, with the engine's randomness taken from the seed."""

import logging
import random
import uuid
from contextlib import ExitStack, contextmanager
from unittest import mock

from sim_fleet import Fleet

from paygent.meter import settlement
from paygent.meter.call import Call


class _Faults(logging.Handler):
    """Whatever the engine logs as an error is a fault of its own."""

    def __init__(self, fleet):
        super().__init__(logging.ERROR)
        self._fleet = fleet

    def emit(self, record):
        if not self._fleet.killing:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f" ({record.exc_info[1]!r})"
            self._fleet.violations.append("logged: " + text)


@contextmanager
def observed(seed):
    """The engine with its ids drawn from *seed*; yields a function that names the fleet to be told."""
    ids = random.Random(seed)
    fleets = []
    take, post = Call._take, settlement.post

    def new_uuid():
        return uuid.UUID(int=ids.getrandbits(128), version=4)

    def taken(call, *args):
        take(call, *args)
        fleets[-1].books.admitted(fleets[-1].worker_of[call.meter], call)

    def posted(meter, call, event):
        fleets[-1].books.posted(fleets[-1].worker_of[meter], call, event)
        post(meter, call, event)

    log = logging.getLogger("paygent")
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Call, "_take", taken))
        stack.enter_context(mock.patch.object(settlement, "post", posted))
        stack.enter_context(mock.patch.object(uuid, "uuid4", new_uuid))
        stack.enter_context(mock.patch("os.urandom", ids.randbytes))
        stack.enter_context(mock.patch.object(log, "propagate", False))
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)  # by its method: loggers remember which levels are on

        def tell(fleet):
            fleets.append(fleet)
            handler = _Faults(fleet)
            log.addHandler(handler)
            stack.callback(log.removeHandler, handler)

        yield tell


def simulate(seed, make_ledger, folder, steps, trace=None):
    """
    Run one seed; returns the fleet at rest.

    Raises:
        BrokenInvariantError: What must always hold did not.
    """
    with observed(seed) as tell:
        fleet = Fleet(seed, make_ledger, folder, trace)
        tell(fleet)
        try:
            while fleet.steps < steps:
                fleet.step()
            fleet.finish()
        finally:
            fleet.close()
    return fleet
