"""A plan as a form: amounts in dollars, shares in per cent, limits and rates as rows."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as lazy

from paygent.core.models import ModelCostRate, PlanConfig
from paygent.core.plan import NUSD_PER_USD
from paygent_django.admin.shown import decimal_text
from paygent_django.admin.words import _
from paygent_django.models import Plan, PlanVersion
from paygent_django.services.plans import NAME_LENGTH_MAX, PRICE_MAX_NANO

RATES = tuple(ModelCostRate.model_fields)
FIRST_RATES = ("input", "output", "cache_read", "cache_write")
# Fields of PlanConfig that the form shows as they are; caps are empty where there is no limit.
_CAPS = ("max_spend_per_period", "max_spend_per_session")
_SHARES = ("soft_gate_at", "hard_gate_at")
_PLAIN = (
    "session_timeout_minutes", "pre_call_estimate", "pre_call_buffer_tokens", "reservation_safety_factor",
    "default_tool_cost",
)  # fmt: skip
_MODEL_MAX = 200


def dollars_field(label: Any, **more: Any) -> forms.DecimalField:
    """An amount of US dollars, zero or more; empty where it may be."""
    return forms.DecimalField(
        label=label,
        min_value=0,
        max_digits=18,
        decimal_places=9,
        required=more.pop("required", False),
        **more,
    )


class PlanForm(forms.Form):
    """What a plan says besides its rows. ``based_on`` is the version that was opened."""

    name = forms.CharField(
        label=lazy("Name"),
        max_length=NAME_LENGTH_MAX,
        help_text=lazy("What your code calls it; it cannot be changed."),
    )
    label = forms.CharField(
        label=lazy("Label"), max_length=200, required=False, help_text=lazy("What users read.")
    )
    price = dollars_field(
        lazy("Price"),
        max_value=Decimal(PRICE_MAX_NANO) / NUSD_PER_USD,
        help_text=lazy("Empty: no price is told."),
    )
    currency = forms.RegexField(
        label=lazy("Currency"), regex=r"\A[A-Z]{3}\Z", initial="USD", max_length=3,
        error_messages={"invalid": lazy("Three capitals, such as USD.")},
    )  # fmt: skip
    interval = forms.ChoiceField(label=lazy("Per"), choices=PlanVersion.INTERVALS, initial="month")
    rank = forms.IntegerField(
        label=lazy("Rank"), initial=0, min_value=-(2**31) + 1, max_value=2**31 - 1,
        help_text=lazy("A refusal offers the cheapest plan of a higher rank."),
    )  # fmt: skip
    is_default = forms.BooleanField(
        label=lazy("Default plan"), required=False, help_text=lazy("Binds everybody without a subscription.")
    )
    is_archived = forms.BooleanField(
        label=lazy("Archived"), required=False, help_text=lazy("No longer offered; whoever is on it stays.")
    )
    max_spend_per_period = dollars_field(
        lazy("Spend per period, US dollars"), help_text=lazy("Empty: unlimited. 0 blocks every call.")
    )
    max_spend_per_session = dollars_field(
        lazy("Spend per session, US dollars"), help_text=lazy("Empty: unlimited.")
    )
    soft_gate_at = forms.DecimalField(
        label=lazy("Warn at, % of a limit"), initial=80, min_value=0, max_value=100, decimal_places=4
    )
    hard_gate_at = forms.DecimalField(
        label=lazy("Block at, % of a limit"), initial=100, min_value=0, max_value=100, decimal_places=4
    )
    session_timeout_minutes = forms.DecimalField(
        label=lazy("Session length, minutes"), initial=30, min_value=Decimal("0.001"), max_value=525_600
    )
    pre_call_estimate = forms.BooleanField(
        label=lazy("Strict"), required=False,
        help_text=lazy("Refuse a call that would not fit. Otherwise the last call may go past the limit."),
    )  # fmt: skip
    pre_call_buffer_tokens = forms.IntegerField(
        label=lazy("Output assumed where a call names no maximum, tokens"), initial=4096, min_value=0,
        max_value=100_000_000,
    )  # fmt: skip
    reservation_safety_factor = forms.DecimalField(
        label=lazy("Safety factor of estimates"), initial=Decimal("1.2"), min_value=0, max_value=100
    )
    default_tool_cost = dollars_field(
        lazy("Cost of any other tool call, US dollars"), required=True, initial=Decimal("0.02")
    )
    based_on = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, plan: Plan | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self.plan = plan
        if plan is not None:
            self.fields["name"].disabled = True
            self.fields["name"].initial = plan.name
        self.fields["currency"].widget.attrs |= {"class": "short", "autocapitalize": "characters"}

    def clean(self) -> dict[str, Any]:
        """Check what two fields say together."""
        said: dict[str, Any] = super().clean() or self.cleaned_data
        soft, hard = said.get("soft_gate_at"), said.get("hard_gate_at")
        if soft is not None and hard is not None and soft > hard:
            self.add_error("soft_gate_at", _("Must not be above the share at which calls are blocked."))
        current = self.plan.current.number if self.plan is not None and self.plan.current else None
        if current is not None and said.get("based_on") not in (None, current):
            raise ValidationError(overtaken())
        return said


def overtaken() -> str:
    """What is said to whoever edits a version that is not the current one any more."""
    return _("Somebody saved this plan meanwhile: look at the history below, then open the form again.")


class LimitRow(forms.Form):
    """The tokens of one model in a billing period."""

    model = forms.CharField(label=lazy("Model"), max_length=_MODEL_MAX)
    max_tokens_per_period = forms.IntegerField(
        label=lazy("Tokens per period"), min_value=0, max_value=10**15, required=False,
        widget=forms.NumberInput({"placeholder": lazy("unlimited")}),
    )  # fmt: skip


class ToolRow(forms.Form):
    """What one call of a tool costs."""

    tool = forms.CharField(label=lazy("Tool"), max_length=_MODEL_MAX)
    cost = dollars_field(lazy("US dollars per call"), required=True)


def _rate_fields(*, required: bool) -> dict[str, forms.DecimalField]:
    labels = {
        "input": lazy("Input"),
        "output": lazy("Output"),
        "cache_read": lazy("Cache read"),
        "cache_write": lazy("Cache write"),
        "cache_write_1h": lazy("Cache write, 1 h"),
        "input_audio": lazy("Audio input"),
        "output_audio": lazy("Audio output"),
        "input_image": lazy("Image input"),
        "output_image": lazy("Image output"),
        "per_call": lazy("Per call"),
        "per_second": lazy("Per second"),
        "per_1k_chars": lazy("Per 1 000 characters"),
        "per_image": lazy("Per image"),
    }
    return {
        name: dollars_field(labels.get(name, name), required=required and name in ("input", "output"))
        for name in RATES
    }


class _Rates(forms.Form):
    @property
    def first(self) -> list[Any]:
        """The rates that most models have."""
        return [self[name] for name in FIRST_RATES]

    @property
    def others(self) -> list[Any]:
        """The rates of few models."""
        return [self[name] for name in RATES if name not in FIRST_RATES]

    @property
    def has_others(self) -> bool:
        """Whether one of those is given, or at fault."""
        return any(field.value() not in (None, "") or field.errors for field in self.others)

    def rate(self) -> dict[str, Any]:
        """The rates that were given."""
        return {
            name: float(self.cleaned_data[name]) for name in RATES if self.cleaned_data.get(name) is not None
        }


# Forms with a field for each rate that a configuration knows.
_RequiredRates: Any = type("_RequiredRates", (_Rates,), _rate_fields(required=True))
_OptionalRates: Any = type("_OptionalRates", (_Rates,), _rate_fields(required=False))


class RateRow(_RequiredRates):
    """What one model costs, in US dollars per 1 000 tokens."""

    model = forms.CharField(label=lazy("Model"), max_length=_MODEL_MAX)


class DefaultRate(_OptionalRates):
    """What a model costs that the plan does not name; empty where none is given."""

    def clean(self) -> dict[str, Any]:
        """Input and output are given both, or nothing is."""
        said: dict[str, Any] = super().clean() or self.cleaned_data
        if any(said.get(name) is not None for name in RATES):
            for name in ("input", "output"):
                if said.get(name) is None and name not in self.errors:
                    self.add_error(name, _("Give both input and output, or nothing."))
        return said


class _Rows(forms.BaseFormSet):
    key = "model"

    def clean(self) -> None:
        """Each name stands in one row."""
        seen: set[str] = set()
        for form in self.kept():
            name = form.cleaned_data.get(self.key)
            if name in seen:
                form.add_error(self.key, _("This one stands in a row above already."))
            seen.add(name)

    def kept(self) -> list[Any]:
        """The rows that hold something and are not to be removed."""
        return [form for form in self.forms if _is_filled(form) and not self._should_delete_form(form)]


def _is_filled(form: Any) -> bool:
    """Whether a row says anything; one that is at fault says nothing."""
    said = getattr(form, "cleaned_data", {})
    return any(value not in (None, "") for name, value in said.items() if name != "DELETE")


class _ToolRows(_Rows):
    key = "tool"


def _set(row: Any, base: Any = _Rows) -> Any:
    return forms.formset_factory(row, formset=base, extra=0, can_delete=True, max_num=500, absolute_max=600)


LimitRows, RateRows, ToolRows = _set(LimitRow), _set(RateRow), _set(ToolRow, _ToolRows)


class PlanForms:
    """The form of a plan with all its rows: filled from a plan, or from what was sent."""

    def __init__(self, plan: Plan | None = None, sent: Mapping[str, Any] | None = None) -> None:
        initial = initial_of(plan)
        self.plan = plan
        self.main = PlanForm(sent, plan=plan, initial=initial["main"])
        self.limits = LimitRows(sent, prefix="limits", initial=initial["limits"])
        self.rates = RateRows(sent, prefix="rates", initial=initial["rates"])
        self.tools = ToolRows(sent, prefix="tools", initial=initial["tools"])
        self.default_rate = DefaultRate(sent, prefix="default_rate", initial=initial["default_rate"])

    def is_valid(self) -> bool:
        """Whether all of it is; every fault is marked at its field."""
        parts = (self.main, self.limits, self.rates, self.tools, self.default_rate)
        return all([part.is_valid() for part in parts])  # noqa: C419  # all are asked, so that all are marked

    @property
    def config(self) -> dict[str, Any]:
        """What was sent, as the fields of ``PlanConfig``."""
        said = self.main.cleaned_data
        rate = self.default_rate.rate()
        return {
            **{name: None if said[name] is None else float(said[name]) for name in _CAPS},
            **{name: float(said[name] / 100) for name in _SHARES},
            **{name: _number(said[name]) for name in _PLAIN},
            "model_limits": {
                row.cleaned_data["model"]: {
                    "max_tokens_per_period": row.cleaned_data["max_tokens_per_period"]
                }
                for row in self.limits.kept()
            },
            "cost_rates": {row.cleaned_data["model"]: row.rate() for row in self.rates.kept()},
            "default_cost_rate": rate or None,
            "tool_costs": {
                row.cleaned_data["tool"]: float(row.cleaned_data["cost"]) for row in self.tools.kept()
            },
        }

    @property
    def said(self) -> dict[str, Any]:
        """What was sent besides limits and rates, as ``save_plan`` takes it."""
        said = self.main.cleaned_data
        price = said["price"]
        price_nano = None if price is None else int(price * NUSD_PER_USD)
        return {
            "price_nano": price_nano,
            **{name: said[name] for name in ("label", "currency", "interval", "rank")},
        }

    @property
    def based_on(self) -> int | None:
        """The version that was edited, as ``save_plan`` takes it; 0: there was none."""
        return 0 if self.plan is None else self.main.cleaned_data["based_on"]

    def put_error(self, field: str, message: str) -> None:
        """Mark what a service refused at the field it names, else above the form."""
        if field == "version":
            self.main.add_error(None, overtaken())
            return
        own = {"price_nano": "price", "plan": "is_default"}.get(field, field.removeprefix("config."))
        if own in self.main.fields:
            self.main.add_error(own, message)
        else:
            self.main.add_error(None, f"{field}: {message}")


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _text(value: float | None) -> str:
    """A float as it was written in decimal."""
    return "" if value is None else decimal_text(Decimal(str(value)))


def initial_of(plan: Plan | None) -> dict[str, Any]:
    """What the forms show of a plan; without one, of a new one."""
    version = plan.current if plan is not None else None
    config = version.plan_config if version is not None else PlanConfig()
    rate = config.default_cost_rate
    return {
        "main": {
            **_main_of(config),
            **(_said_of(plan, version) if plan is not None and version is not None else {}),
        },
        "limits": [
            {"model": model, "max_tokens_per_period": limit.max_tokens_per_period}
            for model, limit in config.model_limits.items()
        ],
        "rates": [{"model": model, **_rates_of(one)} for model, one in config.cost_rates.items()],
        "tools": [{"tool": tool, "cost": _text(cost)} for tool, cost in config.tool_costs.items()],
        "default_rate": {} if rate is None else _rates_of(rate),
    }


def _main_of(config: PlanConfig) -> dict[str, Any]:
    caps = {name: getattr(config, name) for name in _CAPS}
    return {
        **{name: "" if cap == float("inf") else _text(cap) for name, cap in caps.items()},
        **{name: decimal_text(Decimal(str(getattr(config, name))) * 100) for name in _SHARES},
        **{name: _shown(getattr(config, name)) for name in _PLAIN},
    }


def _shown(value: Any) -> Any:
    return _text(value) if isinstance(value, float) else value


def _rates_of(rate: ModelCostRate) -> dict[str, str]:
    return {name: _text(getattr(rate, name)) for name in RATES if getattr(rate, name) is not None}


def _said_of(plan: Plan, version: PlanVersion) -> dict[str, Any]:
    price = version.price_nano
    return {
        "label": version.label,
        "price": "" if price is None else decimal_text(Decimal(price) / NUSD_PER_USD, digits=2),
        "currency": version.currency,
        "interval": version.interval,
        "rank": version.rank,
        "is_default": is_default(plan),
        "is_archived": plan.is_archived,
        "based_on": version.number,
    }


def is_default(plan: Plan) -> bool:
    """Whether the plan binds everybody without a subscription."""
    return plan.name == "default" or plan.project.default_plan_id == plan.pk
