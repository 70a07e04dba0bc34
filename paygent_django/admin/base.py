"""What all pages of the admin share: closed by default, one look, one way to change things."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy

from paygent_django.admin.paging import address, key_of
from paygent_django.database import database_alias
from paygent_django.models import Project
from paygent_django.services import ServiceError
from paygent_django.services import project as default_project
from paygent_django.services._base import rows

APP = "paygent_django"
# The pages in the order of a morning's look: the model whose list it is, and its name.
TABS = (
    ("dailyusage", gettext_lazy("Overview")),
    ("enduser", gettext_lazy("Users")),
    ("plan", gettext_lazy("Plans")),
    ("usageevent", gettext_lazy("Events")),
    ("gateevent", gettext_lazy("Decisions")),
    ("lease", gettext_lazy("Leases")),
    ("apikey", gettext_lazy("API keys")),
    ("webhookendpoint", gettext_lazy("Webhooks")),
    ("project", gettext_lazy("Projects")),
)


class Action(NamedTuple):
    """What a button does: the permissions it needs, and what it runs; that returns what to say."""

    needs: tuple[str, ...]
    run: Callable[[HttpRequest, Any], str]


class PaygentAdmin(admin.ModelAdmin):
    """
    A page of lists and one of a row, drawn by ourselves so that no list is counted.

    Nothing can be added, changed or deleted by Django's own forms; what can be done are actions, each of
    which names the permissions it needs.
    """

    show_full_result_count = False
    actions = None
    stylesheets = ("paygent/charts.css", "paygent/admin.css")

    def get_queryset(self, request: HttpRequest) -> Any:  # noqa: ARG002  # Django's signature
        """The rows of Paygent's own database."""
        return rows(self.model)

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002  # Django's
        """Closed, unless a page says otherwise."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002  # Django's
        """Closed, unless a page says otherwise."""
        return False

    # -- pages ----------------------------------------------------------------------------------------

    def page(
        self, request: HttpRequest, template: str, context: Mapping[str, Any], *, status: int = 200
    ) -> TemplateResponse:
        """A page below our tabs; never kept by a cache."""
        model = self.model._meta.model_name
        project = context.get("project")
        shared = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "stylesheets": self.stylesheets,
            "tabs": tabs(request, self.admin_site, model, project),
            "projects": several_projects(project),
            "list_url": self.url("changelist"),
        }
        response = TemplateResponse(
            request, f"paygent/admin/{template}", {**shared, **context}, status=status
        )
        response["Cache-Control"] = "no-store, private"
        return response

    def url(self, page: str, *arguments: object) -> str:
        """The address of one of this model's pages."""
        return admin_url(self.model._meta.model_name, page, *arguments, site=self.admin_site.name)

    def found(self, request: HttpRequest, object_id: object) -> Any:
        """The row of an address, or a redirect for one that is not there; raises if he may not see it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        key = str(object_id)
        row = None if _is_no_key(key) else self.get_object(request, unquote(key))
        return row if row is not None else self._get_obj_does_not_exist_redirect(request, self.opts, key)

    def must_view(self, request: HttpRequest) -> None:
        """Raise :class:`PermissionDenied` for whoever may not see this model."""
        if not self.has_view_permission(request):
            raise PermissionDenied

    # -- actions --------------------------------------------------------------------------------------

    def act(self, request: HttpRequest, row: Any, action: Action, *, back: str) -> HttpResponse:
        """Do it, say so, write it into Django's log, and go *back*; a refusal of the service is said too."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        require(request, *action.needs)
        try:
            said = action.run(request, row)
        except ServiceError as error:
            messages.error(request, f"{error.field}: {error.message}")
            return HttpResponseRedirect(back)
        self.log_change(request, row, said)
        messages.success(request, said)
        return HttpResponseRedirect(back)

    def view(self, view: Callable[..., Any]) -> Any:
        """A view of the site: signed in, and outside of ``ATOMIC_REQUESTS``, as the ledger wants it."""
        alone = transaction.non_atomic_requests(self.admin_site.admin_view(view))
        return transaction.non_atomic_requests(database_alias())(alone)


def _is_no_key(key: str) -> bool:
    """SQLite raises where it is asked for a number that it cannot hold."""
    text = unquote(key).strip()
    return text.isdecimal() and (len(text) > 19 or int(text) >= 1 << 63)


def admin_url(model: str | None, page: str, *arguments: object, site: str) -> str:
    """The address of a page in the admin site of that name."""
    return str(reverse(f"admin:{APP}_{model}_{page}", args=arguments, current_app=site))


def tabs(request: HttpRequest, site: Any, active: str | None, project: Any) -> list[dict[str, Any]]:
    """The pages that whoever is signed in may see; those of other projects keep the project chosen."""
    shown = []
    for model, label in TABS:
        found = _registered(site, model)
        if found is not None and found.has_view_permission(request):
            query = address({}, project=project.pk) if project is not None and model != "project" else ""
            shown.append(
                {"label": str(label), "url": found.url("changelist") + query, "active": model == active}
            )
    return shown


def _registered(site: Any, name: str) -> Any:
    return next(
        (
            one
            for model, one in site._registry.items()
            if model._meta.app_label == APP and model._meta.model_name == name
        ),
        None,
    )


def require(request: HttpRequest, *needs: str) -> None:
    """Raise :class:`PermissionDenied` unless whoever is signed in holds all of these permissions of ours."""
    if not may(request, *needs):
        raise PermissionDenied


def may(request: HttpRequest, *needs: str) -> bool:
    """Whether whoever is signed in holds all of these permissions, such as ``add_grant``."""
    return bool(request.user.has_perms([f"{APP}.{need}" for need in needs]))


def by(request: HttpRequest) -> str:
    """Who did it, for the record."""
    return str(request.user.get_username())


def chosen_project(request: HttpRequest) -> Project:
    """The project of ``?project=``, else the first; an empty database gets the one of an embedded app."""
    given = key_of(request.GET.get("project"))
    known = rows(Project).order_by("pk")
    found: Project | None = None if given is None else known.filter(pk=given).first()
    return found or known.first() or default_project()


def several_projects(project: Any) -> bool:
    """Whether a page has to say of which project it is."""
    return project is not None and rows(Project).exclude(pk=project.pk).exists()
