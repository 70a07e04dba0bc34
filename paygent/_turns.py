"""Short turns at the interpreter, for a thread that others wait for."""

from __future__ import annotations

import sys
from math import isclose

from paygent._forking import ProcessLock, stop_at_forks

TURN_S = 100e-6


class ShortTurns:
    """
    Between ``begin`` and ``end`` a thread waits ``TURN_S`` for the interpreter's lock before it asks for it.

    Usually it asks once nobody has let go of it for 5 ms. A thread that computes and lets go of it for some
    microseconds now and then, as in each call of an SDK, takes it again before the other is awake, and is
    not asked: the 5 ms begin anew each time. The other gets it by chance, after about 60 ms, and needs it
    after every statement of a transaction; in front of its locks other processes wait meanwhile.

    The interval is one for the process: the first who needs it shortens it, the last gives it back. One that
    is short enough, or that somebody sets meanwhile, is left as it is.
    """

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._inside = 0
        self._usual_s: float | None = None  # to be given back

    def begin(self) -> None:
        """From now on turns are short; each beginning has its end."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                present_s = sys.getswitchinterval()
                if present_s > TURN_S:
                    self._usual_s = present_s  # known first: a child may be forked in between
                    sys.setswitchinterval(TURN_S)

    def end(self) -> None:
        """Nobody needs them any more, once this is the last end."""
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._give_back()

    def _give_back(self) -> None:
        if self._usual_s is not None and isclose(sys.getswitchinterval(), TURN_S):
            sys.setswitchinterval(self._usual_s)
        self._usual_s = None

    def forget(self) -> None:
        """In a forked child: the threads that were inside are not there."""
        self._inside = 0
        self._give_back()


short_turns = ShortTurns()
stop_at_forks(lambda: None, lambda: None, short_turns.forget)
