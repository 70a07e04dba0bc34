"""
The admin: Paygent's pages in Django's own, found by it where ``django.contrib.admin`` is installed.

For django-unfold add ``paygent_django.contrib.unfold`` to ``INSTALLED_APPS``. A project that wants other
pages unregisters a model and registers a subclass of what stands here.
"""

from django.contrib import admin

from paygent_django.admin.base import PaygentAdmin
from paygent_django.admin.events import GateEventAdmin, LeaseAdmin, UsageEventAdmin
from paygent_django.admin.keys import ApiKeyAdmin
from paygent_django.admin.overview_page import OverviewAdmin
from paygent_django.admin.plans import PlanAdmin
from paygent_django.admin.tenants import ProjectAdmin
from paygent_django.admin.users import EndUserAdmin
from paygent_django.admin.webhooks import WebhookDeliveryAdmin, WebhookEndpointAdmin
from paygent_django.models import (
    ApiKey,
    DailyUsage,
    EndUser,
    GateEvent,
    Lease,
    Plan,
    Project,
    UsageEvent,
    WebhookDelivery,
    WebhookEndpoint,
)

ADMINS: dict[type, type[PaygentAdmin]] = {
    DailyUsage: OverviewAdmin,
    EndUser: EndUserAdmin,
    Plan: PlanAdmin,
    UsageEvent: UsageEventAdmin,
    GateEvent: GateEventAdmin,
    Lease: LeaseAdmin,
    ApiKey: ApiKeyAdmin,
    WebhookEndpoint: WebhookEndpointAdmin,
    WebhookDelivery: WebhookDeliveryAdmin,
    Project: ProjectAdmin,
}

for _model, _admin in ADMINS.items():
    admin.site.register(_model, _admin)
