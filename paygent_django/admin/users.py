"""End users: the list with their bars, and the page of one."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import path

from paygent.core.plan import TOTAL_SPEND
from paygent.core.windows import from_us
from paygent_django import services
from paygent_django.admin import user_actions, user_page
from paygent_django.admin.base import PaygentAdmin, chosen_project, may, require
from paygent_django.admin.exports import user_file
from paygent_django.admin.paging import Cursor, Page, address, cursor_of, page_of
from paygent_django.admin.shown import Cell, Table, lined_up, moment, money, row_of, state_cell, tightest
from paygent_django.admin.words import _
from paygent_django.models import EndUser, Project, UserUsage
from paygent_django.models.fields import escape
from paygent_django.models.moments import now_us
from paygent_django.services import Usage
from paygent_django.services._base import rows

QUERY_MAX = 200


class EndUserAdmin(PaygentAdmin):
    """Users with their plan, usage, state and reset date; what can be done to one is on his page."""

    def get_urls(self) -> list[Any]:
        """The actions of a user, before Django's own addresses."""
        own = [
            path("<int:pk>/do/<slug:action>/", self.view(self.do), name="paygent_django_enduser_do"),
            path("<int:pk>/export/", self.view(self.export), name="paygent_django_enduser_export"),
        ]
        return [*own, *super().get_urls()]

    # -- the list -------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The newest users, or those who spend most, or those that the search finds."""
        self.must_view(request)
        project, query = chosen_project(request), request.GET.get("q", "").strip()[:QUERY_MAX]
        by_spend = request.GET.get("by") == "spend" and not query
        page = _page(project, query, request.GET.get("after"), by_spend=by_spend)
        given = {"project": str(project.pk), "q": query, "by": "spend" if by_spend else ""}
        context = {
            "title": _("Users"),
            "project": project,
            "query": query,
            "search_hint": _("Beginning of the id or e-mail address, or any part of the name"),
            "views": [
                {
                    "label": _("Newest"),
                    "url": address(given, by=None, q=None),
                    "active": not by_spend and not query,
                },
                {
                    "label": _("Top spenders this month"),
                    "url": address(given, by="spend", q=None),
                    "active": by_spend,
                },
            ],
            "table": _table(project, page.rows, empty=_empty(query)),
            "older": address(given, after=page.older) if page.older else None,
            "newest": address(given) if request.GET.get("after") else None,
        }
        return self.page(request, "listing.html", {**context, **(extra_context or {})})

    # -- one user -------------------------------------------------------------------------------------

    def change_view(self, request: HttpRequest, object_id: str, *_args: Any, **_more: Any) -> HttpResponse:
        """Limits, session, events, decisions and leases of one user."""
        user = self.found(request, object_id)
        if isinstance(user, HttpResponse):
            return user
        context = user_page.context(user, request.GET, _seen(request))
        context["forms"] = user_actions.forms_for(request, user)
        context["can_export"] = may(request, "view_enduser", "view_usageevent", "view_gateevent")
        return self.page(request, "user.html", context)

    def do(self, request: HttpRequest, pk: int, action: str) -> HttpResponse:
        """Run one action on a user."""
        user = self.found(request, pk)
        if isinstance(user, HttpResponse):
            return user
        if action not in user_actions.ACTIONS:
            raise PermissionDenied
        return self.act(request, user, user_actions.ACTIONS[action], back=self.url("change", user.pk))

    def export(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Everything that is kept of a user, as a file of JSON."""
        require(request, "view_enduser", "view_usageevent", "view_gateevent")
        user = self.found(request, pk)
        if isinstance(user, HttpResponse):
            return user
        # a GET, but one that somebody should be able to ask about later
        self.log_change(request, user, _("Exported everything that is kept of the user."))
        return user_file(request, user)


def _seen(request: HttpRequest) -> frozenset[str]:
    """Which of the tables on a user's page the signed-in may see."""
    shown = ("usageevent", "gateevent", "lease", "grant", "subscription")
    return frozenset(name for name in shown if may(request, get_permission_codename("view", _Named(name))))


class _Named:
    """What ``get_permission_codename`` wants to know of a model."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name


def _page(project: Project, query: str, after: str | None, *, by_spend: bool) -> Page:
    cursor = cursor_of(after)
    if by_spend:
        month = from_us(now_us()).date().replace(day=1)
        top = rows(UserUsage).filter(project=project, grain=UserUsage.MONTH, starts=month)
        page = page_of(top.prefetch_related("user"), cursor, by="cost_nusd")
        return Page([one.user for one in page.rows], page.older)
    users = rows(EndUser).filter(project=project).select_related("project")
    return _found(users, escape(query), cursor) if query else page_of(users, cursor, by="pk")


def _found(users: Any, stored: str, cursor: Cursor | None) -> Page:
    """
    Whom a search finds; *stored* is the text as it is stored, for patterns are compared with that.

    An address is looked for through indexes alone (with PostgreSQL), and in names only where that is in vain.
    """
    begins = Q(external_user_id__startswith=stored) | Q(email__istartswith=stored)
    if "@" in stored and users.filter(begins).exists():
        return page_of(users.filter(begins), cursor, by="pk")
    return page_of(users.filter(begins | Q(name__icontains=stored)), cursor, by="pk")


def _table(project: Project, users: list[EndUser], empty: str) -> Table:
    heads = (_("User"), _("Plan"), _("State"), _("Usage"), "#" + _("Spent"), _("Resets"))
    labels = {plan.name: plan.label for plan in services.plans_of(project)} if users else {}
    usages = services.usage_of_many(users) if users else []
    rows = lined_up([_row(usage, labels) for usage in usages], column=-2)
    return Table(heads, rows, empty=empty, title=_("Users"))


def _row(usage: Usage, labels: dict[str, str]) -> list[Cell]:
    user, bar = usage.user, tightest(usage)
    note = user.external_user_id if user.name else user.email
    said = bar.text if bar.scope == TOTAL_SPEND else f"{bar.label}: {bar.text}"
    return [
        Cell(str(user), to=row_of("enduser", user.pk), kind="name", note=note),
        Cell(labels.get(usage.plan, usage.plan)),
        state_cell(usage),
        Cell(markup=bar.markup, note=said, kind="bar"),
        money(usage.cost_nusd),
        moment(usage.window.end_us, "j M Y"),
    ]


def _empty(query: str) -> str:
    if query:
        return _("No user is found by that.")
    return _("No users yet: a user appears here with the first call that is made for them.")
