"""Settling: usage to tokens to cost, the event into the journal, the amounts onto the purses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from paygent.context import Payer
from paygent.core.bounds import CALL_TOKENS_MAX, DESCRIPTION_LENGTH_MAX, MODEL_LENGTH_MAX
from paygent.core.events import COST_TOKENS, COST_TOOLS, INPUT_TOKENS, OUTPUT_TOKENS, Event, to_model
from paygent.core.pricing import UnpricedTokensError, priced, tool_cost_nusd
from paygent.core.usage import Usage, has_negative
from paygent.ledger import Job
from paygent.meter.audit import fire
from paygent.meter.call import DONE, Call
from paygent.meter.ids import id_for_key
from paygent.meter.live import refresh
from paygent.meter.purse import model_scope
from paygent.meter.sizing import learn

if TYPE_CHECKING:
    from paygent.meter.jobs import JobLine
    from paygent.meter.meter import Meter

_made = tuple.__new__
_NO_PARTS = (0,) * 7  # of a usage: what was cached, heard, said, reasoned and searched


def wall_us() -> int:
    """The wall clock of this machine, in microseconds."""
    return time.time_ns() // 1000


def storable(text: str) -> str:
    """*text* as every ledger can store it: what has no encoding (a lone surrogate) is replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def short_name(name: str) -> str:
    """The name of a model or a tool, as it is kept: users and answers may make up any."""
    return storable(name[:MODEL_LENGTH_MAX])


def claim(meter: Meter, call: Call) -> bool:
    """Whether it is ours to settle *call*: once, and only in the process that made it."""
    if call.pid != meter.pid:
        return False
    try:
        del call.unsettled  # atomic: of two who settle at once, one finds it gone
    except AttributeError:
        return False
    call.state = DONE
    return True


def settle(
    meter: Meter,
    call: Call,
    usage: Usage,
    response_model: str | None,
    tools: Sequence[str],
    *,
    estimated: bool,
    event_id: str | None = None,
    cost: int | None = None,
    description: str | None = None,
) -> Event | None:
    """Price a finished call, journal it and post it; returns None for one that is settled already."""
    if not claim(meter, call):
        return None
    if response_model is not None and (
        len(response_model) > MODEL_LENGTH_MAX or not response_model.isascii()
    ):
        response_model = short_name(response_model)
    try:
        bill = _bill(meter, call, usage, response_model, tools, estimated)
    except Exception:  # noqa: BLE001  # a fault of ours must neither lose the call nor keep its hold
        meter.own_fault("pricing a call")
        bill = _held(call)
    if cost is not None:
        bill = bill._replace(tokens_nusd=cost, rate_source="caller")
    try:
        names = tuple(map(short_name, tools)) if tools else ()
        event = _event(call, bill, response_model, names, event_id or meter.new_id())
        if description is not None or cost is not None:
            event = event._replace(
                description=description and storable(description[:DESCRIPTION_LENGTH_MAX]),
                cost_explicit=int(cost is not None),
            )
        if not bill.estimated and call.source == "auto":
            try:  # before what is held goes back: whoever waits for it is sized by this answer, too
                learn(call, usage)
            except Exception:  # noqa: BLE001  # what was not learned must not cost the event
                meter.own_fault("learning from an answer")
        post(meter, call, event)
    except BaseException:
        with call.wallet.lock:
            call.release()
        raise
    return event


class Bill(NamedTuple):
    """What a call used and cost, in nano-dollars, and how that is known."""

    usage: Usage
    tokens_nusd: int
    tools_nusd: int
    rate_source: str | None
    estimated: bool


def _bill(
    meter: Meter,
    call: Call,
    usage: Usage,
    response_model: str | None,
    tools: Sequence[str],
    estimated: bool,
) -> Bill:
    input_tokens, output_tokens = usage[:2]
    if (
        input_tokens < 0
        or output_tokens < 0
        or input_tokens + output_tokens > CALL_TOKENS_MAX
        or (usage[2:9] != _NO_PARTS and has_negative(usage))
    ) and call.source == "auto":
        meter.warn_once(
            f"absurd {call.model}", f"{call.model!r} reported impossible usage; the reservation is posted"
        )
        return _held(call)
    assert call.tariff is not None
    tools_nusd = 0
    if tools:
        config = call.tariff.plan.config
        tools_nusd = tool_cost_nusd(tools, config.tool_costs, config.default_tool_cost)
    terms = call.terms.answered.get(response_model)
    if terms is None:
        terms = call.tariff.answered(call.terms, response_model or "", call.provider)
    rates = terms.rates
    if rates is None:
        if call.source == "auto":
            meter.unpriced(response_model or call.model)
        return Bill(usage, 0, tools_nusd, "unpriced", estimated)
    try:
        cost, by_estimate = priced(usage, rates)
        estimated = estimated or by_estimate
        return _made(Bill, (usage, cost, tools_nusd, terms.rate_source, estimated))  # see _event
    except UnpricedTokensError:
        meter.unpriced(response_model or call.model)
        return Bill(usage, call.need_nusd, tools_nusd, terms.rate_source, True)


