"""
The seam: ``request`` of the base clients of both SDKs, one attribute each for sync and async.

Every billable method of both SDKs passes it once per logical call, above the SDK's own retries; clients,
resources and bound methods made before the patch look it up at call time, so that they are covered too.
The wrappers live on the classes; each asks for the process's active meter at the moment of a call.
"""

from __future__ import annotations

import copy
import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from paygent.instrumentation import imports, keywords
from paygent.instrumentation._fields import fields, text
from paygent.instrumentation._report import VISIBLE, log, report
from paygent.instrumentation.carrier import take_carried
from paygent.instrumentation.jobs import WATCHED, answer_of, pending_id, report_unreported, watch
from paygent.instrumentation.operations import KNOWN_ANTHROPIC, KNOWN_OPENAI, Operation, operation_of
from paygent.instrumentation.ports import CallPort, MeterPort
from paygent.instrumentation.requests import ask_of, body_of
from paygent.instrumentation.results import settle, shape_of
from paygent.meter import active

PROVIDERS = ("openai", "anthropic")
_CLASSES = ("SyncAPIClient", "AsyncAPIClient")
_KNOWN = {"openai": KNOWN_OPENAI, "anthropic": KNOWN_ANTHROPIC}
_RAW_HEADER = "x-stainless-raw-response"
_OWN_HOST = "api.openai.com"
_NO_CALL: Any = nullcontext()

_lock = threading.Lock()
_patches: dict[str, tuple[type, Any, Any]] = {}  # key: (class, our wrapper, the original)
_live = False
_warned: set[str] = set()


class Exchange:
    """One request on its way: the bracket around it, and what its answer is to be settled with."""

    __slots__ = ("_body", "_hide", "_meter", "_operation", "_payer", "_units", "call", "options")

    def __init__(
        self, call: Any, options: Any, meter: Any = None, operation: Operation | None = None
    ) -> None:
        self.call: CallPort = call
        self.options = options
        self._meter: MeterPort = meter
        self._operation = operation
        self._payer: Any = None
        self._body: Mapping[str, Any] = {}
        self._units: Any = None
        self._hide = False

    def prepare(self, payer: Any, body: Mapping[str, Any], units: Any, client: Any, stream: bool) -> None:
        """Keep what :meth:`receive` needs; ask for usage at the end of a stream, where we may."""
        self._payer = payer
        self._body = body
        self._units = units
        if stream and _may_ask_for_usage(self._operation, self._meter, body, self.options, client):
            self.options = _asking_for_usage(self.options, body)
            self._hide = True
        parser = getattr(self.options, "post_parser", None)
        if callable(parser):
            self.options = copy.copy(self.options)
            self.options.post_parser = functools.partial(self._receive_parsed, parser)

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


class _Watched(Exchange):
    """A GET whose answer may be the result of a job."""

    __slots__ = ("_provider",)

    def __init__(self, provider: str, options: Any, meter: Any) -> None:
        super().__init__(_NO_CALL, options, meter)
        self._provider = provider

    def receive(self, result: Any) -> None:
        """Count the job, if it is one; never raises."""
        try:
            watch(self._meter, self._provider, self.options.url, result)
        except Exception as error:  # noqa: BLE001  # the boundary between our faults and the caller
            report("read the results of a job", error)


def begin(provider: str, client: Any, options: Any, kwargs: Mapping[str, Any]) -> Exchange | None:
    """
    Return the exchange for a request about to be made; ``None`` lets it pass as it is.

    Raises:
        PaygentLimitExceeded: Nobody pays, and such calls are to be blocked.
    """
    if not _live:
        return None
    try:
        if options.method == "get" and not keywords.used and not options.url.startswith(WATCHED[provider]):
            return None
        meter: Any = active.get()
        return None if meter is None else _begin(meter, provider, client, options, kwargs)
    except VISIBLE:
        raise
    except Exception as error:  # noqa: BLE001  # the boundary between our faults and the caller
        report("look at a request", error)
        return None


def _begin(
    meter: MeterPort, provider: str, client: Any, options: Any, kwargs: Mapping[str, Any]
) -> Exchange | None:
    given, carried = options, None
    if keywords.used:
        options, carried = take_carried(options)
    method = options.method
    if method != "post" and method.lower() != "post":
        if method.lower() == "get" and options.url.startswith(WATCHED[provider]):
            return _Watched(provider, options, meter)
        return None if options is given else Exchange(_NO_CALL, options)
    operation = _KNOWN[provider].get(options.url) or operation_of(provider, options.url)
    if operation.kind == "free":
        return None if options is given else Exchange(_NO_CALL, options)
    payer = meter.payer(None if carried is None else carried.payer())
    if payer is None:
        return None if options is given else Exchange(_NO_CALL, options)
    body = body_of(options)
    if operation.kind == "unknown":
        _warn_unknown(provider, options.url)
    ask = ask_of(operation, body, options)
    call = meter.call(
        payer, provider, operation.name, ask.model, ask.input_bytes, ask.max_output_tokens, ask.units
    )
    exchange = Exchange(call, options, meter, operation)
    exchange.prepare(payer, body, ask.units, client, bool(kwargs.get("stream")))
    return exchange


