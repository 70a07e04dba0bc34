"""How much a call may need, worked out before it is made, and what finished calls teach of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from paygent.core.bounds import CALL_TOKENS_MAX
from paygent.core.pricing import UnpricedTokensError, cost_nusd
from paygent.core.usage import Usage
from paygent.meter.habits import sizes_of, with_new

if TYPE_CHECKING:
    from paygent.core.models import PlanConfig
    from paygent.meter.call import Call
    from paygent.meter.tariff import Tariff

_NO_UNITS = Usage()
_AUSD_PER_NUSD_MILLI = 10**12
_UNCAPPED_USD = 1e18


class Blocked(NamedTuple):
    """No ledger needs to be asked for this: ``reason`` is ``unlisted``, ``unpriced`` or ``no_plan``."""

    reason: str


def size(call: Call, tariff: Tariff) -> Blocked | None:
    """Work out under *tariff* what *call* may need; or say why no plan covers it."""
    call.tariff = tariff
    terms = tariff.known.get((call.model, call.provider))
    if terms is None:
        terms = tariff.terms(call.model or "", call.provider)
    habits = terms.habits
    call.terms, call.habits = terms, habits
    input_tokens = call.input_tokens
    if input_tokens is None:
        input_tokens = int(call.input_bytes * habits.tokens_per_byte) + 1
    call.input_estimate = input_tokens
    if call.forced:
        call.need_nusd = call.need_tokens = 0
        return None
    if tariff.blocks_all:
        return Blocked("no_plan")
    if call.model is None:
        _size_unknown_model(call, tariff)
        return None
    if not terms.listed:
        return Blocked("unlisted")
    plan = tariff.plan
    output_tokens = call.max_output_tokens
    if output_tokens is None or not 0 <= output_tokens <= CALL_TOKENS_MAX:
        output_tokens = _output_estimate(call, plan.config)
    call.need_tokens = (input_tokens + output_tokens) * plan.safety_milli // 1000
    rates = terms.rates
    if rates is not None and call.units is None and rates.input_ausd is not None:
        ausd = input_tokens * rates.input_ausd + output_tokens * (rates.output_ausd or 0)
        call.need_nusd = ausd * plan.safety_milli // _AUSD_PER_NUSD_MILLI + 1
        return None
    return _size_otherwise(call, tariff, Usage(input_tokens, output_tokens))


def _size_otherwise(call: Call, tariff: Tariff, text: Usage) -> Blocked | None:
    """Units other than text (images, seconds of audio), or a price that is not known."""
    try:
        rates = call.terms.rates
        if rates is None:
            raise UnpricedTokensError("input", text.input_tokens)
        usage = text if call.units is None else call.units._replace(input_tokens=0, output_tokens=0)
        call.need_nusd = max(0, cost_nusd(usage, rates)) * tariff.plan.safety_milli // 1000 + 1
    except UnpricedTokensError:
        call.need_nusd = 0
        call.meter.unpriced(call.model)
        config = tariff.plan.config
        spend_cap = min(config.max_spend_per_period, config.max_spend_per_session)
        if call.meter.blocks_unpriced and spend_cap < _UNCAPPED_USD:
            return Blocked("unpriced")
    return None


def _size_unknown_model(call: Call, tariff: Tariff) -> None:
    """Only the answer will name the model: the dearest rate of the plan stands in for it."""
    config = tariff.plan.config
    usage = Usage(call.input_estimate, _output_estimate(call, config))
    rates = [tariff.terms(model).rates for model in config.cost_rates]
    costs = [cost_nusd(usage, rate) for rate in rates if rate is not None]
    call.need_nusd = max(costs, default=0) * tariff.plan.safety_milli // 1000 + 1


def _output_estimate(call: Call, config: PlanConfig) -> int:
    """The call's own cap; else what the user's, or the model's, answers teach; else the plan's buffer."""
    cap = call.max_output_tokens
    if cap is not None and cap >= 0:
        return min(cap, CALL_TOKENS_MAX)
    sizes = call.wallet.sizes
    own = sizes_of(sizes, call.terms.model) if sizes else None
    learned = own.estimate if own is not None else None
    if learned is None:
        learned = call.habits.output.estimate
    return config.pre_call_buffer_tokens if learned is None else learned


def learn(call: Call, usage: Usage) -> None:
    """Learn from what the provider reported; an answer cut short by a cap says nothing of its size."""
    if call.input_tokens is None:
        call.habits.learn_input(call.input_bytes, usage.input_tokens)
    if call.max_output_tokens is None or call.max_output_tokens < 0:
        call.habits.output.learn(usage.output_tokens)
        wallet, model = call.wallet, call.terms.model
        own = sizes_of(wallet.sizes, model)
        if own is None:
            sizes = wallet.sizes = with_new(wallet.sizes, model)
            own = sizes[-1]
        own.learn(usage.output_tokens)
