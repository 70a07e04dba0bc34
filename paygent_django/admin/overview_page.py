"""The overview: a founder's morning page."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from paygent import charts
from paygent.charts import Rank
from paygent_django.admin.base import PaygentAdmin, admin_url, chosen_project, may
from paygent_django.admin.overview import Margin, Overview, overview
from paygent_django.admin.paging import address
from paygent_django.admin.shown import safe, scope_label
from paygent_django.admin.words import _
from paygent_django.models.moments import now_us

SPANS = (7, 30, 90)


class OverviewAdmin(PaygentAdmin):
    """The list of daily sums is the overview; a single sum has no page."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002  # Django's
        """Sums are the ledger's business."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Charts of the last days, as many as ``?days=`` says."""
        self.must_view(request)
        project, given = chosen_project(request), request.GET.get("days", "")
        days = int(given) if given in map(str, SPANS) else 30
        found = overview(project, now_us(), days)
        context = {
            "title": _("Overview"),
            "subtitle": None,
            "project": project,
            "days": days,
            "spans": [
                {"days": span, "url": address({}, project=project.pk, days=span), "active": span == days}
                for span in SPANS
            ],
            "figures": figures(found),
            "charts": drawn(found, self.admin_site.name, with_users=may(request, "view_enduser")),
        }
        return self.page(request, "overview.html", {**context, **(extra_context or {})})

    def change_view(self, request: HttpRequest, *_args: Any, **_more: Any) -> HttpResponse:
        """There is nothing to see but the overview."""
        return self.changelist_view(request)


def figures(found: Overview) -> list[dict[str, Any]]:
    """The numbers at the top."""
    days, margins = len(found.days), [margin for margin in found.margins if margin.is_comparable]
    margin = sum(margin.margin_nusd for margin in margins)
    return [
        {
            "label": _("Spend"),
            "value": charts.dollars(found.total.cost_nusd),
            "note": change(found.total.cost_nusd, found.before.cost_nusd, days),
            "chart": safe(charts.sparkline(found.spend, title=_("Spend per day"))),
        },
        {
            "label": _("Calls"),
            "value": charts.compact(found.total.calls),
            "note": change(found.total.calls, found.before.calls, days),
        },
        {
            "label": _("Calls blocked"),
            "value": charts.compact(found.blocked_total),
            "note": _("by a limit, before they cost anything"),
            "chart": safe(charts.sparkline(found.blocked, title=_("Calls blocked per day"))),
        },
        {
            "label": _("Margin"),
            "value": charts.dollars(margin) if margins else "\u2013",
            "note": _("price of subscriptions, less their spend")
            if margins
            else _("no plan has a price yet"),
            "kind": "neg" if margin < 0 else "",
        },
        {
            "label": _("Estimated"),
            "value": charts.percent(found.total.estimated_share),
            "note": _("of the spend was not reported by a provider"),
            "chart": safe(
                charts.meter(
                    found.total.estimated_share, 1, title=_("Share of estimated money"), state="soft"
                )
            ),
        },
    ]


def change(now: float, before: float, days: int) -> str:
    """How a figure moved against as many days before."""
    if not before:
        return _("nothing in the %s days before") % days
    moved = (now - before) / before
    sign = "+" if moved >= 0 else ""
    return _("%(change)s against the %(days)s days before") % {
        "change": f"{sign}{charts.percent(moved)}", "days": days
    }  # fmt: skip


def drawn(found: Overview, site: str, *, with_users: bool) -> dict[str, Any]:
    """The charts, with links into the admin *site*; who spends most is for those who may see users."""
    labels = [charts.day_label(day) for day in found.days]
    shown = {"show": charts.dollars, "tick": charts.short_dollars}
    words = charts.Words(
        table=_("Show the numbers"), label=_("Day"), total=_("Total"), other=_("Other"),
        nothing=_("Nothing here yet."),
    )  # fmt: skip
    made = {
        "spend": charts.stacked_bars(
            labels, found.models, title=_("Spend per day, by model"), height=260, words=words, **shown
        ),
        "blocked": charts.bars(
            labels, found.blocked, title=_("Calls blocked"), name=_("Calls"), tick=charts.compact, height=180,
            words=words,
        ),
        "reasons": charts.ranking(
            [Rank(_reason(reason), n) for reason, n in found.reasons], title=_("Blocked by"), words=words
        ),
        "models": charts.ranking(
            [Rank(one.name, one.total) for one in charts.top_series(found.models, words=words) if one.total],
            title=_("Spend by model"), show=charts.dollars, words=words,
        ),
        "tags": charts.ranking(
            [Rank(tag or _("without a tag"), spent) for tag, spent in found.tags],
            title=_("Spend by feature"), show=charts.dollars, words=words,
        ),
        "margins": charts.ranking(
            [rank for margin in found.margins if (rank := _margin(margin)) is not None],
            title=_("Margin per plan"), show=charts.dollars, words=words,
        ),
    }  # fmt: skip
    if with_users:
        ranks = [
            Rank(str(one.user), one.cost_nusd, admin_url("enduser", "change", one.user_id, site=site))
            for one in found.top
        ]
        made["top"] = charts.ranking(ranks, title=_("Top users this month"), show=charts.dollars, words=words)
    return {name: safe(chart) for name, chart in made.items()}


def _reason(reason: str) -> str:
    return scope_label(reason) if reason else _("other reasons")


def _margin(margin: Margin) -> Rank | None:
    if margin.plan is None:
        return Rank(_("users without a plan"), margin.margin_nusd)
    note = _("%(count)s subscriptions, %(spend)s spent") % {
        "count": charts.number(margin.subscriptions), "spend": charts.dollars(margin.cost_nusd)
    }  # fmt: skip
    if not margin.is_comparable and margin.revenue_nano is not None:
        return Rank(margin.plan.label, -margin.cost_nusd, note=_("price in another currency; %s") % note)
    return Rank(margin.plan.label, margin.margin_nusd, note=note)
