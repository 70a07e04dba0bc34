"""Plans: the list, and the form with its dry run and its history."""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from paygent import charts
from paygent.core.models import PlanConfig
from paygent.core.plan import NUSD_PER_USD
from paygent.ledger import DEFAULT_PLAN
from paygent_django import services
from paygent_django.admin.base import PaygentAdmin, by, chosen_project, may
from paygent_django.admin.paging import address
from paygent_django.admin.plan_forms import PlanForms, is_default
from paygent_django.admin.plan_history import differences
from paygent_django.admin.shown import (
    Cell,
    Table,
    amount_of,
    badge,
    moment,
    price,
    row_of,
    scope_label,
)
from paygent_django.admin.words import _
from paygent_django.database import database_alias
from paygent_django.models import EndUser, Plan, PlanVersion, Project
from paygent_django.services import Blocked, ServiceError
from paygent_django.services._base import rows

BLOCKED_MAX = 100  # a list that one reads; more are counted up to BLOCKED_COUNTED
BLOCKED_COUNTED = 1000
VERSIONS_MAX = 50


class DryRun(NamedTuple):
    """Who would be blocked: those who are not now, and those who are already; ``more``: not all are shown."""

    table: Table
    new: int
    already: int
    more: bool


class PlanAdmin(PaygentAdmin):
    """Plans as a form; each save that changes something is a new version."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """As Django's permissions say."""
        return may(request, "add_plan")

    # -- the list -------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """All plans of the project by rank."""
        self.must_view(request)
        project = chosen_project(request)
        heads = (
            _("Plan"),
            _("Price"),
            "#" + _("Per period"),
            "#" + _("Per session"),
            _("Models"),
            "#" + _("Rank"),
            _("Version"),
            "",
        )
        found = [_row(plan) for plan in services.plans_of(project).select_related("current", "project")]
        empty = _("No plans yet: without one nobody is limited, and usage is only counted.")
        context = {
            "title": _("Plans"),
            "project": project,
            "table": Table(heads, found, empty=empty, title=_("Plans")),
            "add": self.url("add") + address({}, project=project.pk)
            if self.has_add_permission(request)
            else None,
            "add_label": _("Add a plan"),
        }
        return self.page(request, "listing.html", {**context, **(extra_context or {})})

    # -- the form -------------------------------------------------------------------------------------

    def add_view(self, request: HttpRequest, *_args: Any, **_more: Any) -> HttpResponse:
        """The form of a new plan."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        project = chosen_project(request)
        forms = PlanForms(None, request.POST if request.method == "POST" else None)
        if request.method == "POST" and forms.is_valid():
            name = forms.main.cleaned_data["name"]
            if services.find_plan(project, name) is not None:
                forms.put_error("name", _("There is a plan of this name already."))
            else:
                answer = self._save(request, project, forms)
                if answer is not None:
                    return answer
        context = {"title": _("Add a plan"), "project": project, "forms": forms, "may_save": True}
        return self.page(request, "plan.html", context)

    def change_view(self, request: HttpRequest, object_id: str, *_args: Any, **_more: Any) -> HttpResponse:
        """The form of a plan; ``dry_run`` says who would be blocked, and saves nothing."""
        plan = self.found(request, object_id)
        if isinstance(plan, HttpResponse):
            return plan
        dry_run, may_save = None, self.has_change_permission(request, plan)
        forms = PlanForms(plan, request.POST if request.method == "POST" else None)
        if request.method == "POST":
            if not may_save:
                raise PermissionDenied
            if forms.is_valid():
                if "dry_run" in request.POST:
                    dry_run = self._dry_run(request, plan, forms)
                else:
                    answer = self._save(request, plan.project, forms)
                    if answer is not None:
                        return answer
        context = {
            "title": plan.label,
            "subtitle": None,
            "project": plan.project,
            "original": plan,
            "forms": forms,
            "dry_run": dry_run,
            "may_save": may_save,
            "may_dry_run": may_save and may(request, "view_enduser"),
            "history": _history(plan),
        }
        return self.page(request, "plan.html", context)

    def _save(self, request: HttpRequest, project: Project, forms: PlanForms) -> HttpResponse | None:
        """Save it, and go to the plan; ``None`` where a service refused, which the forms then show."""
        name = forms.plan.name if forms.plan is not None else forms.main.cleaned_data["name"]
        try:
            with transaction.atomic(using=database_alias()):
                saved = services.save_plan(
                    project, name, forms.config, by=by(request), based_on=forms.based_on, **forms.said
                )
                _settle(project, saved.plan, forms.main.cleaned_data)
        except ServiceError as error:
            forms.put_error(error.field, error.message)
            return None
        said = (
            _("Saved.")
            if saved.number is None
            else _("Saved as version %s; it binds the next call everywhere.")
        )
        said = said if saved.number is None else said % saved.number
        log = self.log_addition if forms.plan is None else self.log_change
        log(request, saved.plan, said)
        messages.success(request, said)
        return HttpResponseRedirect(self.url("change", saved.plan.pk))

    def _dry_run(self, request: HttpRequest, plan: Plan, forms: PlanForms) -> DryRun | None:
        if not may(request, "view_enduser"):
            raise PermissionDenied
        try:
            config = PlanConfig.model_validate(forms.config)
        except ValueError as error:
            forms.put_error("config", str(error))
            return None
        return dry_run_of(plan, config)


def dry_run_of(plan: Plan, config: PlanConfig) -> DryRun:
    """Who would be blocked if *plan* said *config*; those that are newly blocked come first."""
    found = list(islice(services.would_block(plan, config), BLOCKED_COUNTED + 1))
    counted = found[:BLOCKED_COUNTED]
    ordered = sorted(counted, key=lambda one: one.was_blocked)
    users = _named(plan.project, [one.user_id for one in ordered[:BLOCKED_MAX]])
    heads = (_("User"), _("Limit"), "#" + _("Used"), "#" + _("Would be allowed"), "")
    shown = [_blocked(one, users.get(one.user_id)) for one in ordered[:BLOCKED_MAX]]
    new = sum(not one.was_blocked for one in counted)
    table = Table(heads, shown, empty=_("Nobody would be blocked."), title=_("Who would be blocked"))
    return DryRun(table, new, len(counted) - new, more=len(found) > len(shown))


def _named(project: Project, names: list[str]) -> dict[str, EndUser]:
    found = rows(EndUser).filter(project=project, external_user_id__in=names)
    return {one.external_user_id: one for one in found}


def _blocked(one: Blocked, user: EndUser | None) -> list[Cell]:
    to = None if user is None else row_of("enduser", user.pk)
    name = user.name if user is not None else ""
    return [
        Cell(name or one.user_id, to=to, kind="name", note=one.user_id if name else ""),
        Cell(scope_label(one.scope)),
        Cell(amount_of(one.scope, one.used), kind="num"), Cell(amount_of(one.scope, one.limit), kind="num"),
        badge("off", _("blocked already")) if one.was_blocked else badge("blocked", _("newly blocked")),
    ]  # fmt: skip


def _settle(project: Project, plan: Plan, said: dict[str, Any]) -> None:
    """Make the plan the default one or not, and archive it or not."""
    if said["is_archived"] != plan.is_archived:
        services.archive_plan(plan, said["is_archived"])
    if plan.name == DEFAULT_PLAN or said["is_default"] == (project.default_plan_id == plan.pk):
        return
    services.set_default_plan(project, plan if said["is_default"] else None)


def _row(plan: Plan) -> list[Cell]:
    to = row_of("plan", plan.pk)
    version, config = plan.current, plan.config
    note = plan.name if plan.label != plan.name else ""
    if version is None or config is None:
        return [
            Cell(plan.name, to=to, kind="name"),
            *[Cell()] * 5,
            Cell(_("not configured yet"), kind="muted"),
            Cell(),
        ]
    return [
        Cell(plan.label, to=to, kind="name", note=note),
        Cell(price(version.price_nano, version.currency, version.interval)),
        _cap(config.max_spend_per_period), _cap(config.max_spend_per_session),
        Cell(", ".join({**config.model_limits, **config.cost_rates}) or _("all"), kind="clip"),
        Cell(str(version.rank), kind="num"),
        Cell(f"{version.number}", note=moment(version.created_us, "j M Y").text),
        _mark(plan),
    ]  # fmt: skip


def _cap(cap_usd: float) -> Cell:
    if cap_usd == float("inf"):
        return Cell(_("unlimited"), kind="num muted")
    return Cell(charts.dollars(round(cap_usd * NUSD_PER_USD)), kind="num")


def _mark(plan: Plan) -> Cell:
    if plan.is_archived:
        return badge("off", _("archived"))
    return badge("ok", _("default")) if is_default(plan) else Cell()


def _history(plan: Plan) -> Table:
    """The versions, the newest first, each with what it changed."""
    found = list(rows(PlanVersion).filter(plan=plan).order_by("-number")[: VERSIONS_MAX + 1])
    shown = [
        [
            Cell(str(one.number)), moment(one.created_us), Cell(one.created_by or "\u2013"),
            Cell("; ".join(differences(before, one)) or _("first version"), kind="wide"),
        ]
        for one, before in zip(found, [*found[1:], None], strict=True)
    ]  # fmt: skip
    heads = (_("Version"), _("Saved"), _("By"), _("Changed"))
    return Table(heads, shown[:VERSIONS_MAX], empty=_("Never configured."), title=_("History"))
