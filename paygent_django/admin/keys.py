"""API keys: shown once when they are made, never again; revoked rather than deleted."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils.translation import gettext_lazy as lazy

from paygent_django import services
from paygent_django.admin.base import Action, PaygentAdmin, chosen_project, may
from paygent_django.admin.paging import address
from paygent_django.admin.shown import Cell, Table, badge, moment
from paygent_django.admin.words import _
from paygent_django.models import ApiKey
from paygent_django.services._base import rows

KEYS_MAX = 500


class KeyForm(forms.Form):
    """What a new key may do."""

    name = forms.CharField(label=lazy("Name"), max_length=200, help_text=lazy("Where it will be used."))
    scopes = forms.MultipleChoiceField(
        label=lazy("May"), widget=forms.CheckboxSelectMultiple, initial=["read", "ingest"],
        choices=[
            ("read", lazy("read plans and usage")), ("ingest", lazy("meter calls")),
            ("admin", lazy("change plans and users")),
        ],
    )  # fmt: skip
    kind = forms.ChoiceField(
        label=lazy("Kind"), choices=[("live", lazy("live")), ("test", lazy("test"))], initial="live"
    )


class ApiKeyAdmin(PaygentAdmin):
    """The keys of a project."""

    def get_urls(self) -> list[Any]:
        """Revoke, before Django's own addresses."""
        own = path("<int:pk>/revoke/", self.view(self.revoke), name="paygent_django_apikey_revoke")
        return [own, *super().get_urls()]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """As Django's permissions say."""
        return may(request, "add_apikey")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The newest keys first, with a button for each that is still valid."""
        self.must_view(request)
        project = chosen_project(request)
        found = list(rows(ApiKey).filter(project=project).order_by("-pk")[:KEYS_MAX])
        may_revoke = may(request, "change_apikey")
        buttons = [self.url("revoke", key.pk) if may_revoke and not key.is_revoked else None for key in found]
        heads = (_("Name"), _("Begins with"), _("May"), _("Kind"), _("Made"), _("Last used"), _("State"))
        empty = _("No keys: an app that runs Paygent in its own process needs none.")
        context = {
            "title": _("API keys"),
            "project": project,
            "table": Table(heads, [_row(key) for key in found], empty=empty, title=_("API keys")),
            "buttons": buttons if may_revoke else None,
            "button_label": _("Revoke"),
            "button_warning": _("Revoke for good"),
            "add": self.url("add") + address({}, project=project.pk)
            if self.has_add_permission(request)
            else None,
            "add_label": _("Make a key"),
        }
        return self.page(request, "listing.html", {**context, **(extra_context or {})})

    def add_view(self, request: HttpRequest, *_args: Any, **_more: Any) -> HttpResponse:
        """Make a key; the answer to that is the only page that ever shows it."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        project = chosen_project(request)
        form = KeyForm(request.POST if request.method == "POST" else None)
        context = {"title": _("Make a key"), "project": project, "form": form, "submit": _("Make the key")}
        if request.method != "POST" or not form.is_valid():
            return self.page(request, "simple_form.html", context)
        said = form.cleaned_data
        made = services.create_key(project, said["name"], scopes=said["scopes"], live=said["kind"] == "live")
        self.log_addition(request, made.row, _("Made."))
        shown = {"title": _("Your new key"), "secret": made.secret, "secret_name": made.row.name}
        return self.page(request, "secret.html", {**context, **shown})

    def change_view(self, request: HttpRequest, *_args: Any, **_more: Any) -> HttpResponse:
        """A key has no page of its own: there is nothing to see."""
        return self.changelist_view(request)

    def revoke(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Have a key open nothing from now on."""
        key = self.found(request, pk)
        if isinstance(key, HttpResponse):
            return key
        back = self.url("changelist") + address({}, project=key.project_id)
        return self.act(request, key, Action(("change_apikey",), _revoke), back=back)


def _revoke(_request: HttpRequest, key: ApiKey) -> str:
    services.revoke(key)
    return _("The key %s opens nothing any more.") % str(key.name or key.lookup)


def _row(key: ApiKey) -> list[Cell]:
    return [
        Cell(key.name or "\u2013", kind="name"),
        Cell(f"{key.lookup}\u2026", kind="code"),
        Cell(", ".join(key.scopes)),
        Cell(_("live") if key.is_live else _("test")),
        moment(key.created_us, "j M Y"),
        moment(key.last_used_us),
        badge("off", _("revoked")) if key.is_revoked else badge("ok", _("valid")),
    ]
