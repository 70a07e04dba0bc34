"""``ON_LIMIT`` of a project that returns no response: the usual answer is sent, and the log says why."""

import logging

import pytest


async def later(request, problem):
    """What a plain function may return by mistake."""


def of_dict(request, problem):
    return {"code": problem["code"]}


def of_text(request, problem):
    return "spent"


def of_coroutine(request, problem):
    return later(request, problem)


async def awaited(request, problem):
    return of_dict(request, problem)


KINDS = ["of_dict", "of_text", "of_coroutine", "awaited"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", ["plain", "plain-async", "stream"])
def test_what_is_no_response_gives_way_to_the_usual_one(kind, view, browser, settings_with, caplog):
    """Under WSGI the 429 is sent, for views and for bodies that have not begun."""
    settings_with(PAYGENT={"ON_LIMIT": f"test_django_on_limit.{kind}"})
    assert is_usual(browser("ben", "free").get(f"/{view}"), caplog)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", ["plain", "plain-async", "stream-async"])
async def test_what_is_no_response_gives_way_under_asgi(kind, view, async_browser, settings_with, caplog):
    """The same under ASGI."""
    settings_with(PAYGENT={"ON_LIMIT": f"test_django_on_limit.{kind}"})
    assert is_usual(await (await async_browser("ben", "free")).get(f"/{view}"), caplog)


def is_usual(answer, caplog):
    told = [
        record for record in caplog.records if record.name == "paygent" and record.levelno >= logging.ERROR
    ]
    assert ["on_limit returned no response" in record.getMessage() for record in told] == [True]
    return (answer.status_code, answer.json()["code"]) == (429, "period_spend")
