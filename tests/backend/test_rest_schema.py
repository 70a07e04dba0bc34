"""The API against its own description, with requests made up by schemathesis."""

import pytest
import schemathesis
from django.core.handlers.wsgi import WSGIHandler
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rest_world import ROOT, event, gate, lease
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from paygent_django.api.app import document

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OPERATIONS = [(path, method) for path, methods in document(ROOT + "/")["paths"].items() for method in methods]


@pytest.fixture
def described(sqlite_api):
    """The description as the API serves it, a key, and something to find behind the addresses."""
    ids = {"user_id": "ada", "lease_id": "process-1", "plan_id": sqlite_api.plan()}
    sqlite_api.user("ada", ids["plan_id"])
    sqlite_api.post("/events/batch", [event()])
    sqlite_api.post("/gate-events/batch", [gate()])
    sqlite_api.post("/leases", [lease()])
    ids["webhook_id"] = sqlite_api.post("/webhooks", {"url": "https://example.com/"}).json()["id"]
    return schemathesis.openapi.from_wsgi(f"{ROOT}/openapi.json", WSGIHandler()), sqlite_api, ids


@pytest.mark.parametrize("path, method", OPERATIONS)
def test_no_request_breaks_an_operation_or_its_description(described, path, method):
    """Requests that fit the description, or do not, are answered as it says and never with a 5xx."""
    schema, api, ids = described
    operation = schema[path][method]
    cases = st.one_of(
        operation.as_strategy(GenerationMode.POSITIVE), operation.as_strategy(GenerationMode.NEGATIVE)
    )

    @settings(
        max_examples=15, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases, st.booleans())
    def check(case, is_known):
        if is_known:
            case.path_parameters = {name: ids[name] for name in case.path_parameters or ()}
        case.call_and_validate(headers={"Authorization": f"Bearer {api.key}"}, checks=CHECKS)

    check()
