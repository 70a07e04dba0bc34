"""Read-only pages of what Stripe has said, above all of what could not be applied."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from paygent_django.contrib.stripe.models import StripeCustomer, StripeEvent, StripeSubscription


class _ReadOnly(admin.ModelAdmin):
    show_full_result_count = False

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Stripe alone adds rows."""
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """What Stripe said stays as it was said."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """What Stripe said stays."""
        return False


@admin.register(StripeEvent)
class StripeEventAdmin(_ReadOnly):
    """Events; filter by ``unresolved`` to see what waits for a setting."""

    list_display = ("event_id", "kind", "outcome", "note", "customer_id")
    list_filter = ("outcome",)
    search_fields = ("event_id", "customer_id", "subscription_id")
    ordering = ("-id",)


@admin.register(StripeCustomer)
class StripeCustomerAdmin(_ReadOnly):
    """Customers, and who they are here."""

    list_display = ("customer_id", "user")
    list_select_related = ("user",)
    search_fields = ("customer_id", "user__external_user_id")


@admin.register(StripeSubscription)
class StripeSubscriptionAdmin(_ReadOnly):
    """Subscriptions as last told."""

    list_display = ("subscription_id", "customer", "status", "note")
    list_select_related = ("customer",)
    search_fields = ("subscription_id", "customer__customer_id")
