"""A stand-in for the engine that writes down what instrumentation tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paygent.context import Payer, current_payer
from paygent.core.errors import PaygentLimitExceeded
from paygent.core.models import GuardResult
from paygent.core.usage import Usage


class RecordedCall:
    """One bracket: how often it was entered, and how it was settled."""

    def __init__(self, meter: RecordingMeter, payer: Payer, asked: tuple[Any, ...]) -> None:
        self.meter = meter
        self.payer = payer
        self.provider, self.operation, self.model, self.input_bytes, self.max_output_tokens, self.units = (
            asked
        )
        self.entered = 0
        self.deferred = False
        self.attempts = 0
        self.settled: list[tuple[str, Any, int, str | None, tuple[str, ...]]] = []

    def finish(self, usage: Usage, response_model: str | None = None, tools: Sequence[str] = ()) -> None:
        """Record the first settlement."""
        self._settle("exact", usage, 0, response_model, tools)

    def finish_estimated(
        self,
        partial: Usage | None,
        output_bytes: int,
        response_model: str | None = None,
        tools: Sequence[str] = (),
    ) -> None:
        """Record the first settlement."""
        self._settle("estimated", partial, output_bytes, response_model, tools)

    def fail(self, error: BaseException | None) -> None:
        """Record the first settlement."""
        self._settle("void", error, 0, None, ())

    def defer(self) -> None:
        """Leave the settlement to a stream."""
        self.deferred = True

    def _settle(self, how: str, what: Any, size: int, model: str | None, tools: Sequence[str]) -> None:
        self.attempts += 1
        if not self.settled:
            self.settled.append((how, what, size, model, tuple(tools)))

    @property
    def usage(self) -> Any:
        """Return what the call was settled with."""
        return self.settled[0][1]

    @property
    def output_bytes(self) -> int:
        """Return the bytes of output that an estimate was made from."""
        return self.settled[0][2]

    @property
    def response_model(self) -> str | None:
        """Return the model that answered."""
        return self.settled[0][3]

    @property
    def tools(self) -> tuple[str, ...]:
        """Return the tools that the answer called."""
        return self.settled[0][4]

    @property
    def how(self) -> str | None:
        """Return how the call was settled, ``None`` if it was not."""
        return self.settled[0][0] if self.settled else None

    def __enter__(self) -> RecordedCall:
        self.entered += 1
        if self.meter.refuse:
            raise PaygentLimitExceeded(
                GuardResult(status="hard_gate", gate_reason="total_spend", message="spent")
            )
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self.fail(error)
        elif not self.deferred and not self.settled:
            self.finish_estimated(None, 0)

    async def __aenter__(self) -> RecordedCall:
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.__exit__(kind, error, trace)


class RecordingMeter:
    """Records calls, jobs and warnings; ``refuse`` makes the gate say no."""

    def __init__(self, *, include_usage: bool | None = None, refuse: bool = False) -> None:
        self.include_usage = include_usage
        self.refuse = refuse
        self.calls: list[RecordedCall] = []
        self.jobs: dict[str, tuple[str | None, str, str | None]] = {}
        self.links: dict[str, str] = {}
        self.results: list[tuple[str, Any]] = []
        self.warned: list[str] = []

    def payer(self, carried: Payer | None) -> Payer | None:
        """Return the payer given, else the context's."""
        payer = carried or current_payer()
        return None if payer is None or payer.exempt or payer.metered or payer.user_id is None else payer

    def call(self, payer: Payer, *asked: Any) -> RecordedCall:
        """Return a bracket that records."""
        call = RecordedCall(self, payer, asked if len(asked) == 6 else (*asked, None))
        self.calls.append(call)
        return call

    def later(self, call: RecordedCall, partial: Usage | None, output_bytes: int, *_named: object) -> None:
        """Settle from a finalizer."""
        call.finish_estimated(partial, output_bytes)

    def remember_job(self, payer: Payer, provider: str, job_id: str, model: str | None) -> None:
        """Record a job."""
        self.jobs[job_id] = (payer.user_id, provider, model)

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        """Record another name of a job."""
        self.links[alias] = job_id

    def job_results(self, provider: str, job_or_alias: str, lines: Sequence[Any]) -> None:
        """Record the results of a job."""
        self.results.extend((job_or_alias, line) for line in lines)

    def unmetered(self, what: str) -> None:
        """Record a warning."""
        self.warned.append(what)

    @property
    def only(self) -> RecordedCall:
        """Return the one call there was, entered once."""
        (call,) = self.calls
        assert call.entered == 1
        return call
