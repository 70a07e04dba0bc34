"""One request on its way through the seam: what it asks of the meter, and what its answer settles."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from paygent._once import Once
from paygent.context import Payer
from paygent.core.errors import VISIBLE
from paygent.core.usage import Usage
from paygent.instrumentation import keywords
from paygent.instrumentation._fields import fields, text
from paygent.instrumentation._report import log, report
from paygent.instrumentation.carrier import take_carried
from paygent.instrumentation.jobs import WATCHED, answer_of, pending_id, report_unreported, unreported, watch
from paygent.instrumentation.operations import KNOWN_ANTHROPIC, KNOWN_OPENAI, Operation, operation_of
from paygent.instrumentation.ports import CallPort, MeterPort
from paygent.instrumentation.requests import ask_of, body_of
from paygent.instrumentation.results import settle, shape_of

_KNOWN = {"openai": KNOWN_OPENAI, "anthropic": KNOWN_ANTHROPIC}
_RAW_HEADER = "x-stainless-raw-response"
_OWN_HOST = "api.openai.com"
_NO_CALL: Any = nullcontext()
_warned = Once()


class Exchange:
    """One request on its way: the bracket around it, and what its answer is to be settled with."""

    __slots__ = ("_body", "_hide", "_meter", "_operation", "_payer", "_units", "call", "options")

    def __init__(
        self,
        call: CallPort,
        options: Any,
        meter: MeterPort,
        operation: Operation,
        payer: Payer,
        body: Mapping[str, Any],
        units: Usage | None,
    ) -> None:
        self.call = call
        self.options = options
        self._meter = meter
        self._operation: Operation | None = operation
        self._payer = payer
        self._body = body
        self._units = units
        self._hide = False
        parser = getattr(options, "post_parser", None)
        if callable(parser):
            self.options = copy.copy(options)
            self.options.post_parser = functools.partial(self._receive_parsed, parser)

    def ask_for_usage(self) -> None:
        """Ask for usage at the end of a stream; the caller's own objects stay as they are."""
        self.options = copy.copy(self.options)
        body = self.options.json_data or self._body
        self.options.json_data = {**body, "stream_options": {"include_usage": True}}
        self._hide = True

    def _receive_parsed(self, parser: Callable[[Any], Any], parsed: Any) -> Any:
        """Settle before the SDK's own parser runs: it may refuse an answer that the provider has billed."""
        if shape_of(parsed) == "model":
            self.receive(parsed)
        return parser(parsed)

    def receive(self, result: Any) -> None:
        """
        Settle by the result, the first time it is shown.

        Never raises: what we cannot read is settled by the bracket's estimate.
        """
        operation, self._operation = self._operation, None
        if operation is None:
            return
        try:
            if operation.kind == "call" and operation.name != "run" and "background" not in self._body:
                settle(self.call, operation, result, self._units, hide=self._hide)
            else:
                self._receive_other(operation, result)
        except VISIBLE:
            raise
        except Exception as error:  # noqa: BLE001  # the boundary between our faults and the caller
            report("read a result", error)

    def _receive_other(self, operation: Operation, result: Any) -> None:
        if operation.kind == "call":
            job_id = pending_id(operation, self._body, result)
        elif operation.kind == "batch":
            job_id = text(answer_of(result).get("id"))
        else:
            self._receive_unlisted(operation, result)
            return
        if job_id is not None:
            model = text(self._body.get("model"))
            self._meter.remember_job(self._payer, operation.provider, job_id, model)
            self.call.fail(None)
        elif operation.kind == "call":
            settle(self.call, operation, result, self._units, hide=self._hide)
        else:
            self.call.fail(None)

    def _receive_unlisted(self, operation: Operation, result: Any) -> None:
        """A surface that is not metered, or a path nobody has heard of: charged if usage was reported."""
        if operation.kind == "unknown" and operation.usage(answer_of(result)) is not None:
            settle(self.call, operation, result)
            return
        if operation.kind == "unmetered":
            self._meter.unmetered(f"{operation.provider} {operation.name}")
        self.call.fail(None)


class Passed:
    """A request that is neither gated nor charged; its options are without our header."""

    __slots__ = ("call", "options")

    def __init__(self, options: Any) -> None:
        self.call: Any = _NO_CALL
        self.options = options

    def receive(self, result: Any) -> None:
        """Leave the result alone."""


class Watched(Passed):
    """A GET whose answer may be the result of a job."""

    __slots__ = ("_meter", "_provider")

    def __init__(self, options: Any, meter: MeterPort, provider: str) -> None:
        super().__init__(options)
        self._meter = meter
        self._provider = provider

    def receive(self, result: Any) -> None:
        """Count the job, if it is one; never raises."""
        try:
            watch(self._meter, self._provider, self.options.url, result)
        except Exception as error:  # noqa: BLE001  # the boundary between our faults and the caller
            report("read the results of a job", error)


def open_exchange(
    meter: MeterPort, provider: str, client: Any, options: Any, kwargs: Mapping[str, Any]
) -> Exchange | Passed | None:
    """
    Return the exchange for a request about to be made; ``None`` lets it pass as it is.

    Raises:
        PaygentLimitExceeded: Nobody pays, and such calls are to be blocked.
    """
    given, carried = options, None
    if keywords.used:
        options, carried = take_carried(options)
    untouched = options is given
    method = options.method
    if method != "post" and method.lower() != "post":
        if method.lower() == "get" and options.url.startswith(WATCHED[provider]):
            return Watched(options, meter, provider)
        return None if untouched else Passed(options)
    operation = _KNOWN[provider].get(options.url) or operation_of(provider, options.url)
    if operation.kind == "free":
        return None if untouched else Passed(options)
    payer = meter.payer(None if carried is None else carried.payer())
    if payer is None:
        return None if untouched else Passed(options)
    if operation.kind == "unknown":
        _warn_unknown(provider, options.url)
    if unreported:
        report_unreported(meter)
    body = body_of(options)
    model, input_bytes, max_output_tokens, units = ask_of(operation, body, options)
    call = meter.call(payer, provider, operation.name, model, input_bytes, max_output_tokens, units)
    exchange = Exchange(call, options, meter, operation, payer, body, units)
    if kwargs.get("stream") and _may_ask_for_usage(operation, meter, body, options, client):
        exchange.ask_for_usage()
    return exchange


def _warn_unknown(provider: str, url: str) -> None:
    place = f"{provider} {url.partition('?')[0]}"
    if _warned.is_new(place):
        log.warning(
            "Paygent does not know the path %s: it is metered only if its answer reports usage", place
        )


def _may_ask_for_usage(
    operation: Operation, meter: MeterPort, body: Mapping[str, Any], options: Any, client: Any
) -> bool:
    """
    Return whether to ask for usage at the end of a chat stream, and to hide the chunk that brings it.

    Only where the caller set nothing, on OpenAI's own host (others are known to refuse the field) or where
    ``init(include_usage=True)`` says so, and never for a raw response, whose bytes we cannot hide.
    """
    if operation.name not in ("chat", "completion") or operation.provider != "openai":
        return False
    if "stream_options" in body or meter.include_usage is False:
        return False
    headers = fields(options.headers)
    if any(name.lower() == _RAW_HEADER for name in headers):
        return False
    return meter.include_usage is True or _is_own_host(client)


def _is_own_host(client: Any) -> bool:
    host = str(getattr(getattr(client, "_base_url", None), "host", ""))
    return host == _OWN_HOST or host.endswith("." + _OWN_HOST)
