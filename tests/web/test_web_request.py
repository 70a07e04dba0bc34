"""The slot of a request, filled late, under a framework that is nothing but a dictionary."""

import asyncio
import gc
import logging
import sys

import pytest

from paygent import PaygentLimitExceeded
from paygent.context import as_payer, current_payer
from paygent.web.exemptions import Place
from paygent.web.options import WebOptions
from paygent.web.plugin import WebPlugin
from paygent.web.request import RequestSlot, current_slot
from paygent.web.waiting import CannotAwaitError


def plugin_of(**options):
    return WebPlugin(
        WebOptions(**options),
        default_user=lambda request: request.get("user"),
        place_of=lambda request: Place(request.get("path", "/"), request.get("route")),
    )


class Asked:
    """A finder that counts how often it is asked."""

    def __init__(self, answer):
        self.answer, self.times = answer, 0

    def __call__(self, request):
        self.times += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_opening_a_slot_asks_nobody():
    """Nothing is looked up when a request begins."""
    find = Asked("ada")
    slot = plugin_of(get_user_id=find).open({})
    assert (find.times, slot.is_found) == (0, False)


def test_reading_the_user_fills_the_slot_once():
    """The first reading asks all finders, later ones remember."""
    finders = {"get_user_id": Asked(7), "get_session_id": Asked("s"), "get_plan": Asked("pro")}
    slot = plugin_of(**finders, metadata=Asked({"feature": "chat"})).open({})
    assert (slot.user_id, slot.user_id) == ("7", "7")
    assert (slot.session_id, slot.plan, slot.metadata) == ("s", "pro", {"feature": "chat"})
    assert [find.times for find in finders.values()] == [1, 1, 1]


def test_the_framework_user_is_the_default():
    """Without ``get_user_id`` the framework's own signed-in user pays."""
    assert plugin_of().open({"user": "ada"}).user_id == "ada"


def test_nobody_does_not_stick():
    """Read before the framework has signed anybody in, the user is asked for again."""
    request = {}
    slot = plugin_of().open(request)
    assert slot.user_id is None
    request["user"] = "ada"
    assert slot.user_id == "ada"


def test_who_stands_in_for_nobody_gives_way_to_somebody():
    """The id that ``anonymous`` gave is not kept when a user is found after all."""
    request = {}
    slot = plugin_of(anonymous=lambda request: "anon:1").open(request)
    assert slot.user_id == "anon:1"
    request["user"] = "ada"
    assert slot.user_id == "ada"


def test_what_is_assigned_wins():
    """A user, session and plan that code assigns are not asked for."""
    find = Asked("ben")
    slot = plugin_of(get_user_id=find, get_session_id=find, get_plan=find).open({})
    slot.user_id, slot.session_id, slot.plan = "ada", "s", "pro"
    assert (slot.user_id, slot.session_id, slot.plan, find.times) == ("ada", "s", "pro", 0)


@pytest.mark.parametrize("name", ["get_user_id", "get_session_id", "get_plan", "metadata", "anonymous"])
@pytest.mark.parametrize("answer", [RuntimeError("no database"), ["a list"]])
def test_a_faulty_finder_harms_no_other(name, answer, caplog):
    """A finder that raises or answers nonsense is logged by its name, and the call goes on without it."""
    slot = plugin_of(**{name: Asked(answer)}).open({"user": None if name == "anonymous" else "ada"})
    assert slot.user_id == ("ada" if name in {"get_session_id", "get_plan", "metadata"} else None)
    assert f"{name} failed" in caplog.text


def test_tags_join_the_metadata():
    """Tags of the view win over what the option says of every request."""
    slot = plugin_of(metadata=Asked({"app": "x", "feature": "any"})).open({"user": "ada"})
    slot.tag(feature="chat")
    assert slot.user_id == "ada"
    assert slot.metadata == {"app": "x", "feature": "chat"}


def test_nobody_may_be_refused():
    """``anonymous="block"`` refuses a call of nobody with the code ``no_user``."""
    slot = plugin_of(anonymous="block").open({})
    with pytest.raises(PaygentLimitExceeded) as caught:
        slot.resolve()
    assert caught.value.refusal.code == "no_user"
    assert slot.refusal is caught.value


@pytest.mark.parametrize("options", [{"anonymous": "skip"}, {"anonymous": lambda request: None}])
def test_else_nobody_is_left_to_the_core(options):
    """Otherwise the engine decides on calls of nobody, by ``init(unattributed=…)``."""
    assert plugin_of(**options).open({}).resolve is None


def test_reporting_only_refuses_nobody():
    """``report_only`` lets calls of nobody pass, also where they are to be blocked."""
    assert plugin_of(anonymous="block", report_only=True).open({}).resolve() is None


# --- async options ----------------------------------------------------------------------------------------


async def slow_user(request):
    await asyncio.sleep(0)
    return request.get("token")


async def test_an_async_finder_is_awaited_at_the_first_call():
    """What an async call awaits before it begins fills the slot; then there is nothing to await."""
    slot = plugin_of(get_user_id=slow_user, get_plan=slow_user).open({"token": "ada"})
    await slot.identify()
    assert (slot.user_id, slot.plan, slot.identify) == ("ada", "ada", None)


