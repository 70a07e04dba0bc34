"""The guarded boundary of the public object: a fault of ours never reaches the caller."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from paygent.core.errors import VISIBLE

if TYPE_CHECKING:
    from paygent.meter.meter import Meter


class Sheltered:
    """
    ``with Sheltered(meter, "doing so"): return …`` logs a fault of ours and goes on after the block.

    What the caller may see passes: the refusal, and ``PaygentUnavailable``.
    """

    __slots__ = ("_meter", "_what")

    def __init__(self, meter: Meter, what: str) -> None:
        self._meter = meter
        self._what = what

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, VISIBLE):
            return False
        self._meter.own_fault(self._what)
        return True
