"""The API as a whole: its parts, its errors, and its description of itself."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.openapi.docs import Swagger
from ninja.openapi.schema import get_schema

from paygent_django.api import bodies, events, gates, leases, plans, problems, schemas, usage, users, webhooks
from paygent_django.api.routing import Router

_ERRORS = ("400", "401", "403", "404", "405", "409", "413", "422", "503")
_REFERENCE = "#/components/schemas/Problem"


def _version() -> str:
    try:
        return version("paygent")
    except PackageNotFoundError:
        return "0"


api = NinjaAPI(
    title="Paygent",
    version=_version(),
    description="Plans, users, usage and the audit trail. `Authorization: Bearer pg_live_…` on every call.",
    urls_namespace="paygent-api",
    parser=bodies.StrictParser(),
    openapi_url=None,
    docs_url=None,
    default_router=Router(),
)
problems.install(api)
api.add_router("/config", plans.router)
api.add_router("/users", users.router)
api.add_router("/users", usage.router)
api.add_router("/users", gates.of_users)
api.add_router("/events", events.router)
api.add_router("/gate-events", gates.router)
api.add_router("/leases", leases.router)
api.add_router("/webhooks", webhooks.router)


class Health(schemas.Shape):
    """Whether the server answers."""

    status: str


@api.get("/health", response=Health, tags=["health"])
def health(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # ninja's signature
    """Whether the server answers; needs no key."""
    return bodies.answer({"status": "ok"})


class Page(Swagger):
    """The page to browse the API, beside its document."""

    def get_openapi_url(self, api: NinjaAPI, path_params: Any) -> str:  # noqa: ARG002  # the base's
        """The document beside the page."""
        return "openapi.json"


def document(prefix: str) -> dict[str, Any]:
    """The OpenAPI document, for an API that is mounted at *prefix*."""
    said: dict[str, Any] = get_schema(api, path_prefix=prefix)
    said["components"].setdefault("schemas", {})["Problem"] = schemas.Problem.model_json_schema()
    answered = {
        "description": "A problem",
        "content": {problems.CONTENT_TYPE: {"schema": {"$ref": _REFERENCE}}},
    }
    for operations in said["paths"].values():
        operations.pop("head", None)  # goes without saying where there is a GET
        for operation in operations.values():
            operation["responses"] = {
                **{str(status): response for status, response in operation["responses"].items()},
                **dict.fromkeys(_ERRORS, answered),
            }
    return said
