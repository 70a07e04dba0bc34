"""A project whose default admin has none of Paygent's pages; another site has them."""

from django.contrib import admin
from django.urls import path

from paygent_django.admin import ADMINS

ops = admin.AdminSite(name="ops")
for _model, _admin in ADMINS.items():
    ops.register(_model, _admin)
urlpatterns = [path("admin/", admin.AdminSite(name="admin").urls), path("ops/", ops.urls)]