def _held(call: Call) -> Bill:
    """What was reserved for the call, for a report that cannot be right or cannot be read."""
    input_tokens = call.input_estimate
    usage = Usage(input_tokens, max(1, call.need_tokens - input_tokens))
    return Bill(usage, call.need_nusd, 0, "hold", True)


def _event(
    call: Call, bill: Bill, response_model: str | None, tools: tuple[str, ...], event_id: str
) -> Event:
    usage, tokens_nusd, tools_nusd, rate_source, estimated = bill
    session = call.session
    assert session is not None
    period, session_purse, tokens = call.purses
    if tokens is not None:
        model: str | None = call.terms.model
    else:
        assert call.tariff is not None
        model = call.tariff.terms(response_model, call.provider).model if response_model else None
    # Made without its constructor, which is a function in Python, of fields by position, which cost a tenth
    # of those by name: this is on the path of every call. A window's and a session's first is its key; of
    # usage these are input, output, read from and written to the cache, and reasoning.
    return _made(Event, (
        event_id, call.user_id, call.started_us, period.window[0], session_purse.window[0], session[0],
        call.provider, call.operation, model, call.model or response_model, response_model,
        usage[0], usage[1], usage[2], usage[3], usage[7], tokens_nusd, tools_nusd,
        tools, call.json_metadata() if call.metadata else None, call.source, int(estimated), 0,
        rate_source, None,
    ))  # fmt: skip


def post(meter: Meter, call: Call, event: Event) -> None:
    """Journal *event*, then post it: what is in memory is then never more than what a crash leaves."""
    try:
        meter.journal.append(event)
    except Exception:  # noqa: BLE001  # the event then lives in memory alone
        meter.own_fault("journalling an event")
    wallet = call.wallet
    cost = event[COST_TOKENS] + event[COST_TOOLS]
    tokens = event[INPUT_TOKENS] + event[OUTPUT_TOKENS]
    with wallet.lock:
        if call.purses[2] is None and event.model is not None:
            call.need_tokens = 0  # nothing was held for a model that only the answer named
            call.purses = (*call.purses[:2], wallet.purse_of(model_scope(event.model)))
        crossed = call.post(cost, tokens)
        events = wallet.events = wallet.events or []
        events.append(event)
        full = len(events) == meter.options.max_batch_size
        if call.payer.tally is not None:
            call.payer.tally.posted(cost, tokens, crossed or call.soft)
        waiting = bool(wallet.asks)
        if wallet.state is not None:
            refresh(wallet)
    if full:
        meter.exporter.submit(wallet)
    if crossed is not None and call.soft is None:
        meter.gate.crossed_soft(call, crossed)
    if meter.callbacks.usage:
        fire(meter.callbacks.usage, to_model(event))
    if waiting:
        meter.queue.freed(wallet)


def may_be_billed(error: BaseException | None) -> bool:
    """
    Whether a provider may charge for a call that ended in *error*: it was given up after it was sent.

    Errors are told by name, since the SDKs and their HTTP clients are never imported here.
    """
    if error is None:
        return False
    if not isinstance(error, Exception):
        return True  # the caller was cancelled, interrupted or torn down: no answer of the provider
    causes: BaseException | None = error
    names: list[str] = []
    while causes is not None and len(names) < 8:
        names.append(type(causes).__name__)
        causes = causes.__cause__
    if any(name in ("ConnectTimeout", "PoolTimeout", "ConnectError") for name in names):
        return False
    return any("Timeout" in name for name in names)


# -- batches and background responses ------------------------------------------------------------------


def remember_job(meter: Meter, payer: Payer, provider: str, job_id: str, model: str | None) -> None:
    """Store whom a batch belongs to."""
    assert payer.user_id is not None
    metadata = dict(payer.metadata) if payer.metadata else None
    job = Job(job_id, payer.user_id, payer.session_id, provider, model, metadata)
    meter.changes.deliver(lambda ledger: ledger.put_job(job))


def job_results(meter: Meter, provider: str, name: str, lines: Sequence[JobLine]) -> None:
    """Look up whose batch it is on the ledger thread, then post its lines; reading them twice counts once."""
    meter.changes.deliver(lambda ledger: _post_job(meter, ledger.job(provider, name), lines))


def _post_job(meter: Meter, job: Job | None, lines: Sequence[JobLine]) -> None:
    if job is None:
        meter.warn_once(
            "unknown batch", "results of a batch were read that no user is known for: not metered"
        )
        return
    payer = Payer(job.user_id, job.session_id, None, job.metadata)
    for line in lines:
        call = Call(meter, payer, job.provider, "batch", line.model or job.model, 0, None)
        event_id = id_for_key(job.user_id, f"{job.provider}:{job.job_id}:{line.key}")
        meter.gate.when_open(call, partial(_post_line, meter, call, line, event_id))


def _post_line(meter: Meter, call: Call, line: JobLine, event_id: str) -> None:
    settle(meter, call, line.usage, line.model, line.tools, estimated=False, event_id=event_id)
