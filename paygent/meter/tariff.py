"""What each model costs and may use under one plan, worked out once per model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paygent.core import names
from paygent.core.pricing import Rates, rates_from_plan
from paygent.meter.habits import Habits
from paygent.meter.purse import model_scope

if TYPE_CHECKING:
    from paygent.core.plan import CompiledPlan

Lookup = Callable[[str, "str | None"], "Rates | None"]
TERMS_MAX = 1000
ANSWERED_MAX = 32


class Terms:
    """
    One model under one plan.

    ``model`` is the name that the plan knows, else the name that was asked for. ``listed`` is false for a
    model that a plan which lists models names nowhere. ``rates`` of ``None``: nobody knows what it costs.
    ``answered`` are the terms of a call by the model that answered it, ``scope`` is what limits its tokens.
    """

    __slots__ = ("answered", "habits", "listed", "model", "rate_source", "rates", "scope")

    def __init__(
        self, model: str, rates: Rates | None, rate_source: str | None, listed: bool, habits: Habits
    ) -> None:
        self.model = model
        self.scope = model_scope(model)
        self.rates = rates
        self.rate_source = rate_source
        self.listed = listed
        self.habits = habits
        self.answered: dict[str | None, Terms] = {None: self}


class Tariff:
    """A compiled plan and the terms of the models met so far."""

    __slots__ = ("_habits", "_lookup", "blocks_all", "known", "plan")

    def __init__(self, plan: CompiledPlan, lookup: Lookup, habits: Callable[[str], Habits]) -> None:
        self.plan = plan
        self._habits = habits
        self.blocks_all = False  # no plan at all, and init(no_plan="block")
        self._lookup = lookup
        self.known: dict[tuple[str | None, str | None], Terms] = {}  # by model and provider

    def terms(self, model: str, provider: str | None = None) -> Terms:
        """The terms of *model*; the number kept is bounded, since users choose the names."""
        terms = self.known.get((model, provider))
        if terms is None:
            if len(self.known) >= TERMS_MAX:
                self.known.clear()
            terms = self.known[model, provider] = self._work_out(model, provider)
        return terms

    def answered(self, terms: Terms, response_model: str, provider: str | None) -> Terms:
        """The plan's rate for the model that answered, else of the one asked for; else the catalogue's."""
        answered = self.terms(response_model, provider)
        if terms.rate_source == "plan":
            chosen = answered if answered.rate_source == "plan" else terms
        else:
            chosen = answered if answered.rates is not None else terms
        if len(terms.answered) < ANSWERED_MAX:
            terms.answered[response_model] = chosen
        return chosen

    def _work_out(self, model: str, provider: str | None) -> Terms:
        config = self.plan.config
        rated = names.match(model, config.cost_rates)
        limited = names.match(model, config.model_limits)
        listed = bool(limited or rated or config.default_cost_rate or not self.plan.lists_models)
        own_rate = config.cost_rates[rated] if rated is not None else config.default_cost_rate
        rates = self._lookup(model, provider)
        source = "catalogue" if rates is not None else None
        if own_rate is not None:
            rates = rates_from_plan(own_rate, rates)
            source = "plan" if rated is not None else "plan_default"
        return Terms(limited or rated or model, rates, source, listed, self._habits(model))
