"""Projects: the tenants of a served backend; an embedded app has one."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext_lazy as lazy

from paygent_django import services
from paygent_django.admin.base import PaygentAdmin, admin_url, may
from paygent_django.admin.paging import address, cursor_of, page_of
from paygent_django.admin.shown import Cell, Table, moment, row_of
from paygent_django.admin.words import _
from paygent_django.models import Project
from paygent_django.models.fields import escape
from paygent_django.services import ServiceError
from paygent_django.services._base import rows


class ProjectForm(forms.Form):
    """A new tenant."""

    name = forms.CharField(label=lazy("Name"), max_length=200)


class ProjectAdmin(PaygentAdmin):
    """Tenants; each one's plans, users and events are its own."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """As Django's permissions say."""
        return may(request, "add_project")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The newest projects, each leading to its overview."""
        self.must_view(request)
        query = request.GET.get("q", "").strip()[:200]
        found = rows(Project).select_related("default_plan__current")
        found = found.filter(name__startswith=escape(query)) if query else found
        page = page_of(found, cursor_of(request.GET.get("after")), by="pk")
        heads = (_("Project"), _("Default plan"), _("Made"))
        given = {"q": query}
        context = {
            "title": _("Projects"),
            "project": None,
            "query": query,
            "search_hint": _("Beginning of the name"),
            "table": Table(
                heads, [_row(one) for one in page.rows], empty=_("No projects."), title=_("Projects")
            ),
            "older": address(given, after=page.older) if page.older else None,
            "newest": address(given) if request.GET.get("after") else None,
            "add": self.url("add") if self.has_add_permission(request) else None,
            "add_label": _("Add a project"),
        }
        return self.page(request, "listing.html", {**context, **(extra_context or {})})

    def add_view(self, request: HttpRequest, *_args: Any, **_more: Any) -> HttpResponse:
        """Make a project."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = ProjectForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            try:
                made = services.create_project(form.cleaned_data["name"])
            except ServiceError as error:
                form.add_error("name", error.message)
            else:
                self.log_addition(request, made, _("Made."))
                return HttpResponseRedirect(self.url("changelist"))
        context = {"title": _("Add a project"), "project": None, "form": form, "submit": _("Add")}
        return self.page(request, "simple_form.html", context)

    def change_view(self, request: HttpRequest, object_id: str, *_args: Any, **_more: Any) -> HttpResponse:
        """A project's page is its overview."""
        found = self.found(request, object_id)
        if isinstance(found, HttpResponse):
            return found
        overview = admin_url("dailyusage", "changelist", site=self.admin_site.name)
        return HttpResponseRedirect(overview + address({}, project=found.pk))


def _row(one: Project) -> list[Cell]:
    plan = one.default_plan
    return [
        Cell(one.name, to=row_of("project", one.pk), kind="name"),
        Cell(plan.label if plan else "\u2013"),
        moment(one.created_us, "j M Y"),
    ]
