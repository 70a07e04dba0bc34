"""Decorated handlers and options under Litestar, whose annotations are text."""

from __future__ import annotations

import httpx
import litestar
import pytest
from litestar.config.cors import CORSConfig

from paygent_starlette import exempt, tag
from paygent_starlette.litestar import PaygentPlugin

BEN, ADA = {"x-user": "ben"}, {"x-user": "ada"}


def get(url, **options):
    return httpx.get(url, timeout=60, trust_env=False, **options)


@pytest.fixture
def site(host, chat):
    @litestar.get("/exempt")
    @exempt
    async def exempted(request: litestar.Request) -> str:
        return await chat.ask()

    @litestar.get("/tagged")
    @tag(feature="chat")
    async def tagged(request: litestar.Request) -> str:
        return await chat.ask()

    @litestar.get("/named", name="named")
    async def named() -> str:
        return await chat.ask()

    @litestar.get("/metered")
    async def metered() -> str:
        return await chat.ask()

    def start(**options):
        plugin = PaygentPlugin(
            get_user_id=lambda request: request.headers.get("x-user"), exempt=["named"], **options
        )
        cors = CORSConfig(allow_origins=["https://shop.example"])
        handlers = [exempted, tagged, named, metered]
        return host(litestar.Litestar(handlers, plugins=[plugin], cors_config=cors, openapi_config=None))

    return start


def test_handlers_are_decorated(site, pg):
    """Exempt handlers and named routes let a spent user pass; tags are on the event."""
    events = []
    pg.on_usage(events.append)
    url = site()
    for path in ("exempt", "named"):
        assert get(f"{url}/{path}", headers=BEN).status_code == 200
    assert get(f"{url}/metered", headers=BEN).status_code == 429
    assert get(f"{url}/tagged", headers=ADA).status_code == 200
    assert [event.metadata for event in events] == [{"feature": "chat"}]


def test_the_refusal_has_the_apps_cors_headers(site, pg):
    """Litestar's own CORS configuration covers the refusal."""
    answer = get(f"{site()}/metered", headers={**BEN, "origin": "https://shop.example"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert answer.json()["code"] == "period_spend"


def test_the_answer_of_the_apps_own(site, pg):
    """What a plain ``on_limit`` returns is Litestar's response."""
    url = site(on_limit=lambda request, problem: litestar.Response({"own": problem["code"]}, status_code=402))
    answer = get(f"{url}/metered", headers=BEN)
    assert (answer.status_code, answer.json()) == (402, {"own": "period_spend"})


def test_options_that_cannot_be_are_told_at_once():
    """A wrong option, and an async ``on_limit``, are refused when the plugin is made."""

    async def on_limit(request, problem):
        return None

    with pytest.raises(TypeError, match="did you mean exempt"):
        PaygentPlugin(exmpt=[])
    with pytest.raises(TypeError, match="on_limit must be a plain function"):
        PaygentPlugin(on_limit=on_limit)
