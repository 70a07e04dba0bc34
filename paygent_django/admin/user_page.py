"""What the page of one user shows; a constant number of queries, each of them bounded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from paygent import charts
from paygent.charts import Rank
from paygent.core.windows import Window, from_us, session_window
from paygent_django import services
from paygent_django.admin.ledger_tables import events_table, gates_table, leases_table
from paygent_django.admin.paging import address, cursor_of, page_of
from paygent_django.admin.shown import Cell, Table, bars, instant, moment, money, safe, state_cell
from paygent_django.admin.words import _
from paygent_django.models import (
    EndUser,
    GateEvent,
    Grant,
    Lease,
    Session,
    Subscription,
    Total,
    UsageEvent,
    UserUsage,
)
from paygent_django.services import Usage
from paygent_django.services._base import now_us, rows

DAYS = 30
ROWS = 25


def context(user: EndUser, given: Mapping[str, str], seen: Collection[str]) -> dict[str, Any]:
    """Everything about *user*, but the tables (models by name) that are not in *seen*."""
    usage, now = services.usage_of(user), now_us()
    session = _session(user, usage, now)
    session_nusd = 0 if session is None else _spent_in(user, session)
    tables: dict[str, Callable[[], dict[str, Any]]] = {
        "usageevent": lambda: _events(user, given),
        "gateevent": lambda: _gates(user, given),
        "lease": lambda: {"leases": leases_table(_newest(Lease, user, "expires_us"), now, with_user=False)},
        "grant": lambda: {"grants": _grants(user)},
        "subscription": lambda: {"subscriptions": _subscriptions(user, now)},
    }
    shown: dict[str, Any] = {}
    for name, made in tables.items():
        if name in seen:
            shown |= made()
    return {
        "title": str(user),
        "user_row": user,
        "project": user.project,
        "original": user,
        "state": state_cell(usage, session_nusd),
        "plan": _plan_label(user, usage),
        "has_own_limits": user.own_config is not None,
        "bars": bars(usage, session_nusd),
        "resets": moment(usage.window.end_us, "j M Y, H:i"),
        "since": moment(usage.window.start_us, "j M Y"),
        "spent": charts.dollars(usage.cost_nusd),
        "tokens": charts.compact(usage.tokens),
        "granted": charts.dollars(user.grant_nusd) if user.grant_window == usage.window.key else "",
        "created": moment(user.created_us, "j M Y"),
        "anonymised": None if user.anonymised_us is None else moment(user.anonymised_us),
        "session": None if session is None else _session_shown(session, session_nusd),
        "daily": safe(_daily(user, now)),
        "models": safe(_models(usage)),
        **shown,
    }


def _plan_label(user: EndUser, usage: Usage) -> str:
    plan = services.find_plan(user.project, usage.plan)
    return usage.plan if plan is None else plan.label


def _daily(user: EndUser, now: int) -> str:
    today = from_us(now).date()
    span = [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    found = rows(UserUsage).filter(user=user, grain=UserUsage.DAY, starts__gte=span[0], starts__lte=today)
    spent = dict(found.values_list("starts", "cost_nusd"))
    return charts.bars(
        [charts.day_label(day) for day in span], [max(0, spent.get(day, 0)) for day in span],
        title=_("Spend per day"), name=_("Spend"), show=charts.dollars, tick=charts.short_dollars, height=180,
    )  # fmt: skip


def _models(usage: Usage) -> str:
    ranks = [
        Rank(model, spent, note=_("%s tokens") % charts.compact(usage.tokens_by_model.get(model, 0)))
        for model, spent in sorted(usage.cost_nusd_by_model.items(), key=lambda pair: -pair[1])
    ]
    return charts.ranking(ranks[:10], title=_("Models in this period"), show=charts.dollars)


def _session(user: EndUser, usage: Usage, now: int) -> Window | None:
    """The running default session."""
    row = rows(Session).filter(user=user, own_id="").first()
    if row is None:
        return None
    window = session_window(row.session_id, row.started_us, usage.terms.session_timeout_s)
    return window if now < window.end_us else None


def _spent_in(user: EndUser, session: Window) -> int:
    total = rows(Total).filter(user=user, scope="session_spend", window=session.key).first()
    return 0 if total is None else int(total.amount)


def _session_shown(session: Window, spent_nusd: int) -> dict[str, Any]:
    return {
        "started": instant(session.start_us),
        "ends": instant(session.end_us),
        "spent": charts.dollars(spent_nusd),
    }


def _events(user: EndUser, given: Mapping[str, str]) -> dict[str, Any]:
    found = rows(UsageEvent).filter(user=user)
    page = page_of(found, cursor_of(given.get("events")), by="timestamp_us", size=ROWS)
    return {
        "events": events_table(page.rows, with_user=False),
        "events_older": address(given, events=page.older) + "#events" if page.older else None,
        "events_newest": address(given, events=None) + "#events" if given.get("events") else None,
    }


def _gates(user: EndUser, given: Mapping[str, str]) -> dict[str, Any]:
    found = rows(GateEvent).filter(user=user)
    page = page_of(found, cursor_of(given.get("gates")), by="timestamp_us", size=ROWS)
    return {
        "gates": gates_table(page.rows, with_user=False),
        "gates_older": address(given, gates=page.older) + "#decisions" if page.older else None,
        "gates_newest": address(given, gates=None) + "#decisions" if given.get("gates") else None,
    }


def _newest(model: Any, user: EndUser, by: str, size: int = ROWS) -> Sequence[Any]:
    return list(rows(model).filter(user=user).order_by(f"-{by}")[:size])


def _grants(user: EndUser) -> Table:
    heads = (_("Granted"), "#" + _("Amount"), _("Reason"), _("By"))
    found = [
        [moment(one.created_us), money(one.amount_nusd), Cell(one.reason), Cell(one.created_by)]
        for one in _newest(Grant, user, "pk")
        if isinstance(one, Grant)
    ]
    return Table(heads, found, empty=_("No extra budget was granted."), title=_("Extra budget"))


def _subscriptions(user: EndUser, now: int) -> Table:
    heads = (_("Plan"), _("From"), _("Until"), _("Reference"), _("By"))
    spans = rows(Subscription).filter(user=user).select_related("plan__current").order_by("-starts_us")[:ROWS]
    found = [
        [
            Cell(
                one.plan.label if one.plan else _("default plan"),
                note=_("running") if _runs(one, now) else "",
            ),
            moment(one.starts_us),
            moment(one.ends_us),
            Cell(one.reference),
            Cell(one.created_by),
        ]
        for one in spans
    ]
    empty = _("No subscription: the default plan applies.")
    return Table(heads, found, empty=empty, title=_("Subscriptions"))


def _runs(span: Subscription, now: int) -> bool:
    return bool(span.starts_us <= now < span.ends_us)
