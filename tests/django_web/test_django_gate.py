"""What a refused call answers: before the answer has begun, in its first part, in its middle."""

import asyncio
import gzip
import json
import threading

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import override_settings
from llm_views import background

from paygent import Paygent, PaygentLimitExceeded
from paygent.ledger import LedgerError

ADVICE = "ignore:StreamingHttpResponse must consume asynchronous iterators"
CALLS = ["plain", "plain-async", "blocking-in-async"]


def is_refusal(answer, code="period_spend"):
    assert (answer.status_code, answer.json()["code"]) == (429, code)
    assert answer["Cache-Control"] == "no-store"
    assert answer["x-should-retry"] == "false"
    return True


def ended_by_an_error(body):
    *events, last = body.decode().strip().split("\n\n")
    assert len(events) > 0
    assert last.startswith("event: error\ndata: ")
    problem = json.loads(last.partition("data: ")[2])
    return (problem["type"], problem["code"], problem["status"]) == ("error", "period_spend", 429)


async def drained(answer):
    return b"".join([part async for part in answer])


@pytest.mark.parametrize("view", CALLS)
def test_a_view_that_is_refused(view, browser):
    """A refusal that a view lets pass is the 429, not a 500."""
    assert is_refusal(browser("ben", "free").get(f"/{view}"))


@pytest.mark.parametrize("view", CALLS)
async def test_a_view_that_is_refused_under_asgi(view, async_browser):
    """The same under ASGI."""
    assert is_refusal(await (await async_browser("ben", "free")).get(f"/{view}"))


async def test_a_gate_in_a_task_group(async_browser):
    """What a task group wraps in an exception group is the 429 all the same."""
    assert is_refusal(await (await async_browser("ben", "free")).get("/grouped"))


async def test_a_gate_in_a_task_that_outlives_its_request(async_browser, pg):
    """A refusal behind the answer changes nothing of it, and charges nothing."""
    ben = await async_browser("ben", "free")
    refused = []
    pg.on_hard_gate(refused.append)
    assert (await ben.get("/afterwards")).status_code == 202
    (task,) = background
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], PaygentLimitExceeded)
    assert len(refused) == 1
    assert pg.get_usage(ben.user_id).period_cost == 0


@pytest.mark.filterwarnings(ADVICE)
@pytest.mark.parametrize("view", ["stream", "stream-async", "text-stream"])
def test_a_gate_in_the_first_part(view, browser):
    """A call within a body, refused before the first part, is a clean 429."""
    assert is_refusal(browser("ben", "free").get(f"/{view}"))


@pytest.mark.parametrize("view", ["stream", "stream-async", "text-stream"])
async def test_a_gate_in_the_first_part_under_asgi(view, async_browser):
    """The start of the answer is held back for it."""
    assert is_refusal(await (await async_browser("ben", "free")).get(f"/{view}"))


def keeps_what_was_said(answer):
    fields = {field.strip() for field in answer["Vary"].split(",")}
    assert {"Accept", "Origin"} <= fields
    return (answer["X-Request-Id"], answer.cookies["seen"].value, "Content-Language" in answer) == (
        "7",
        "1",
        False,
    )


def test_the_refusal_keeps_what_the_view_said_of_the_request(browser):
    """Cookies and the like of the replaced response are on the 429, what describes its body is not."""
    answer = browser("ben", "free").get("/cookie-stream")
    assert is_refusal(answer)
    assert keeps_what_was_said(answer)


async def test_the_refusal_keeps_what_the_view_said_of_the_request_under_asgi(async_browser):
    """The same under ASGI."""
    answer = await (await async_browser("ben", "free")).get("/cookie-stream")
    assert is_refusal(answer)
    assert keeps_what_was_said(answer)


def test_a_gate_in_mid_stream(browser):
    """A stream of events that has begun ends with one error event."""
    answer = browser("cleo", "tiny").get("/until-refused")
    assert answer.status_code == 200
    assert ended_by_an_error(answer.getvalue())


@pytest.mark.filterwarnings(ADVICE)
def test_a_gate_in_an_async_body_under_wsgi(browser):
    """Django reads that body to its end first, so that there is nothing begun yet: a clean 429."""
    assert is_refusal(browser("cleo", "tiny").get("/until-refused-async"))


