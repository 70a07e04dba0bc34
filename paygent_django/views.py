"""``GET …/paygent/me``: what the signed-in user may see of his own plan."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from paygent_django import conf
from paygent_django.responses import as_response

log = logging.getLogger("paygent")


@vary_on_headers("Cookie", "Authorization")
@require_safe
def me(request: HttpRequest) -> HttpResponse:
    """
    Answer with the plan, what is used of it, and when it starts anew.

    The user is whoever calls of this request would be charged to: the option ``GET_USER_ID``, else the user
    who is signed in. 401 for nobody.
    """
    return as_response(conf.plugin().me(user_of(request)), request)


def user_of(request: HttpRequest) -> object:
    """The id of whoever is signed in, ``None`` for nobody; a fault in finding him is logged."""
    try:
        return conf.plugin().find_user(request)
    except Exception:
        log.exception("get_user_id failed: nobody is told of his plan")
        return None
