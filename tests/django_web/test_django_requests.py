"""Who pays for the calls of a request, under the WSGI handler and the ASGI handler."""

import asyncio

import pytest
from django.test import Client
from django.test.utils import CaptureQueriesContext

from paygent.context import current_payer

CALLS = ["plain", "plain-async", "blocking-in-async", "threaded"]
STREAMS = ["stream", "stream-async"]


def tokens(pg, client):
    return pg.get_usage(client.user_id).period_tokens_total


async def drained(answer):
    return b"".join([part async for part in answer])


async def until(condition):
    for _ in range(3000):
        if condition():
            return True
        await asyncio.sleep(0.02)
    return False


@pytest.mark.parametrize("view", CALLS)
def test_a_call_is_the_signed_in_users(view, browser, pg):
    """A call within a view, on a thread with its context too, is charged to whoever is signed in."""
    ada, ben = browser("ada"), browser("ben")
    assert ada.get(f"/{view}").status_code == 200
    assert (tokens(pg, ada) > 0, tokens(pg, ben)) == (True, 0)


@pytest.mark.parametrize("view", CALLS)
async def test_under_asgi_too(view, async_browser, pg):
    """Under the ASGI handler it is the same, for plain and for async views."""
    ada, ben = await async_browser("ada"), await async_browser("ben")
    assert (await ada.get(f"/{view}")).status_code == 200
    assert (tokens(pg, ada) > 0, tokens(pg, ben)) == (True, 0)


def test_a_streamed_call_is_the_signed_in_users(browser, pg):
    """A call that is made while the body is iterated is charged to whoever is signed in."""
    ada = browser("ada")
    assert ada.get("/stream").getvalue().startswith(b"data: ")
    assert tokens(pg, ada) > 0


@pytest.mark.filterwarnings(
    "ignore:StreamingHttpResponse must consume asynchronous iterators"
)  # Django's advice
def test_an_async_stream_under_wsgi(browser, pg):
    """An async body under WSGI, which Django reads to its end first, is charged likewise."""
    ada = browser("ada")
    assert ada.get("/stream-async").getvalue().startswith(b"data: ")
    assert tokens(pg, ada) > 0


@pytest.mark.parametrize("view", STREAMS)
async def test_a_streamed_call_under_asgi(view, async_browser, pg):
    """Under ASGI a plain body is stepped through on a thread, an async one on the loop: charged alike."""
    ada = await async_browser("ada")
    assert (await drained(await ada.get(f"/{view}"))).startswith(b"data: ")
    assert tokens(pg, ada) > 0


async def test_a_task_that_outlives_its_request(async_browser, pg):
    """A task begun within a view is the user's, also after the answer is complete."""
    ada = await async_browser("ada")
    assert (await ada.get("/afterwards")).status_code == 202
    assert tokens(pg, ada) == 0
    assert await until(lambda: tokens(pg, ada) > 0)


def test_the_request_knows_what_its_calls_came_to(browser, pg):
    """``request.paygent`` counts the calls, tokens and dollars of this request alone."""
    ada = browser("ada")
    ada.get("/plain")
    told = ada.get("/used").json()
    event = pg.get_usage(ada.user_id)
    assert (told["calls"], told["warning"]) == (1, None)
    assert told["tokens"] * 2 == event.period_tokens_total
    assert told["cost"] * 2 == pytest.approx(event.period_cost)


def test_nothing_of_a_request_stays_behind(browser):
    """After a request, refused or not, the thread pays for nobody."""
    browser("ada").get("/plain")
    browser("ben", "free").get("/plain")
    assert current_payer() is None


def test_nobodys_call_passes_by_default(browser, llm):
    """A call of a visitor who is not signed in passes unmetered, as unattributed calls do."""
    assert browser().get("/plain").json()["user"] is None


@pytest.mark.parametrize("view", ["hello", "hello-async"])
def test_a_view_without_a_call_looks_nobody_up(view, browser):
    """Without a call there is no query for user or session, and no ``Vary: Cookie``."""
    from django.db import connection

    ada = browser("ada")
    with CaptureQueriesContext(connection) as queries:
        answer = ada.get(f"/{view}")
    assert (answer.status_code, len(queries), answer.has_header("Vary")) == (200, 0, False)


async def test_an_async_view_without_a_call_looks_nobody_up(async_browser):
    """The same holds under ASGI."""
    answer = await (await async_browser("ada")).get("/hello-async")
    assert (answer.status_code, answer.has_header("Vary")) == (200, False)