@pytest.mark.parametrize("view", ["until-refused", "until-refused-async"])
async def test_a_gate_in_mid_stream_under_asgi(view, async_browser):
    """The same for both kinds of body under ASGI."""
    answer = await (await async_browser("cleo", "tiny")).get(f"/{view}")
    assert answer.status_code == 200
    assert ended_by_an_error(await drained(answer))


@pytest.mark.parametrize("view", ["until-refused", "until-refused-async"])
@pytest.mark.parametrize("outer", ["django.middleware.gzip.GZipMiddleware", "llm_views.plain_middleware"])
async def test_behind_other_middleware(outer, view, async_browser, settings_with):
    """A middleware outside of ours that compresses the body, or that puts a thread between, harms nothing."""
    settings_with(MIDDLEWARE=[outer, *settings.MIDDLEWARE])
    cleo = await async_browser("cleo", "tiny")
    answer = await cleo.get(f"/{view}", headers={"accept-encoding": "gzip"})
    body = await drained(answer)
    assert ended_by_an_error(gzip.decompress(body) if answer.has_header("Content-Encoding") else body)


@pytest.mark.parametrize("outer", ["django.middleware.gzip.GZipMiddleware", "llm_views.plain_middleware"])
async def test_a_gate_in_the_first_part_behind_other_middleware(outer, async_browser, settings_with):
    """The 429 is whole there too."""
    settings_with(MIDDLEWARE=[outer, *settings.MIDDLEWARE])
    assert is_refusal(await (await async_browser("ben", "free")).get("/stream-async"))


def test_a_gate_within_a_middleware(browser, settings_with):
    """A call that a middleware inside of ours makes is gated, and its refusal is the 429 too."""
    settings_with(MIDDLEWARE=[*settings.MIDDLEWARE, "llm_views.asking_middleware"])
    ben = browser("ben", "free")
    ben.raise_request_exception = False
    assert is_refusal(ben.get("/hello"))


def test_half_a_text_does_not_end_as_if_it_were_whole(browser):
    """Where nothing can be said in a body, the exception goes on to the server: it breaks the connection."""
    from paygent import PaygentLimitExceeded

    answer = browser("cleo", "tiny").get("/text-stream")
    with pytest.raises(PaygentLimitExceeded):
        answer.getvalue()


async def test_a_quiet_stream_opens_all_the_same(async_browser, settings_with):
    """A stream without a part begins after DEFER_START_S, and is ended with its request."""
    settings_with(PAYGENT={"DEFER_START_S": 0.05})
    answer = await (await async_browser("ada")).get("/quiet")
    assert answer.status_code == 200
    await asyncio.to_thread(answer.close)


async def test_an_admitted_call_opens_the_stream(async_browser, settings_with):
    """The start is not held back longer than until the first call is admitted."""
    settings_with(PAYGENT={"DEFER_START_S": 600})
    answer = await (await async_browser("ada")).get("/stream-async?hang=1")
    assert answer.status_code == 200
    await asyncio.to_thread(answer.close)


def test_a_page_for_a_person(browser):
    """A browser that asks for a page gets one, with the way to upgrade."""
    with override_settings(PAYGENT={"UPGRADE_URL": "/upgrade?from={plan}"}):
        answer = browser("ben", "free").get("/plain", headers={"accept": "text/html"})
    assert (answer.status_code, answer["Content-Type"]) == (429, "text/html; charset=utf-8")
    assert b"/upgrade?from=free" in answer.content


def test_a_head_request_gets_no_body(browser):
    """HEAD is told of the body's length, and gets none."""
    answer = browser("ben", "free").head("/plain")
    assert (answer.status_code, answer.content) == (429, b"")
    assert int(answer["Content-Length"]) > 0


def test_anonymous_calls_can_be_blocked(browser, settings_with):
    """With ANONYMOUS "block" a call that is nobody's answers 401."""
    settings_with(PAYGENT={"ANONYMOUS": "block"})
    answer = browser().get("/plain")
    assert (answer.status_code, answer.json()["code"]) == (401, "no_user")


def test_report_only_lets_the_call_run(browser, pg, settings_with):
    """With REPORT_ONLY a call beyond the limit runs and is posted."""
    settings_with(PAYGENT={"REPORT_ONLY": True})
    ben = browser("ben", "free")
    assert ben.get("/plain").status_code == 200
    assert pg.get_usage(ben.user_id).period_tokens_total > 0


