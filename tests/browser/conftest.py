"""A headless Chromium, the example apps behind real servers, and a loopback LLM server behind those."""

import pytest
from playwright.sync_api import sync_playwright
from real_browser import CHROMIUM, NO_CHROMIUM
from served_apps import EXAMPLES, readme_command, served

from paygent.testing.llm_server import Controls, LLMServer

FRAMEWORKS = ("starlette", "flask", "django")
WAIT_MS = 60_000
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Of the free plan 40 %, 88 %, and more than there is; each answer arrives in eight pieces.
ANSWERS = Controls(reply_tokens=800, chunks=8, chunk_latency_s=0.02)


@pytest.fixture(scope="session")
def chromium_path():
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    return CHROMIUM


@pytest.fixture(scope="session")
def llm():
    with LLMServer(controls=ANSWERS) as server:
        yield server


@pytest.fixture(scope="session")
def servers(chromium_path, llm, tmp_path_factory):
    commands = {name: ["tests/browser/limited_apps.py", name] for name in FRAMEWORKS}
    commands |= {name: readme_command(name) for name in EXAMPLES}
    with served(commands, tmp_path_factory.mktemp("apps"), llm) as running:
        yield running


@pytest.fixture(params=EXAMPLES)
def example(request, chromium, servers):
    return servers[request.param].until_up()


@pytest.fixture(params=FRAMEWORKS)
def limited(request, chromium, servers):
    """An app whose users' plans are spent, or nearly."""
    return servers[request.param].until_up()


@pytest.fixture(scope="module")
def chromium(chromium_path):
    """
    The browser, with a new empty profile in each test.

    For one module at a time: as long as it is there, its event loop is the running one of this thread, and
    no async test could run.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A tab; ``page.complaints`` holds what the browser's console has complained of."""
    context = chromium.new_context()
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda said: said.type in ("error", "warning") and page.complaints.append(said.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    yield page
    context.close()
