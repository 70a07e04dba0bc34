"""Paygent's pages in an admin site besides the default one."""

import re

import pytest
from admin_pages import ADMIN, pages_of, user_named
from django.test.utils import override_settings

from paygent_django import services, webhooks

OPS = "/ops/paygent_django/"
LISTS = ("apikey", "webhookendpoint", "webhookdelivery", "project")
LINK = re.compile(r'(?:href|action)="(/[^"]*paygent_django[^"]*)"')


@pytest.fixture
def ops(boss, filled):
    """The superuser's browser of a project that has Paygent's pages in another site alone."""
    with override_settings(ROOT_URLCONF="ops_site"):
        yield boss


def addresses(project):
    """Each page there is, in the other site."""
    pages = [*pages_of(user_named(project._state.db, "user_4137")).values()]
    pages += [f"{ADMIN}{name}/" for name in LISTS]
    return [page.replace(ADMIN, OPS) for page in pages]


def test_pages_of_another_site_lead_to_its_own(ops, filled):
    """Each link and form on each page stays in the site that is looked at."""
    webhooks.create_endpoint(filled, "https://example.com/hook")
    led = set()
    for page in addresses(filled):
        answer = ops.get(page)
        assert answer.status_code == 200, page
        led |= {(page, link) for link in LINK.findall(answer.content.decode())}
    assert [pair for pair in led if not pair[1].startswith(OPS)] == []
    names = {re.sub(r"\d+", "1", link.partition("?")[0]) for _, link in led}
    rows = ("enduser", "plan", "usageevent", "gateevent", "webhookendpoint", "project")
    assert {f"{OPS}{name}/1/change/" for name in rows} <= names


def test_whoever_acts_in_another_site_stays_there(ops, filled):
    """After an action, and from a project's own address, one is led to a page of the same site."""
    user = user_named(filled._state.db, "user_4137")
    done = ops.post(f"{OPS}enduser/{user.pk}/do/metering/", {"enabled": "off"})
    assert done["Location"] == f"{OPS}enduser/{user.pk}/change/"
    led = ops.get(f"{OPS}project/{services.project().pk}/change/")
    assert led["Location"].startswith(f"{OPS}dailyusage/")
