"""Webhook endpoints with their delivery log and a test button."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path
from django.utils.translation import gettext_lazy as lazy

from paygent_django import webhooks
from paygent_django.admin.base import Action, PaygentAdmin, admin_url, chosen_project, may
from paygent_django.admin.events import LedgerAdmin
from paygent_django.admin.paging import Page, address, cursor_of, page_of
from paygent_django.admin.shown import Cell, Table, badge, count, instant, moment, row_of
from paygent_django.admin.words import _
from paygent_django.models import WebhookDelivery, WebhookEndpoint
from paygent_django.services import ServiceError
from paygent_django.services._base import rows

ENDPOINTS_MAX = 500


class EndpointForm(forms.Form):
    """Where to tell of what; no event chosen means all of them."""

    url = forms.CharField(label=lazy("Address"), max_length=2000, widget=forms.URLInput)
    events = forms.MultipleChoiceField(
        label=lazy("Events"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        choices=[(event, event.replace("_", " ")) for event in webhooks.EVENTS],
        help_text=lazy("None chosen: all of them."),
    )
    description = forms.CharField(label=lazy("Description"), max_length=200, required=False)
    is_enabled = forms.BooleanField(label=lazy("Enabled"), required=False, initial=True)


class WebhookEndpointAdmin(PaygentAdmin):
    """Addresses that are told of events."""

    def get_urls(self) -> list[Any]:
        """The test, before Django's own addresses."""
        own = path("<int:pk>/test/", self.view(self.test), name="paygent_django_webhookendpoint_test")
        return [own, *super().get_urls()]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """As Django's permissions say."""
        return may(request, "add_webhookendpoint")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """All addresses of the project."""
        self.must_view(request)
        project = chosen_project(request)
        found = list(rows(WebhookEndpoint).filter(project=project).order_by("-pk")[:ENDPOINTS_MAX])
        heads = (_("Address"), _("Description"), _("Events"), _("Added"), _("State"))
        context = {
            "title": _("Webhooks"),
            "project": project,
            "table": Table(
                heads,
                [_row(one) for one in found],
                empty=_("Nobody is told of anything yet."),
                title=_("Webhooks"),
            ),
            "add": self.url("add") + address({}, project=project.pk)
            if self.has_add_permission(request)
            else None,
            "add_label": _("Add an address"),
        }
        return self.page(request, "listing.html", {**context, **(extra_context or {})})

    def add_view(self, request: HttpRequest, *_args: Any, **_more: Any) -> HttpResponse:
        """Add an address; the answer to that is the only page that shows its secret."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        project = chosen_project(request)
        form = EndpointForm(request.POST if request.method == "POST" else None)
        context = {"title": _("Add an address"), "project": project, "form": form, "submit": _("Add")}
        if request.method == "POST" and form.is_valid():
            try:
                made = webhooks.create_endpoint(project, **form.cleaned_data)
            except ServiceError as error:
                _mark(form, error)
            else:
                self.log_addition(request, made, _("Added."))
                shown = {
                    "title": _("The secret of the new address"),
                    "secret": made.secret,
                    "secret_name": made.url,
                }
                return self.page(request, "secret.html", {**context, **shown})
        return self.page(request, "simple_form.html", context)

    def change_view(self, request: HttpRequest, object_id: str, *_args: Any, **_more: Any) -> HttpResponse:
        """The form of an address, a button to try it, and what was delivered."""
        endpoint = self.found(request, object_id)
        if isinstance(endpoint, HttpResponse):
            return endpoint
        may_change = self.has_change_permission(request, endpoint)
        sent = request.POST if request.method == "POST" else None
        names = ("url", "events", "description", "is_enabled")
        form = EndpointForm(sent, initial={name: getattr(endpoint, name) for name in names})
        if sent is not None:
            if not may_change:
                raise PermissionDenied
            answer = self._change(request, endpoint, form) if form.is_valid() else None
            if answer is not None:
                return answer
        page = deliveries_of(endpoint, request.GET.get("after"))
        context = {
            "title": _("Webhook"),
            "project": endpoint.project,
            "original": endpoint,
            "form": form if may_change else None,
            "submit": _("Save"),
            "test_url": self.url("test", endpoint.pk) if may_change else None,
            "table": _deliveries(page.rows) if may(request, "view_webhookdelivery") else None,
            "older": address({}, after=page.older) if page.older else None,
            "newest": address({}) if request.GET.get("after") else None,
        }
        return self.page(request, "simple_form.html", context)

    def _change(self, request: HttpRequest, endpoint: Any, form: forms.Form) -> HttpResponse | None:
        try:
            webhooks.change_endpoint(endpoint, **form.cleaned_data)
        except ServiceError as error:
            _mark(form, error)
            return None
        self.log_change(request, endpoint, _("Changed."))
        messages.success(request, _("Saved."))
        return HttpResponseRedirect(self.url("change", endpoint.pk))

    def test(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Send something that means nothing."""
        endpoint = self.found(request, pk)
        if isinstance(endpoint, HttpResponse):
            return endpoint
        back = self.url("change", endpoint.pk)
        return self.act(request, endpoint, Action(("change_webhookendpoint",), _test), back=back)


