"""The addresses that all Django tests share; a test that needs others sets ``ROOT_URLCONF``."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("paygent/", include("paygent_django.urls")),
]
