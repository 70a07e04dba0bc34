"""Mount with ``path("stripe/", include("paygent_django.contrib.stripe.urls"))``."""

from __future__ import annotations

from django.urls import path

from paygent_django.contrib.stripe import views

app_name = "paygent_stripe"
urlpatterns = [path("webhook", views.webhook, name="webhook")]
