"""
The tables of Paygent in a Django project, one module per family.

Instants are integers of microseconds since the epoch in UTC (``…_us``), money is integers of nano-dollars
(``…_nusd``). The ledger writes accounts, events and sums; everything else goes through
``paygent_django.services``.
"""

from paygent_django.models.leases import Job, JobAlias, Lease, Session
from paygent_django.models.plans import Plan, PlanVersion
from paygent_django.models.projects import ApiKey, Project
from paygent_django.models.usage import DailyGate, DailyUsage, GateEvent, Total, UsageEvent, UserUsage
from paygent_django.models.users import EndUser, Grant, Subscription
from paygent_django.models.webhooks import WebhookDelivery, WebhookEndpoint, WebhookNews

__all__ = [
    "ApiKey",
    "DailyGate",
    "DailyUsage",
    "EndUser",
    "GateEvent",
    "Grant",
    "Job",
    "JobAlias",
    "Lease",
    "Plan",
    "PlanVersion",
    "Project",
    "Session",
    "Subscription",
    "Total",
    "UsageEvent",
    "UserUsage",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookNews",
]