@pytest.mark.parametrize("path", ["plain_on_limit", "async_on_limit"])
@pytest.mark.parametrize("view", ["plain", "plain-async", "stream"])
def test_a_project_may_answer_itself(path, view, browser, settings_with):
    """What ON_LIMIT returns is the answer."""
    settings_with(PAYGENT={"ON_LIMIT": f"test_django_gate.{path}"})
    answer = browser("ben", "free").get(f"/{view}")
    assert (answer.status_code, answer.content) == (402, b"no more of period_spend")


@pytest.mark.parametrize("path", ["plain_on_limit", "async_on_limit"])
@pytest.mark.parametrize("view", ["plain", "plain-async", "stream-async"])
async def test_a_project_may_answer_itself_under_asgi(path, view, async_browser, settings_with):
    """The same under ASGI."""
    settings_with(PAYGENT={"ON_LIMIT": f"test_django_gate.{path}"})
    answer = await (await async_browser("ben", "free")).get(f"/{view}")
    assert (answer.status_code, answer.content) == (402, b"no more of period_spend")


@pytest.mark.parametrize("path", ["template_on_limit", "async_template_on_limit"])
@pytest.mark.parametrize("view", ["plain", "plain-async", "stream"])
def test_a_project_may_answer_with_a_template(path, view, browser, settings_with):
    """A template is rendered wherever the limit was met, in a view or in a body that has not begun."""
    settings_with(PAYGENT={"ON_LIMIT": f"test_django_gate.{path}"})
    answer = browser("ben", "free").get(f"/{view}")
    assert (answer.status_code, answer.content) == (429, b"period_spend of many")


@pytest.mark.parametrize("path", ["template_on_limit", "async_template_on_limit"])
@pytest.mark.parametrize("view", ["plain", "plain-async", "stream", "stream-async"])
async def test_a_project_may_answer_with_a_template_under_asgi(path, view, async_browser, settings_with):
    """The same under ASGI, where the template may still use the database."""
    settings_with(PAYGENT={"ON_LIMIT": f"test_django_gate.{path}"})
    answer = await (await async_browser("ben", "free")).get(f"/{view}")
    assert (answer.status_code, answer.content) == (429, b"period_spend of many")


def plain_on_limit(request, problem):
    return HttpResponse(f"no more of {problem['code']}", status=402)


async def async_on_limit(request, problem):
    return plain_on_limit(request, problem)


def template_on_limit(request, problem):
    from django.contrib.auth.models import User  # once Django is set up

    template = engines["django"].from_string("{{ code }} of {% if users %}many{% endif %}")
    return TemplateResponse(request, template, {**problem, "users": User.objects.count}, status=429)


async def async_template_on_limit(request, problem):
    return template_on_limit(request, problem)


def test_headers_tell_the_usage(browser, settings_with):
    """With USAGE_HEADERS the answer to a request with a call says what is left; one without says nothing."""
    settings_with(PAYGENT={"USAGE_HEADERS": True})
    ada = browser("ada")
    assert ada.get("/plain")["Paygent-Plan"] == "pro"
    assert not ada.get("/hello").has_header("Paygent-Plan")


@pytest.fixture
def stalled(browser, person, pg, tmp_path):
    """A browser of a project whose ledger, a file, stopped to answer after it had been opened."""
    given_up, broken, made = threading.Event(), pytest.MonkeyPatch(), []

    def stall(*args, **kwargs):
        given_up.wait(100)
        raise LedgerError("the ledger is away")

    def start(**options):
        made.append(Paygent.init(db_path=tmp_path / "p.db", **options))
        ledger = made[0]._meter.ledger
        for name in ("lease", "settle", "totals"):
            broken.setattr(ledger, name, stall)
        return browser("ada")

    yield start
    given_up.set()
    broken.undo()
    made[0].shutdown()


@pytest.mark.parametrize(("fail_open", "status"), [(True, 200), (False, 503)])
def test_without_a_ledger(fail_open, status, stalled, person, ledger_waits):
    """While the ledger is away requests are served, or answered 503; the first waits, and nobody again."""
    person("ada")
    ada = stalled(fail_open=fail_open)
    answers = [ada.get("/plain")]
    assert len(ledger_waits)
    ledger_waits.forget()
    answers += [ada.get("/plain") for _ in range(9)]
    assert len(ledger_waits) == 0
    assert {answer.status_code for answer in answers} == {status}
    if not fail_open:
        assert answers[0].json()["code"] == "unavailable"