class WebhookDeliveryAdmin(LedgerAdmin):
    """What was sent, and how that went."""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The newest deliveries of the project."""
        self.must_view(request)
        project = chosen_project(request)
        found = rows(WebhookDelivery).filter(endpoint__project=project).select_related("endpoint")
        page = page_of(found, cursor_of(request.GET.get("after")), by="pk")
        query = {"project": str(project.pk)}
        context = {
            "title": _("Deliveries"),
            "project": project,
            "table": _deliveries(page.rows),
            "older": address(query, after=page.older) if page.older else None,
            "newest": address(query) if request.GET.get("after") else None,
        }
        return self.page(request, "listing.html", {**context, **(extra_context or {})})

    def change_view(self, request: HttpRequest, object_id: str, *_args: Any, **_more: Any) -> HttpResponse:
        """A delivery is a line of its address's page."""
        found = self.found(request, object_id)
        if isinstance(found, HttpResponse):
            return found
        return HttpResponseRedirect(
            admin_url("webhookendpoint", "change", found.endpoint_id, site=self.admin_site.name)
        )


def deliveries_of(endpoint: WebhookEndpoint, after: str | None) -> Page:
    """The newest deliveries to an address."""
    found = rows(WebhookDelivery).filter(endpoint=endpoint).select_related("endpoint")
    return page_of(found, cursor_of(after), by="pk", size=25)


def _test(_request: HttpRequest, endpoint: WebhookEndpoint) -> str:
    webhooks.send_test(endpoint)
    return _("A test is on its way: how it went is in the log below in a moment.")


def _mark(form: forms.Form, error: ServiceError) -> None:
    """Say what a service refused at the field it names."""
    field = error.field.partition(".")[0]
    form.add_error(field if field in form.fields else None, error.message)


def _row(one: WebhookEndpoint) -> list[Cell]:
    events = ", ".join(event.replace("_", " ") for event in one.events) or _("all")
    return [
        Cell(one.url, to=row_of("webhookendpoint", one.pk), kind="name"),
        Cell(one.description),
        Cell(events),
        moment(one.created_us, "j M Y"),
        badge("ok", _("enabled")) if one.is_enabled else badge("off", _("off")),
    ]


def _deliveries(found: list[WebhookDelivery]) -> Table:
    heads = (_("Queued"), _("Address"), _("Event"), _("State"), "#" + _("Tries"), _("Answer"), _("Next try"))
    shown = [
        [
            instant(one.created_us),
            Cell(one.endpoint.url, kind="clip"),
            Cell(one.event.replace("_", " ")),
            _state(one),
            count(one.attempts),
            Cell(str(one.response_status or ""), note=one.last_error[:200]),
            Cell() if one.next_attempt_us is None or one.delivered_us else moment(one.next_attempt_us),
        ]
        for one in found
    ]
    return Table(heads, shown, empty=_("Nothing was sent yet."), title=_("Deliveries"))


def _state(one: WebhookDelivery) -> Cell:
    if one.delivered_us is not None:
        return badge("ok", _("delivered"))
    return badge("soft", _("waiting")) if one.next_attempt_us is not None else badge("blocked", _("given up"))
