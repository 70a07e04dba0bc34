"""Each of Paygent's pages again, as a page of unfold."""

from __future__ import annotations

from django.contrib import admin
from unfold.admin import ModelAdmin as UnfoldModelAdmin  # type: ignore[import-untyped]  # it ships no types

from paygent_django.admin import ADMINS
from paygent_django.admin.base import PaygentAdmin


def on_unfold(page: type[PaygentAdmin]) -> type[PaygentAdmin]:
    """*page*, drawn by unfold around ours; its theme is a class of the page, not the system's."""
    body = {"__doc__": page.__doc__, "stylesheets": (*page.stylesheets, "paygent/unfold.css")}
    return type(page.__name__, (page, UnfoldModelAdmin), body)


# imported after paygent_django.admin, wherever the two stand in INSTALLED_APPS
for _model, _page in ADMINS.items():
    if admin.site.is_registered(_model):
        admin.site.unregister(_model)
    admin.site.register(_model, on_unfold(_page))
