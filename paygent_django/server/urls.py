"""The addresses of the served project."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from paygent_django.server import views

admin.site.site_header = "Paygent"
admin.site.site_title = "Paygent"

urlpatterns = [
    path("", views.home),
    path("metrics", views.metrics),
    path("admin/", admin.site.urls),
    path("api/v1/", include("paygent_django.api.urls")),
]
