"""The ledger's own pages: events, decisions and leases, to be read and never edited."""

from __future__ import annotations

from datetime import date, datetime, time, timezone
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path
from django.utils.dateparse import parse_date

from paygent import charts
from paygent.core.windows import to_us
from paygent_django import services
from paygent_django.admin.base import Action, PaygentAdmin, by, chosen_project, may, require
from paygent_django.admin.exports import FORMATS, streamed
from paygent_django.admin.ledger_tables import (
    decision_of,
    events_table,
    gates_table,
    leases_table,
    source_of,
    user_cell,
)
from paygent_django.admin.overview import DAY_US
from paygent_django.admin.paging import address, cursor_of, key_of, page_of
from paygent_django.admin.shown import Cell, instant, money
from paygent_django.admin.words import _
from paygent_django.models import EndUser, GateEvent, Lease, Project, UsageEvent
from paygent_django.models.usage import CORRECTION
from paygent_django.services._base import now_us, rows

_HIDDEN = {"id", "project", "user", "plan", "timestamp_us", "received_us"}
_ID_MAX = 100


class LedgerAdmin(PaygentAdmin):
    """Rows that nobody edits: neither here nor anywhere else."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002  # Django's
        """The ledger is append-only."""
        return False


class UsageEventAdmin(LedgerAdmin):
    """Metered calls, the newest first; a refund is a new row."""

    def get_urls(self) -> list[Any]:
        """Refund and export, before Django's own addresses."""
        own = [
            path("<int:pk>/refund/", self.view(self.refund), name="paygent_django_usageevent_refund"),
            path("export/<slug:kind>/", self.view(self.export), name="paygent_django_usageevent_export"),
        ]
        return [*own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The newest events of the project, of one day or of one user; an id is found at once."""
        self.must_view(request)
        project, given = chosen_project(request), filters(request)
        chosen = choose(UsageEvent, project, given, id_field="event_id")
        page = page_of(chosen.select_related("user"), cursor_of(request.GET.get("after")), by="timestamp_us")
        query = {"project": str(project.pk), **given}
        context = {
            "title": _("Events"),
            "table": events_table(page.rows, with_user=True),
            "exports": [
                {"label": kind.upper(), "url": self.url("export", kind) + address(query)} for kind in FORMATS
            ],
            **_listing(request, project, query, page.older, _("Id of an event")),
        }
        return self.page(request, "listing.html", {**context, **(extra_context or {})})

    def change_view(self, request: HttpRequest, object_id: str, *_args: Any, **_more: Any) -> HttpResponse:
        """Every field of one event, and the button to refund it."""
        event = self.found(request, object_id)
        if isinstance(event, HttpResponse):
            return event
        correction = rows(UsageEvent).filter(project_id=event.project_id, corrects=event.event_id)
        # only a user's own events are looked through, and only the younger ones
        refunded = correction.filter(user_id=event.user_id, timestamp_us__gte=event.timestamp_us).first()
        context = {
            "title": _("Event"),
            "project": event.project,
            "original": event,
            "row": event,
            "lead": [
                (_("Time"), instant(event.timestamp_us)),
                (_("User"), user_cell(event.user)),
                (_("Plan"), Cell(event.plan.label if event.plan else "\u2013")),
                (_("Cost"), money(event.cost_nusd, "")),
                (_("Source"), source_of(event)),
                (_("Received"), instant(event.received_us)),
            ],
            "fields": _fields(event),
            "refunded": None if refunded is None else self.url("change", refunded.pk),
            "can_refund": refunded is None and event.source != CORRECTION and may(request, "add_usageevent"),
            "refund_url": self.url("refund", event.pk),
        }
        return self.page(request, "row.html", context)

    def refund(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Take one event back by a correcting row."""
        event = self.found(request, pk)
        if isinstance(event, HttpResponse):
            return event
        return self.act(
            request, event, Action(("add_usageevent",), _refund), back=self.url("change", event.pk)
        )

    def export(self, request: HttpRequest, kind: str) -> HttpResponse:
        """The events that the list shows, all pages of them, as a file."""
        require(request, "view_usageevent")
        if kind not in FORMATS:
            raise Http404
        chosen = choose(UsageEvent, chosen_project(request), filters(request), id_field="event_id")
        return streamed(request, chosen, kind)


class GateEventAdmin(LedgerAdmin):
    """Decisions of the gate other than *ok*, the newest first."""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The newest decisions of the project, of one day or of one user."""
        self.must_view(request)
        project, given = chosen_project(request), filters(request)
        chosen = choose(GateEvent, project, given, id_field="gate_id")
        page = page_of(chosen.select_related("user"), cursor_of(request.GET.get("after")), by="timestamp_us")
        query = {"project": str(project.pk), **given}
        context = {
            "title": _("Decisions"),
            "table": gates_table(page.rows, with_user=True),
            **_listing(request, project, query, page.older, _("Id of a decision")),
        }
        return self.page(request, "listing.html", {**context, **(extra_context or {})})

    def change_view(self, request: HttpRequest, object_id: str, *_args: Any, **_more: Any) -> HttpResponse:
        """Every field of one decision."""
        gate = self.found(request, object_id)
        if isinstance(gate, HttpResponse):
            return gate
        lead = [
            (_("Time"), instant(gate.timestamp_us)),
            (_("User"), user_cell(gate.user)),
            (_("Decision"), decision_of(gate)),
        ]
        context = {
            "title": _("Decision"), "project": gate.project, "original": gate, "row": gate, "lead": lead,
            "fields": _fields(gate),
        }  # fmt: skip
        return self.page(request, "row.html", context)


class LeaseAdmin(LedgerAdmin):
    """What processes hold at the moment, with its age."""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The leases that were renewed last, first."""
        self.must_view(request)
        project = chosen_project(request)
        chosen = rows(Lease).filter(user__project=project).select_related("user")
        page = page_of(chosen, cursor_of(request.GET.get("after")), by="expires_us")
        query = {"project": str(project.pk)}
        context = {
            "title": _("Leases"),
            "intro": _(
                "A lease is what a process holds on a user's budget, for calls in flight and the next ones. "
                "It ends 30 seconds after its last renewal, also when its process died."
            ),
            "table": leases_table(page.rows, now_us(), with_user=True),
            "project": project,
            "older": address(query, after=page.older) if page.older else None,
            "newest": address(query) if request.GET.get("after") else None,
        }
        return self.page(request, "listing.html", {**context, **(extra_context or {})})

    def change_view(self, request: HttpRequest, *_args: Any, **_more: Any) -> HttpResponse:
        """A lease has no page of its own: it is gone within seconds."""
        return self.changelist_view(request)


def _refund(request: HttpRequest, event: UsageEvent) -> str:
    made = services.refund(event, reason=request.POST.get("reason", "")[:500], by=by(request))
    return _("Refunded %s by a correcting row.") % charts.dollars(-made.cost_nusd)


def filters(request: HttpRequest) -> dict[str, str]:
    """What a list is narrowed to, as the address says it."""
    given = {name: request.GET.get(name, "").strip()[:_ID_MAX] for name in ("q", "user", "from", "until")}
    return {name: value for name, value in given.items() if value}


def choose(model: Any, project: Project, given: dict[str, str], *, id_field: str) -> Any:
    """The rows that *given* asks for; each condition is one that an index answers."""
    found = rows(model).filter(project=project)
    if "q" in given:
        return found.filter(**{id_field: given["q"]})
    user_pk = key_of(given.get("user"))
    if user_pk is not None:
        # by the user alone: his index is the narrower one, and a user has one project
        found = rows(model).filter(user_id=user_pk, user__project=project)
    begin, end = _day(given.get("from")), _day(given.get("until"))
    if begin is not None:
        found = found.filter(timestamp_us__gte=_start_us(begin))
    if end is not None:
        found = found.filter(timestamp_us__lt=_start_us(end) + DAY_US)
    return found


def _day(text: str | None) -> date | None:
    try:
        return parse_date(text) if text else None
    except ValueError:  # well formed, but no day: 2026-02-30
        return None


def _start_us(day: date) -> int:
    return to_us(datetime.combine(day, time(), timezone.utc))


def _listing(
    request: HttpRequest, project: Project, query: dict[str, str], older: object, hint: str
) -> dict[str, Any]:
    user_pk = key_of(query.get("user"))
    found = None if user_pk is None else rows(EndUser).filter(pk=user_pk, project=project).first()
    return {
        "project": project,
        "query": query.get("q", ""),
        "search_hint": hint,
        "with_days": True,
        "query_values": query,
        "only_user": found,
        "all_users": address(query, user=None),
        "older": address(query, after=older) if older else None,
        "newest": address(query) if request.GET.get("after") else None,
    }


def _fields(row: Any) -> list[tuple[str, str]]:
    """Every field that is not shown on top, as text."""
    shown = []
    for field in row._meta.fields:
        if field.name in _HIDDEN:
            continue
        value = getattr(row, field.attname)
        shown.append((str(field.verbose_name), "\u2013" if value in (None, "") else str(value)))
    return shown
