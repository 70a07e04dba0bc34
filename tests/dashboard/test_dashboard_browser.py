"""
The dashboard in headless Chromium, on real uvicorn and a real Flask server, light and dark.

``PAYGENT_SCREENSHOTS=docs pytest tests/dashboard/test_dashboard_browser.py`` writes the pictures of the
documents anew.
"""

import contextlib
import os
import threading
from pathlib import Path
from urllib.parse import quote

import dashboard_world
import flask
import pytest
import uvicorn
from dashboard_world import ODD, SCRIPT
from real_browser import CHROMIUM, needs_chromium
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.serving import make_server

import paygent_flask
import paygent_starlette
from paygent import Paygent

SCREENSHOTS = os.environ.get("PAYGENT_SCREENSHOTS")  # read now: tests start with a clean environment
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
USER = "linus@kernel.example"
PAGES = {"overview": "", "users": "users", "user": f"user?id={quote(USER)}", "plans": "plans"}
LOGIN = {"x-who": "boss"}

pytestmark = needs_chromium


def is_boss(request):
    return request.headers.get("x-who") == "boss"


@contextlib.contextmanager
def on_uvicorn(pg):
    app = Starlette(routes=[Mount("/paygent", paygent_starlette.dashboard(pg, authorize=is_boss))])
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/paygent/"
    server.should_exit = True
    thread.join(10)


@contextlib.contextmanager
def on_flask(pg):
    app = flask.Flask("shop")
    app.register_blueprint(paygent_flask.dashboard(pg, authorize=is_boss))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/paygent/"
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture(scope="module")
def month(tmp_path_factory):
    """A month of a small company; the pages only read, so one is enough for all of this file."""
    file = tmp_path_factory.mktemp("month") / "p.db"
    pg = Paygent.init(ledger=f"sqlite:///{file}", auto_instrument=False)
    dashboard_world.fill(pg)
    yield pg
    pg.shutdown()


@pytest.fixture(scope="module", params=[on_uvicorn, on_flask], ids=["uvicorn", "flask"])
def site(request, month):
    with request.param(month) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def left(request):
    """Whether the icon was still on its way as the next page was opened: a load does not wait for it."""
    return request.url.endswith("/icon.svg") and request.failure == "net::ERR_ABORTED"


@contextlib.contextmanager
def opened(browser, complaints, **options):
    """A page of somebody who may see it; whatever the browser complains of is put down."""
    options = {"viewport": {"width": 1280, "height": 860}, "extra_http_headers": LOGIN, **options}
    context = browser.new_context(**options)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: left(request) or complaints.append(request.url))
    page.on("response", lambda answer: answer.ok or complaints.append(f"{answer.status} {answer.url}"))
    yield page
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_drawn_without_a_complaint(site, browser, scheme):
    """No console message, no policy violation, no failed request, nothing wider than the window."""
    complaints = []
    with opened(browser, complaints, color_scheme=scheme) as page:
        for name, address in PAGES.items():
            page.goto(site + address)
            assert page.locator("h1").count() == 1
            assert page.evaluate("document.documentElement.scrollWidth") <= 1280
            back = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, back[4:-1].split(", "))) < 200) == (scheme == "dark")
            _keep(page, f"dashboard-{name}-{scheme}")
    assert complaints == []


def _keep(page, name):
    if SCREENSHOTS:
        tall = min(1600, page.evaluate("document.documentElement.scrollHeight"))
        part = {"x": 0, "y": 0, "width": 1280, "height": tall}
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"), full_page=True, clip=part)


def test_a_user_is_reached_by_keys_alone(site, browser):
    """Tab to the skip link and to a user in the list, Enter, and the page of that user is there."""
    complaints = []
    with opened(browser, complaints) as page:
        page.goto(site)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert page.locator(".skip").bounding_box()["y"] >= 0
        page.keyboard.press("Enter")
        _tab_to(page, USER)
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.keyboard.press("Enter")
        page.wait_for_url("**/user?id=*")
        assert page.locator("h1").inner_text() == USER
    assert complaints == []


def _tab_to(page, text):
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == text:
            return
    raise AssertionError(f"{text} is not reached by Tab")


def test_odd_users_are_reached_by_a_click(site, browser):
    """A user whose id is markup or a piece of an address is searched, clicked and shown as he is called."""
    complaints = []
    with opened(browser, complaints) as page:
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        for user_id in (ODD, SCRIPT):
            page.goto(site + "users")
            page.get_by_label("Id begins with").fill(user_id)
            page.keyboard.press("Enter")
            page.get_by_role("link", name=user_id, exact=True).click()
            assert page.locator("h1").inner_text() == user_id
    assert complaints == []


def test_pages_fit_a_phone(site, browser):
    """At 390 pixels nothing but the tables scrolls sideways."""
    complaints = []
    with opened(browser, complaints, viewport={"width": 390, "height": 800}) as page:
        for address in PAGES.values():
            page.goto(site + address)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints == []


def test_a_screen_reader_finds_names_and_landmarks(site, browser):
    """Landmarks, the picture's name, table headers and the search field are in the accessibility tree."""
    complaints = []
    with opened(browser, complaints) as page:
        page.goto(site)
        assert page.get_by_role("main").count() == 1
        assert page.get_by_role("navigation", name="Pages").count() == 1
        assert page.get_by_role("img", name="Spend per day, by model").count() == 1
        assert page.get_by_role("columnheader", name="Decision").count() == 1
        page.goto(site + "users")
        assert page.get_by_role("search").count() == 1
        assert page.get_by_role("rowheader", name=USER).count() == 1
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(site, browser, scheme):
    """Every text has a contrast of 4.5 : 1 with its background (WCAG 2.2, 1.4.3)."""
    complaints = []
    with opened(browser, complaints, color_scheme=scheme) as page:
        for address in PAGES.values():
            page.goto(site + address)
            assert page.evaluate(_FAINT) == []
    assert complaints == []


_FAINT = """() => {
  const parsed = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = one => {
    for (; one; one = one.parentElement) {
      const colour = parsed(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || one.closest('title, desc, .skip')) continue;
    const style = getComputedStyle(one);
    const colour = parsed(one.closest('svg') ? style.fill : style.color);
    const [a, b] = [light(colour), light(behind(one))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(`${walker.currentNode.textContent}: ${contrast.toFixed(2)}`);
  }
  return faint;
}"""
