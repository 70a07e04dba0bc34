"""How many queries a page of users takes."""

import pytest
from django.db import connections
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from paygent_django import services


@pytest.fixture(autouse=True)
def _on(alias):
    with override_settings(PAYGENT={"DATABASE": alias}):
        yield


def test_the_plans_of_a_page_are_read_at_once(alias):
    """A page of users on thirty plans takes as many queries as one of users on one plan."""
    project = services.project()
    users = []
    for number in range(30):
        plan = services.save_plan(project, f"plan {number}", {"max_spend_per_period": number + 1}).plan
        users.append(services.ensure_user(project, f"user {number}"))
        services.subscribe(users[-1], plan)
    counts = []
    for page in (users[:1], users):
        with CaptureQueriesContext(connections[alias]) as queries:
            usages = services.usage_of_many(page)
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert [usage.terms.period.cap for usage in usages] == [(number + 1) * 10**9 for number in range(30)]
