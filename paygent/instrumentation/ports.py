"""What instrumentation needs of the engine: the meter, and the bracket around one call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from paygent.context import Payer
from paygent.core.usage import Usage
from paygent.meter.jobs import JobLine


class CallPort(AbstractContextManager[Any], AbstractAsyncContextManager[Any], Protocol):
    """
    The bracket around one provider call.

    Entering it is the gate, and may raise ``PaygentLimitExceeded`` or ``PaygentUnavailable``. Leaving it with
    neither a settlement nor :meth:`defer` posts an estimate. Settling is idempotent: the first one counts.
    """

    def finish(self, usage: Usage, response_model: str | None = None, tools: Sequence[str] = ()) -> None:
        """Settle with what the provider reported."""

    def finish_estimated(
        self,
        partial: Usage | None,
        output_bytes: int,
        response_model: str | None = None,
        tools: Sequence[str] = (),
    ) -> None:
        """Settle where usage was not, or not fully, reported; the event is marked *estimated*."""

    def fail(self, error: BaseException | None) -> None:
        """Settle a call that the provider refused: nothing is charged."""

    def defer(self) -> None:
        """Leave the settlement to a stream: the bracket's exit does nothing."""


class MeterPort(Protocol):
    """The active meter, as the instrumentation sees it."""

    include_usage: bool | None

    def payer(self, carried: Payer | None) -> Payer | None:
        """Return who pays for the call about to be made; ``None`` means that it passes unmetered."""

    def call(
        self,
        payer: Payer,
        provider: str,
        operation: str,
        model: str | None,
        input_bytes: int,
        max_output_tokens: int | None,
        units: Usage | None = None,
    ) -> CallPort:
        """Return the bracket for one call; nothing is reserved before it is entered."""

    def later(
        self,
        call: Any,
        partial: Usage | None,
        output_bytes: int,
        response_model: str | None = None,
        tools: Sequence[str] = (),
    ) -> None:
        """Settle *call* soon; the only method that a finalizer may use: it takes no lock and does no I/O."""

    def remember_job(self, payer: Payer, provider: str, job_id: str, model: str | None) -> None:
        """Keep who pays for a job whose usage is reported later, perhaps to another process."""

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        """Make *alias*, such as the id of a result file, name the job too."""

    def job_results(self, provider: str, job_or_alias: str, lines: Sequence[JobLine]) -> None:
        """Count the results of a job, each key once; jobs that nobody remembered are left alone."""

    def unmetered(self, what: str) -> None:
        """Warn once that a surface cannot be metered."""
