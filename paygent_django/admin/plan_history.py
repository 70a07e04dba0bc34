"""What one version of a plan changed against the one before it, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from paygent_django.admin.shown import decimal_text, price
from paygent_django.admin.words import _
from paygent_django.models import PlanVersion

_NESTED = ("model_limits", "cost_rates", "tool_costs")
_DOLLARS = ("max_spend_per_period", "max_spend_per_session", "default_tool_cost")
_SHARES = ("soft_gate_at", "hard_gate_at")


def differences(before: PlanVersion | None, after: PlanVersion) -> list[str]:
    """The changes, one sentence each; none for the first version."""
    return [] if before is None else list(_differences(before, after))


def _differences(before: PlanVersion, after: PlanVersion) -> Iterator[str]:
    yield from _change(_("label"), before.label, after.label)
    yield from _change(_("price"), _price(before), _price(after))
    yield from _change(_("rank"), before.rank, after.rank)
    old, new = (version.plan_config.model_dump(mode="json") for version in (before, after))
    for name, value in new.items():
        if name in _NESTED:
            yield from _rows(name.replace("_", " "), old[name], value)
        else:
            yield from _change(_name(name), _worded(name, old[name]), _worded(name, value))


def _name(field: str) -> str:
    """A field of a plan as the form calls it, or in its own words."""
    names = {
        "max_spend_per_period": _("spend per period"), "max_spend_per_session": _("spend per session"),
        "soft_gate_at": _("warn at"), "hard_gate_at": _("block at"), "pre_call_estimate": _("strict"),
    }  # fmt: skip
    return names.get(field, field.replace("_", " "))


def _worded(field: str, value: Any) -> Any:
    """Dollars and shares with their signs; a cap that is not there is no limit."""
    if value is None:
        return _("unlimited") if field.startswith("max_") else None
    if field in _DOLLARS:
        return f"${decimal_text(Decimal(str(value)), digits=2)}"
    if field in _SHARES:
        return f"{value * 100:g}%"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return value


def _price(version: PlanVersion) -> str:
    return price(version.price_nano, version.currency, version.interval)


def _rows(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in new:
            yield _("%(name)s: %(key)s removed") % {"name": name, "key": key}
        elif key not in old:
            yield _("%(name)s: %(key)s added (%(value)s)") % {
                "name": name,
                "key": key,
                "value": _said(new[key]),
            }
        else:
            yield from _change(f"{name} {key}", old[key], new[key])


def _change(name: str, old: Any, new: Any) -> Iterator[str]:
    if old != new:
        yield f"{name}: {_said(old)} \u2192 {_said(new)}"


def _said(value: Any) -> str:
    """A value in few words; ``None`` is no limit, or nothing given."""
    if isinstance(value, Mapping):
        return (
            ", ".join(
                f"{name.replace('_', ' ')} {_said(one)}" for name, one in value.items() if one is not None
            )
            or "\u2013"
        )
    if value is None or value == "":
        return "\u2013"
    return f"{value:g}" if isinstance(value, float) else str(value)
