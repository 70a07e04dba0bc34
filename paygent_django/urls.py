"""Mount with ``path("paygent/", include("paygent_django.urls"))``."""

from __future__ import annotations

from django.urls import include, path

from paygent_django import views

app_name = "paygent"
urlpatterns = [
    path("me", views.me, name="me"),
    path("api/v1/", include("paygent_django.api.urls")),
]