async def test_an_async_stand_in_does_not_hide_a_user():
    """An async ``anonymous`` is awaited only where the plain ``get_user_id`` finds nobody."""

    async def stand_in(request):
        return "anon:1"

    for user, expected in (("ada", "ada"), (None, "anon:1")):
        slot = plugin_of(anonymous=stand_in).open({"user": user})
        await slot.identify()
        assert slot.user_id == expected


async def test_exempt_requests_await_nobody():
    """Where the request is exempt, an async finder is not asked."""
    asked = []

    async def find(request):
        asked.append(request)

    await plugin_of(get_user_id=find, exempt="/health").open({"path": "/health"}).identify()
    assert asked == []


async def test_a_faulty_async_finder_harms_nobody(caplog):
    """An async finder that raises is logged, and the call is nobody's."""

    async def find(request):
        raise LookupError("no such token")

    slot = plugin_of(get_user_id=find).open({})
    await slot.identify()
    assert slot.user_id is None
    assert "get_user_id failed" in caplog.text


def test_an_async_finder_needed_by_a_plain_call_says_so(caplog):
    """Where nothing can await it, the log says so, and from then on it is awaited when a request begins."""
    plugin = plugin_of(get_user_id=slow_user)
    assert plugin.open({"token": "ada"}).user_id is None
    assert plugin.eager
    assert "get_user_id is async" in caplog.text


def test_a_framework_may_await_for_a_plain_call():
    """A plugin that can wait on this thread finds the user of a plain call too."""

    def await_here(find, request):
        return asyncio.run(find(request))

    plugin = WebPlugin(
        WebOptions(get_user_id=slow_user),
        default_user=slow_user,
        place_of=lambda request: Place("/"),
        await_here=await_here,
    )
    assert (plugin.open({"token": "ada"}).user_id, plugin.eager) == ("ada", False)


def test_a_framework_may_decline_to_await():
    """``CannotAwaitError`` means: not on this thread; it is no fault of the finder's."""

    def await_here(find, request):
        raise CannotAwaitError

    plugin = plugin_of(get_user_id=slow_user)
    plugin._await_here = await_here
    assert (plugin.open({}).user_id, plugin.eager) == (None, True)


# --- what a request is made of ----------------------------------------------------------------------------


def test_a_slot_dies_with_its_request():
    """No cycle keeps a slot: what a request leaves behind is gone without the garbage collector."""
    gc.disable()
    try:
        slot = plugin_of(anonymous="block").open({})
        assert slot.user_id is None
        assert sys.getrefcount(slot) == 2
        tally = slot.tally
        del slot
        assert sys.getrefcount(tally) == 2
    finally:
        gc.enable()


def test_the_slot_of_a_request_is_found_in_its_context():
    """``current_slot`` is the request's, and nothing outside of one."""
    slot = plugin_of().open({})
    assert current_slot() is None
    with as_payer(slot):
        assert current_slot() is current_payer() is slot
    assert isinstance(slot, RequestSlot)


# --- exemptions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exempt", "path", "covered"),
    [
        ("/health", "/health", True),
        ("/health", "/health/deep", False),
        ("/health", "/healthy", False),
        ("/internal/", "/internal/jobs/1", True),
        ("/internal/", "/internal", False),
        ("/static/*.js", "/static/app.js", True),
        ("/static/*.js", "/static/app.css", False),
        ("/v1.0", "/v1x0", False),
        ("*", "/any", False),
        ((), "/any", False),
    ],
)
def test_a_path_is_exempt_as_it_is_written(exempt, path, covered):
    """Paths are exact, with ``*`` for anything and a trailing slash for everything below."""
    assert plugin_of(exempt=exempt).open({"path": path}).exempt is covered


@pytest.mark.parametrize(("exempt", "covered"), [("admin:*", True), ("admin:users", True), ("users", False)])
def test_a_route_is_exempt_by_its_name(exempt, covered):
    """Other text is the name of a route."""
    assert plugin_of(exempt=exempt).open({"route": "admin:users"}).exempt is covered


def test_a_route_is_decided_once():
    """What is said of a path and route is remembered; functions are asked for each request."""
    asked = Asked(False)
    plugin = plugin_of(exempt=["/health", asked])
    for _ in range(3):
        assert not plugin.open({"path": "/chat"}).exempt
    assert asked.times == 3
    assert plugin.exemptions._known == {Place("/chat"): False}


def test_the_memory_of_paths_is_bounded():
    """Ever new paths do not fill the memory."""
    plugin = plugin_of(exempt="/health")
    for number in range(5000):
        assert not plugin.open({"path": f"/{number}"}).exempt
    assert len(plugin.exemptions._known) <= 4096


def test_a_faulty_exemption_does_not_exempt(caplog):
    """A function that raises leaves the request metered, and is logged."""
    assert not plugin_of(exempt=Asked(ValueError("no"))).open({}).exempt
    assert "exempt failed" in caplog.text


@pytest.fixture(autouse=True)
def _logged(caplog):
    caplog.set_level(logging.INFO, "paygent")


@pytest.fixture(autouse=True)
def _no_instance(monkeypatch):
    """These tests need no engine."""
    monkeypatch.setattr(WebPlugin, "_initialised", lambda plugin: None)