def _warn_unknown(provider: str, url: str) -> None:
    place = f"{provider} {url.partition('?')[0]}"
    if place not in _warned:
        _warned.add(place)
        log.warning(
            "Paygent does not know the path %s: it is metered only if its answer reports usage", place
        )


def _may_ask_for_usage(
    operation: Operation | None, meter: MeterPort, body: Mapping[str, Any], options: Any, client: Any
) -> bool:
    """
    Return whether to ask for usage at the end of a chat stream, and to hide the chunk that brings it.

    Only where the caller set nothing, on OpenAI's own host (others are known to refuse the field) or where
    ``init(include_usage=True)`` says so, and never for a raw response, whose bytes we cannot hide.
    """
    if operation is None or operation.name not in ("chat", "completion") or operation.provider != "openai":
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


def _asking_for_usage(options: Any, body: Mapping[str, Any]) -> Any:
    """Return a copy of *options* with a copy of its body: the caller's own objects stay as they are."""
    changed = copy.copy(options)
    changed.json_data = {**(options.json_data or body), "stream_options": {"include_usage": True}}
    return changed


# --- the twins --------------------------------------------------------------------------------------------


def _sync_request(original: Callable[..., Any], provider: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        exchange = begin(provider, self, options, kwargs)
        if exchange is None:
            return original(self, cast_to, options, *args, **kwargs)
        with exchange.call:
            result = original(self, cast_to, exchange.options, *args, **kwargs)
            exchange.receive(result)
        return result

    return request


def _async_request(original: Callable[..., Any], provider: str) -> Callable[..., Any]:
    @functools.wraps(original)
    async def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        exchange = begin(provider, self, options, kwargs)
        if exchange is None:
            return await original(self, cast_to, options, *args, **kwargs)
        async with exchange.call:
            result = await original(self, cast_to, exchange.options, *args, **kwargs)
            exchange.receive(result)
        return result

    return request


# --- putting it in place ----------------------------------------------------------------------------------


def instrument() -> list[str]:
    """
    Meter the SDKs: those already imported now, the others when they are imported.

    Returns the keys of the patches in place so far, such as ``"openai.SyncAPIClient.request"``. A second call
    changes nothing.
    """
    global _live  # noqa: PLW0603  # one seam per process
    with _lock:
        _live = True
    hooks: dict[str, imports.Hook] = {}
    for provider in PROVIDERS:
        hooks[f"{provider}._base_client"] = functools.partial(_patch_clients, provider)
        hooks.update(dict.fromkeys((f"{provider}.resources.", f"{provider}.lib."), keywords.patch_module))
    imports.when_imported(hooks)
    return sorted(_patches)


def uninstrument() -> int:
    """
    Take the patches off, and return how many were taken off.

    A patch that somebody else has wrapped since stays, and does nothing: taking it off would take theirs off.
    """
    global _live  # noqa: PLW0603  # one seam per process
    with _lock:
        _live = False
        removed = 0
        for key, (owner, wrapper, original) in list(_patches.items()):
            if vars(owner).get("request") is wrapper:
                owner.request = original  # type: ignore[attr-defined]  # a class of an SDK
                del _patches[key]
                removed += 1
    imports.forget()
    keywords.restore()
    return removed


def is_instrumented() -> bool:
    """Return whether the SDKs are metered, now or as soon as they are imported."""
    return _live


def _patch_clients(provider: str, module: Any) -> None:
    with _lock:
        if not _live:
            return
        for name in _CLASSES:
            key = f"{provider}.{name}.request"
            owner = getattr(module, name, None)
            if owner is not None and key not in _patches:
                _patch(key, owner, provider, is_async=name.startswith("Async"))


def _patch(key: str, owner: type, provider: str, *, is_async: bool) -> None:
    original = vars(owner).get("request")
    if original is None or inspect.iscoroutinefunction(original) is not is_async:
        log.warning("Paygent does not know this version of %s: its calls are not metered", provider)
        return
    wrapper = (_async_request if is_async else _sync_request)(original, provider)
    owner.request = wrapper  # type: ignore[attr-defined]  # a class of an SDK
    _patches[key] = (owner, wrapper, original)


__all__ = ["begin", "instrument", "is_instrumented", "report_unreported", "uninstrument"]