def test_a_call_looks_its_user_up_once(browser):
    """The first call reads the session and the user, one query each."""
    from django.db import connection

    ada = browser("ada")
    with CaptureQueriesContext(connection) as queries:
        ada.get("/plain")
    assert len(queries) == 2


def test_a_fault_of_the_view_stays_its_own(browser):
    """Any other exception is Django's to answer."""
    ada = browser("ada")
    ada.raise_request_exception = False
    assert ada.get("/broken").status_code == 500


def test_installed_twice_it_acts_once(browser, pg, settings_with):
    """The inner one of two middlewares leaves the request alone."""
    from django.conf import settings

    once = browser("ada")
    once.get("/used")
    settings_with(MIDDLEWARE=[*settings.MIDDLEWARE, settings.MIDDLEWARE[-1]])
    assert browser("ada").get("/used").json()["calls"] == 1


def test_disabled_it_is_not_there(browser, settings_with):
    """With ENABLED False, a request has no ``paygent`` and its calls are nobody's."""
    settings_with(PAYGENT={"ENABLED": False})
    ada = browser("ada")
    ada.raise_request_exception = False
    assert ada.get("/used").status_code == 500


@pytest.mark.parametrize("finder", ["plain_finder", "async_finder"])
@pytest.mark.parametrize("view", ["plain", "plain-async"])
def test_a_projects_own_finder(finder, view, browser, pg, settings_with):
    """GET_USER_ID may be a dotted path to a plain or an async function, which may use the database."""
    settings_with(PAYGENT={"GET_USER_ID": f"finders.{finder}"})
    pg.assign_plan("ada-of-finders", "pro")
    assert browser("ada").get(f"/{view}").json()["user"] == "ada-of-finders"


@pytest.mark.parametrize("finder", ["plain_finder", "async_finder"])
@pytest.mark.parametrize("view", ["plain", "plain-async", "blocking-in-async", "stream-async"])
async def test_a_projects_own_finder_under_asgi(finder, view, async_browser, pg, settings_with):
    """Under ASGI it is looked up off the event loop."""
    settings_with(PAYGENT={"GET_USER_ID": f"finders.{finder}"})
    pg.assign_plan("ada-of-finders", "pro")
    answer = await (await async_browser("ada")).get(f"/{view}")
    if answer.streaming:
        await drained(answer)
    assert pg.get_usage("ada-of-finders").period_tokens_total > 0


def test_a_finder_that_fails_leaves_the_call_to_nobody(browser, settings_with, caplog):
    """A fault in GET_USER_ID is logged, and the request goes on."""
    settings_with(PAYGENT={"GET_USER_ID": "finders.failing_finder"})
    assert browser("ada").get("/plain").json()["user"] is None
    assert "get_user_id failed" in caplog.text


def test_options_tell_session_plan_and_metadata(browser, pg, settings_with):
    """What GET_SESSION_ID and METADATA find is noted on the events, and GET_PLAN puts the user on a plan."""
    events = []
    pg.on_usage(events.append)
    options = {"GET_SESSION_ID": "session_finder", "METADATA": "metadata_finder", "GET_PLAN": "plan_finder"}
    settings_with(PAYGENT={name: f"finders.{path}" for name, path in options.items()})
    ada = browser("ada", "free")
    ada.get("/plain")
    assert (events[0].session_id, events[0].metadata["page"]) == ("visit-7", "/plain")
    assert pg.get_user_state(ada.user_id).plan == "pro"


def test_an_exempt_path_is_unmetered(browser, pg, settings_with):
    """Calls of a path, or of a route's name, in EXEMPT pass for a user whose plan is spent."""
    settings_with(PAYGENT={"EXEMPT": ["/used", "plain"]})
    ben = browser("ben", "free")
    assert [ben.get(f"/{view}").status_code for view in ("used", "plain", "plain-async")] == [200, 200, 429]
    assert tokens(pg, ben) == 0


def test_it_initialises_paygent_from_the_settings(browser, pg, settings_with, tmp_path):
    """Where the project has not called ``Paygent.init``, the first request does so with its settings."""
    from paygent import Paygent

    pg.shutdown()
    plans = tmp_path / "plans.toml"
    plans.write_text("[plans.starter]\nmax_spend_per_period = 1.0\n")
    settings_with(PAYGENT={"LEDGER": "memory://", "PLANS": str(plans), "GET_PLAN": "finders.starter_finder"})
    client = Client()
    client.get("/hello")
    made = Paygent.get_instance()
    try:
        assert made is not None
        assert made.assign_plan("eve", "starter").plan_config.max_spend_per_period == 1.0
    finally:
        made.shutdown()
