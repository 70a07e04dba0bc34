"""
What can be done with Paygent's rows: one rule in one place for the admin, the API and the commands.

Every function takes rows of the models, works in a transaction of its own on the calling thread's connection
(also inside an outer one), and raises :class:`ServiceError` for input that cannot be right.
"""

from paygent_django.services._base import ServiceError, ledger_of
from paygent_django.services.corrections import refund
from paygent_django.services.grants import grant
from paygent_django.services.keys import SCOPES, NewKey, adopt_key, authenticate, create_key, revoke
from paygent_django.services.plan_files import PlanChange, PlanSpec, apply_plans, export_plans, read_plan_file
from paygent_django.services.plans import (
    SavedPlan,
    archive_plan,
    find_plan,
    plans_of,
    price_of,
    save_plan,
    set_default_plan,
)
from paygent_django.services.projects import create_project, find_project, project
from paygent_django.services.prune import Pruned, prune
from paygent_django.services.reconcile import Difference, mend, reconcile
from paygent_django.services.rollup import rebuild
from paygent_django.services.sessions import open_session
from paygent_django.services.subscriptions import (
    cancel,
    change_plan,
    needs_period,
    period_of,
    reset_period,
    running,
    subscribe,
)
from paygent_django.services.usage import (
    Blocked,
    Usage,
    suggested_plan,
    usage_of,
    usage_of_many,
    would_block,
)
from paygent_django.services.users import (
    anonymise,
    create_user,
    ensure_user,
    export_user,
    find_user,
    link_auth_user,
    set_metering,
    set_own_config,
    update_user,
)
from paygent_django.services.values import to_core

__all__ = [
    "SCOPES",
    "Blocked",
    "Difference",
    "NewKey",
    "PlanChange",
    "PlanSpec",
    "Pruned",
    "SavedPlan",
    "ServiceError",
    "Usage",
    "adopt_key",
    "anonymise",
    "apply_plans",
    "archive_plan",
    "authenticate",
    "cancel",
    "change_plan",
    "create_key",
    "create_project",
    "create_user",
    "ensure_user",
    "export_plans",
    "export_user",
    "find_plan",
    "find_project",
    "find_user",
    "grant",
    "ledger_of",
    "link_auth_user",
    "mend",
    "needs_period",
    "open_session",
    "period_of",
    "plans_of",
    "price_of",
    "project",
    "prune",
    "read_plan_file",
    "rebuild",
    "reconcile",
    "refund",
    "reset_period",
    "revoke",
    "running",
    "save_plan",
    "set_default_plan",
    "set_metering",
    "set_own_config",
    "subscribe",
    "suggested_plan",
    "to_core",
    "update_user",
    "usage_of",
    "usage_of_many",
    "would_block",
]
