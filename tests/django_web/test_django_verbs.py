"""The decorators ``exempt``, ``tag`` and ``require_budget``, on views of every kind."""

import pytest

FREE = ["free", "free-async", "free-class", "free-async-class", "wrapped-async-class"]
COSTLY = ["costly", "costly-async", "costly-async-class", "for-one-model"]


@pytest.fixture
def routes(settings_with):
    settings_with(ROOT_URLCONF="verb_views")


@pytest.mark.parametrize("view", FREE)
def test_an_exempt_views_calls_pass(view, browser, pg):
    """Its calls are neither gated nor metered."""
    ben = browser("ben", "free")
    assert ben.get(f"/{view}").status_code == 200
    assert pg.get_usage(ben.user_id).period_tokens_total == 0


@pytest.mark.parametrize("view", FREE)
async def test_an_exempt_views_calls_pass_under_asgi(view, async_browser, pg):
    """The same under ASGI."""
    ben = await async_browser("ben", "free")
    assert (await ben.get(f"/{view}")).status_code == 200
    assert pg.get_usage(ben.user_id).period_tokens_total == 0


def test_a_tag_is_noted_on_the_events(browser, pg):
    """What ``tag`` says is in the metadata of each event of the view."""
    events = []
    pg.on_usage(events.append)
    browser("ada").get("/tagged")
    assert events[0].metadata == {"feature": "summary", "team": "search"}


@pytest.mark.parametrize("view", COSTLY)
def test_a_spent_user_does_not_reach_the_view(view, browser):
    """``require_budget`` answers the 429 before the view runs."""
    answer = browser("ben", "free").get(f"/{view}")
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")


@pytest.mark.parametrize("view", COSTLY)
async def test_a_spent_user_does_not_reach_the_view_under_asgi(view, async_browser):
    """The same under ASGI."""
    answer = await (await async_browser("ben", "free")).get(f"/{view}")
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")


@pytest.mark.parametrize("view", COSTLY)
def test_who_has_enough_reaches_it(view, browser):
    """A user with enough left is let in."""
    assert browser("ada").get(f"/{view}").content == b"reached"


def test_too_little_left_is_refused(browser):
    """Who has less left than the view asks for is refused, though his plan is not spent."""
    assert browser("cleo", "tiny").get("/costly").status_code == 429


def test_a_visitor_reaches_the_view(browser):
    """A request without a user runs: its calls are what is judged."""
    assert browser().get("/costly").content == b"reached"


def test_a_decorated_view_keeps_its_own_marks():
    """What other decorators noted on a view is still there."""
    from django.views.decorators.csrf import csrf_exempt

    from paygent_django import exempt

    @exempt
    @csrf_exempt
    def view(request):
        return None

    assert view.csrf_exempt
    assert view.__name__ == "view"
