"""
The admin in a real browser, light and dark, under a strict content security policy.

``PAYGENT_SCREENSHOTS=docs`` has the pictures written into that folder.
"""

import os
from pathlib import Path

import pytest
from admin_live import live
from django.conf import settings
from django.test import override_settings
from real_browser import CHROMIUM, needs_chromium

from paygent_django.models import EndUser, Plan

pytestmark = needs_chromium
FOLDER = os.environ.get("PAYGENT_SCREENSHOTS")
WIDE = {"width": 1360, "height": 900}
NARROW = {"width": 390, "height": 844}
TALL = {"x": 0, "y": 0, "width": 1360, "height": 1750}  # what a picture in the documents shows


@pytest.fixture
def browser(
    site,
):  # begins after the site and ends before it: the database is not used in a thread with a loop
    from playwright.sync_api import sync_playwright

    with sync_playwright() as made:
        chromium = made.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--headless", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def site(filled, boss):
    """A filled site on a port: its address, the session of the superuser, the keys of a user and a plan."""
    alias = filled._state.db
    pks = {
        "user": EndUser.objects.using(alias).get(external_user_id="user_4137").pk,
        "plan": Plan.objects.using(alias).get(name="pro").pk,
    }
    middleware = ["admin_live.strict", *settings.MIDDLEWARE]
    with override_settings(MIDDLEWARE=middleware, TIME_ZONE="UTC"), live() as address:
        yield address, boss.cookies["sessionid"].value, pks


def look(browser, site, path, *, theme="light", size=WIDE, visible=(), shot=None):
    """Open a page, check that nothing complains and that its parts are there; returns the page."""
    address, session, _ = site
    context = browser.new_context(viewport=size, color_scheme=theme)
    context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
    page = context.new_page()
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))  # the browser asks
    page.complaints = []
    page.on("console", lambda said: said.type in ("error", "warning") and page.complaints.append(said.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url}"))
    answer = page.goto(address + path, wait_until="load")
    assert answer.status == 200
    for selector in visible:
        assert page.locator(selector).first.is_visible(), selector
    if FOLDER and shot:
        page.screenshot(path=Path(FOLDER) / f"{shot}-{theme}.png", full_page=True, clip=TALL)
    assert page.complaints == []
    return page


PAGES = {
    "admin-overview": ("dailyusage/", (".pg-figures", ".pgc-bars", ".pgc-ranking")),
    "admin-users": ("enduser/", (".pgc-meter", ".pg-badge")),
    "admin-user": ("enduser/{user}/change/", (".pg-limit .pgc-meter", "#events table")),
    "admin-plan": ("plan/{plan}/change/", (".pg-rows", ".pg-submit")),
    "admin-events": ("usageevent/", (".pg-search", ".pg-table")),
    "admin-key": ("apikey/add/", (".pg-submit",)),
}
KEPT = ("admin-overview", "admin-user", "admin-plan")


def test_the_pages_look_as_they_should(site, browser):
    """Each page is drawn in light and dark, and fits a telephone; nothing breaks the strict policy."""
    for name, (path, visible) in PAGES.items():
        url = "/admin/paygent_django/" + path.format(**site[2])
        for theme in ("light", "dark"):
            shot = name if name in KEPT else None
            look(browser, site, url, theme=theme, visible=visible, shot=shot).context.close()
        page = look(browser, site, url, size=NARROW, visible=visible)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1"), name
        page.context.close()


def test_dark_and_light_differ_where_it_matters(site, browser):
    """The charts' ink follows Django's theme switch, also against what the system prefers."""
    page = look(browser, site, "/admin/paygent_django/dailyusage/", theme="light")
    ink = "getComputedStyle(document.querySelector('.pgc')).color"
    light = page.evaluate(ink)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    dark = page.evaluate(ink)
    assert light != dark
    page.emulate_media(color_scheme="dark")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert page.evaluate(ink) == light


def test_rows_are_added_by_hand_and_tried_out(site, browser):
    """Under the strict policy a row is added to the form of a plan, and the dry run shows its result."""
    page = look(browser, site, f"/admin/paygent_django/plan/{site[2]['plan']}/change/")
    limits = page.locator('.pg-rows[data-prefix="limits"]')
    before = limits.locator("tbody tr").count()
    limits.get_by_role("button", name="Add a limit").click()
    assert limits.locator("tbody tr").count() == before + 1
    page.keyboard.type("brand-new")  # the new row has the focus
    page.get_by_label("Spend per period").fill("0.5")
    page.get_by_role("button", name="Who would be blocked?").click()
    page.wait_for_selector("#dry-run")
    assert page.locator("#dry-run .badge.blocked").count() > 0
    assert page.locator(f"#id_limits-{before}-model").input_value() == "brand-new"
    assert page.complaints == []


def test_actions_open_without_a_script(site, browser):
    """A user's actions open by keyboard, one at a time, and a grant is given by its form."""
    page = look(browser, site, f"/admin/paygent_django/enduser/{site[2]['user']}/change/")
    page.locator("summary", has_text="Change plan").press("Enter")
    page.locator("summary", has_text="Grant budget").press("Enter")
    assert page.locator(".pg-actions details[open]").count() == 1
    page.locator("#id_amount").fill("2.5")
    page.get_by_role("button", name="Grant", exact=True).click()
    page.wait_for_selector(".messagelist .success")
    assert "Granted $2.50" in page.locator(".messagelist").inner_text()
    assert page.complaints == []
