"""
The one view of the API: it finds the operation by the path as it was sent.

::

    urlpatterns = [path("api/v1/", include("paygent_django.api.urls"))]
"""

from __future__ import annotations

from django.apps import apps
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, URLResolver, re_path
from django.urls.resolvers import RegexPattern
from django.views.decorators.csrf import csrf_exempt
from ninja.openapi.docs import Swagger

from paygent_django.api import bodies, paths, problems
from paygent_django.api.app import Page, api, document
from paygent_django.database import database_alias

_operations = URLResolver(RegexPattern(r"^"), api.urls[0])
_page: Swagger = Page()


# Each operation is a transaction of its own. Within ATOMIC_REQUESTS it would have read first, and SQLite
# fails a write after that; and those who post together would be answered before their events are committed.
@csrf_exempt
@transaction.non_atomic_requests
@transaction.non_atomic_requests(using=database_alias())
def dispatch(request: HttpRequest, rest: str) -> HttpResponse:
    """Answer one request to the API; *rest* is the path below it."""
    if rest in ("docs", "openapi.json"):
        return _described(request, rest)
    try:
        found = _operations.resolve(paths.encoded(request, rest))
    except Resolver404:
        return problems.respond(404, "there is nothing at this address")
    try:
        parameters = paths.decoded(found.kwargs)
        response: HttpResponse = found.func(request, *found.args, **parameters)
    except Exception as error:  # noqa: BLE001  # what ninja does not catch itself
        return problems.of(error)
    if response.status_code == 405:
        allowed = response["Allow"]
        response = problems.respond(405, f"this address takes {allowed}")
        response["Allow"] = allowed
    return response


def _described(request: HttpRequest, rest: str) -> HttpResponse:
    if request.method not in ("GET", "HEAD"):
        response = problems.respond(405, "this address takes GET")
        response["Allow"] = "GET, HEAD"
        return response
    if rest == "docs" and not apps.is_installed("ninja"):  # its scripts would come from a stranger's server
        return problems.respond(404, "the page needs 'ninja' in INSTALLED_APPS; openapi.json does not")
    if rest == "docs":
        return _page.render_page(request, api)
    return bodies.answer(document(request.path[: len(request.path) - len(rest)]))


urlpatterns = [re_path(r"^(?P<rest>(?s:.*))\Z", dispatch, name="api")]
