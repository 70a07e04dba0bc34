"""What can be done to one user: small forms, each with the permissions it needs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from paygent import charts
from paygent.core.plan import NUSD_PER_USD
from paygent_django import services
from paygent_django.admin.base import Action, by, may
from paygent_django.admin.words import _
from paygent_django.models import EndUser, Plan
from paygent_django.services import ServiceError
from paygent_django.services.grants import GRANT_MAX_NUSD

DEFAULT = ""  # the choice of no plan of one's own


class PlanChoice(forms.Form):
    """Another plan for the user."""

    plan = forms.ChoiceField(label=gettext_lazy("Plan"), required=False)

    def __init__(self, *args: Any, user: EndUser, **more: Any) -> None:
        super().__init__(*args, **more)
        self.plans = {str(plan.pk): plan for plan in _offered(user)}
        named = [(pk, plan.label) for pk, plan in self.plans.items()]
        self.fields["plan"].choices = [(DEFAULT, _("Default plan")), *named]

    @property
    def chosen(self) -> Plan | None:
        """The plan that was chosen; ``None``: the default plan."""
        return self.plans.get(self.cleaned_data["plan"])


def _offered(user: EndUser) -> Any:
    return services.plans_of(user.project).filter(current__isnull=False, is_archived=False)


class GrantForm(forms.Form):
    """Budget on top, for the running period."""

    amount = forms.DecimalField(
        label=gettext_lazy("US dollars"), min_value=Decimal("0.000001"), decimal_places=9,
        max_value=Decimal(GRANT_MAX_NUSD) / NUSD_PER_USD,
    )  # fmt: skip
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=500, required=False)


class ProfileForm(forms.Form):
    """What people are called here; both may be empty."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=300, required=False)
    email = forms.CharField(label=gettext_lazy("E-mail"), max_length=320, required=False)


class ConfirmForm(forms.Form):
    """For what cannot be undone."""

    confirm = forms.BooleanField(label=gettext_lazy("I know that this cannot be undone"))


def _checked(form: forms.Form) -> forms.Form:
    """
    Return the form, valid.

    Raises:
        ServiceError: It is not; the first field at fault is named.
    """
    if not form.is_valid():
        field, errors = next(iter(form.errors.items()))
        label = form.fields[field].label if field in form.fields else field
        raise ServiceError(str(label), " ".join(errors))
    return form


def _change_plan(request: HttpRequest, user: EndUser) -> str:
    form = PlanChoice(request.POST, user=user)
    _checked(form)
    services.change_plan(user, form.chosen, by=by(request))
    return _("Moved to %s; the next call is judged by it.") % (
        form.chosen.label if form.chosen else _("the default plan")
    )


def _grant(request: HttpRequest, user: EndUser) -> str:
    said = _checked(GrantForm(request.POST)).cleaned_data
    amount_nusd = int(said["amount"] * NUSD_PER_USD)
    # a form that is sent twice grants once
    key = request.POST.get("key", "")[:200] or None
    services.grant(user, amount_nusd, key=key, reason=said["reason"], by=by(request))
    return _("Granted %s for the running period.") % charts.dollars(amount_nusd)


def _reset(request: HttpRequest, user: EndUser) -> str:
    services.reset_period(user, by=by(request))
    return _("The period begins anew now; what was used stays in the books.")


def _metering(request: HttpRequest, user: EndUser) -> str:
    is_on = request.POST.get("enabled") == "on"
    services.set_metering(user, is_on)
    return (
        _("Metering is on again.") if is_on else _("Metering is off: calls are neither counted nor blocked.")
    )


def _profile(request: HttpRequest, user: EndUser) -> str:
    said = _checked(ProfileForm(request.POST)).cleaned_data
    services.update_user(user, name=said["name"], email=said["email"])
    return _("The profile is saved.")


def _anonymise(request: HttpRequest, user: EndUser) -> str:
    _checked(ConfirmForm(request.POST))
    services.anonymise(user)
    return _("The user is anonymous now; what was used stays.")


def _session(_request: HttpRequest, user: EndUser) -> str:
    services.open_session(user)
    return _("A new session is open; the next call counts in it.")


ACTIONS = {
    "plan": Action(("add_subscription",), _change_plan),
    "grant": Action(("add_grant",), _grant),
    "reset": Action(("add_subscription",), _reset),
    "session": Action(("add_session",), _session),
    "metering": Action(("change_enduser",), _metering),
    "profile": Action(("change_enduser",), _profile),
    "anonymise": Action(("delete_enduser",), _anonymise),
}


def forms_for(request: HttpRequest, user: EndUser) -> dict[str, Any]:
    """The forms that the signed-in may send, by the name of their action."""
    made: dict[str, Callable[[], Any]] = {
        "plan": lambda: PlanChoice(user=user),
        "grant": GrantForm,
        "profile": lambda: ProfileForm(initial={"name": user.name, "email": user.email}),
        "anonymise": ConfirmForm,
    }
    shown = {
        name: made.get(name, lambda: True)()
        for name, action in ACTIONS.items()
        if may(request, *action.needs)
    }
    shown["grant_key"] = str(uuid.uuid4())
    return shown
