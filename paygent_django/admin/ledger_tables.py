"""Rows of the ledger as tables, on their own pages and on a user's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from paygent.core.plan import MODEL_LIMIT
from paygent.ledger import LEASE_TTL_S
from paygent_django.admin.shown import (
    Cell,
    Table,
    age,
    amount_of,
    badge,
    count,
    instant,
    lined_up,
    money,
    row_of,
    scope_label,
)
from paygent_django.admin.words import _
from paygent_django.models import GateEvent, Lease, UsageEvent
from paygent_django.models.usage import CORRECTION

LEASE_TTL_US = int(LEASE_TTL_S * 1_000_000)


def events_table(events: Iterable[UsageEvent], *, with_user: bool) -> Table:
    """Metered calls and corrections."""
    heads = [
        _("Time"),
        _("Model"),
        _("Feature"),
        "#" + _("Input"),
        "#" + _("Output"),
        "#" + _("Cost"),
        _("Source"),
    ]
    if with_user:
        heads.insert(1, _("User"))
    empty = _("No events: each metered call is a row here.")
    rows = lined_up([_event(one, with_user) for one in events], column=-2)
    return Table(tuple(heads), rows, empty=empty, title=_("Events"))


def _event(one: UsageEvent, with_user: bool) -> list[Cell]:
    when = instant(one.timestamp_us)
    cells = [
        Cell(when.text, to=row_of("usageevent", one.pk), kind=when.kind, iso=when.iso),
        Cell(one.model or "\u2013", kind="model", note=_request_model(one)),
        Cell(one.tag or ""), count(one.input_tokens),
        count(one.output_tokens), money(one.cost_nusd), source_of(one),
    ]  # fmt: skip
    if with_user:
        cells.insert(1, user_cell(one.user))
    return cells


def _request_model(one: UsageEvent) -> str:
    return str(one.request_model) if one.request_model not in (None, one.model) else ""


def source_of(one: UsageEvent) -> Cell:
    """Where a row comes from, and whether it rests on an estimate."""
    if one.source == CORRECTION:
        return badge("off", _("refund"))
    return badge("soft", _("estimated")) if one.estimated else Cell(one.source, kind="muted")


def user_cell(user: Any) -> Cell:
    """A user's name, leading to his page."""
    return Cell(str(user), to=row_of("enduser", user.pk), kind="name")


def gates_table(gates: Iterable[GateEvent], *, with_user: bool) -> Table:
    """Decisions of the gate other than *ok*."""
    heads = [
        _("Time"),
        _("Decision"),
        _("Limit"),
        "#" + _("Used"),
        "#" + _("Of"),
        _("Model"),
        "#" + _("Times"),
    ]
    if with_user:
        heads.insert(1, _("User"))
    empty = _("No decisions: nobody came near a limit.")
    return Table(tuple(heads), [_gate(one, with_user) for one in gates], empty=empty, title=_("Decisions"))


def _gate(one: GateEvent, with_user: bool) -> list[Cell]:
    reason = one.gate_reason or ""
    when = instant(one.timestamp_us)
    cells = [
        Cell(when.text, to=row_of("gateevent", one.pk), kind=when.kind, iso=when.iso),
        decision_of(one),
        Cell(scope_label(reason), note=""),
        Cell(_amount(reason, one.current_value), kind="num"),
        Cell(_amount(reason, one.limit_value), kind="num"),
        Cell(one.model or ""),
        count(one.count),
    ]
    if with_user:
        cells.insert(1, user_cell(one.user))
    return cells


def decision_of(one: GateEvent) -> Cell:
    """What the gate said, as a badge."""
    if one.blocked:
        return badge("blocked", _("blocked"))
    return badge("soft", _("warned") if one.status == "soft_gate" else _("let through"))


def _amount(reason: str, value: float) -> str:
    """A decision keeps dollars, or tokens for the limit of a model."""
    return amount_of(reason, value if reason.startswith(MODEL_LIMIT) else round(value * 10**9))


def leases_table(leases: Iterable[Lease], now_us: int, *, with_user: bool) -> Table:
    """What processes hold on accounts, with the time since they last said so."""
    heads = [_("Lease"), _("Holds"), "#" + _("Renewed"), _("State"), "#" + _("Operations")]
    if with_user:
        heads.insert(0, _("User"))
    empty = _("No leases: no process holds budget at the moment.")
    return Table(
        tuple(heads), [_lease(one, now_us, with_user) for one in leases], empty=empty, title=_("Leases")
    )


def _lease(one: Lease, now_us: int, with_user: bool) -> list[Cell]:
    is_live = one.expires_us > now_us
    cells = [
        Cell(one.lease_id, kind="code"), Cell(_held(one)),
        Cell(_("%s ago") % age(one.expires_us - LEASE_TTL_US, now_us), kind="num"),
        badge("ok", _("live")) if is_live else badge("off", _("expired")), count(one.seq),
    ]  # fmt: skip
    if with_user:
        cells.insert(0, user_cell(one.user))
    return cells


def _held(one: Lease) -> str:
    held = [
        f"{scope_label(scope)}: {amount_of(scope, amount)}"
        for scope, _window, amount in one.amounts or []
        if amount
    ]
    return "; ".join(held) or _("nothing")
