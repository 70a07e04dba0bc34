from datetime import datetime, timedelta, timezone

import pytest

from paygent.core.errors import PaygentLimitExceeded, PaygentUnavailable, Refusal
from paygent.core.models import GuardResult
from paygent.web.limit_response import LimitResponder, Offer, find_refusal
from paygent.web.negotiation import negotiated

MAY = datetime(2026, 5, 1, tzinfo=timezone.utc)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PRO = Offer("pro", "Pro", price="49.00")


def refused(code="period_spend", *, used=5.0, limit=5.0, **fields):
    reason = {"session_spend": "session_spend", "model_tokens": "model_limit:gpt-4o"}.get(code, "total_spend")
    result = GuardResult(
        status="hard_gate",
        gate_reason=reason,
        current_value=used,
        limit_value=limit,
        message="for developers",
    )
    given = {"plan": "free", "model": "gpt-4o", "limit": limit, "used": used, "resets_at": MAY, **fields}
    return PaygentLimitExceeded(result, Refusal(code, result, user_id="user_123", **given))


def headers_of(answer):
    return dict(answer.headers)


def test_the_problem_of_a_spent_plan_is_the_documented_one():
    """A spent plan is told with every documented key, amounts as decimal text and the reset in UTC."""
    responder = LimitResponder("https://app.example.com/upgrade?from={plan}", offers={"free": PRO})
    assert responder.problem(refused()) == {
        "type": "https://paygent.to/problems/period_spend",
        "title": "Plan limit reached",
        "status": 429,
        "detail": "You have used all of your Free plan.",
        "code": "period_spend",
        "gate_reason": "total_spend",
        "retryable": False,
        "resets_at": "2026-05-01T00:00:00Z",
        "limit": {"unit": "usd", "limit": "5.00", "used": "5.00", "remaining": "0.00", "model": None},
        "plan": {"name": "free", "label": "Free"},
        "upgrade": {
            "required": True,
            "url": "https://app.example.com/upgrade?from=free",
            "label": "Upgrade to Pro",
            "suggested_plan": {
                "name": "pro",
                "label": "Pro",
                "price": "49.00",
                "currency": "USD",
                "interval": "month",
            },
        },
    }


@pytest.mark.parametrize(
    ("code", "fields", "status", "detail", "upgrades"),
    [
        ("session_spend", {}, 429, "You have used all that your Free plan includes for one session.", True),
        (
            "model_tokens",
            {"unit": "tokens", "used": 50_000.0, "limit": 50_000.0},
            429,
            "You have used all of the gpt-4o tokens of your Free plan.",
            True,
        ),
        (
            "model_not_in_plan",
            {"unit": "tokens", "used": 0.0, "limit": 0.0, "resets_at": None},
            429,
            "Your Free plan does not include gpt-4o.",
            True,
        ),
        ("no_plan", {"plan": None}, 429, "This needs a plan, and you have none yet.", True),
        (
            "no_user",
            {"plan": None},
            401,
            "Sign in to go on: we cannot tell whose plan this would use.",
            False,
        ),
        (
            "busy",
            {"retryable": True},
            429,
            "Other requests of yours are using what is left of your Free plan; try again in a moment.",
            False,
        ),
        ("disabled", {}, 429, "This is switched off for your account.", False),
    ],
)
def test_each_code_has_its_status_and_its_words(code, fields, status, detail, upgrades):
    """Every reason has a status and a sentence of its own, and offers an upgrade where one would help."""
    problem = LimitResponder().problem(refused(code, **fields))
    assert (problem["code"], problem["status"], problem["detail"]) == (code, status, detail)
    assert (problem["upgrade"] is not None) is upgrades


def test_a_ledger_that_is_away_is_our_fault():
    """A fault of ours is a 503 that asks to come back, and never looks like a limit."""
    answer = LimitResponder().response(PaygentUnavailable("no ledger"), {})
    assert answer.status == 503
    assert b'"code":"unavailable"' in answer.body
    assert headers_of(answer)["retry-after"] == "5"
    assert "x-should-retry" not in headers_of(answer)


def test_words_for_developers_stay_inside():
    """The engine's own message is never sent."""
    assert b"for developers" not in LimitResponder().response(refused(), {"accept": BROWSER}).body
    assert b"for developers" not in LimitResponder().response(refused(), {}).body


def test_a_request_too_large_for_what_is_left_says_so():
    """A refusal below the limit does not claim that everything is used."""
    detail = LimitResponder().problem(refused(used=4.5))["detail"]
    assert detail == "What is left of your Free plan does not cover this request."


def test_small_amounts_keep_their_digits():
    """Amounts below a cent show up to six decimals, larger ones two."""
    limit = LimitResponder().problem(refused(used=0.0044892, limit=0.004))["limit"]
    assert (limit["limit"], limit["used"], limit["remaining"]) == ("0.004", "0.004489", "0.00")


def test_tokens_are_whole():
    """A limit on tokens names its model and counts in whole tokens."""
    limit = LimitResponder().problem(refused("model_tokens", unit="tokens", used=60_000.0, limit=50_000.0))[
        "limit"
    ]
    assert limit == {
        "unit": "tokens", "limit": "50000", "used": "60000", "remaining": "0", "model": "gpt-4o"
    }  # fmt: skip


@pytest.mark.parametrize("headers", [{}, {"accept": BROWSER}])
def test_amounts_can_be_kept_back(headers):
    """``expose_amounts=False`` leaves every number of the limit out, in JSON and on the page."""
    answer = LimitResponder(expose_amounts=False).response(refused(used=7.31, limit=6.29), headers)
    assert b"7.31" not in answer.body
    assert b"6.29" not in answer.body


# --- headers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wait", "told"),
    [
        (timedelta(minutes=30), "1800"),
        (timedelta(hours=1), "3600"),
        (timedelta(hours=1, seconds=1), None),
        (timedelta(days=30), None),
        (timedelta(0), None),
    ],
)
def test_retry_after_is_for_short_waits(wait, told):
    """``Retry-After`` is sent for a wait of up to an hour: clients obey longer ones by sleeping."""
    answer = LimitResponder().response(refused("session_spend"), {}, now=MAY - wait)
    assert headers_of(answer).get("retry-after") == told


def test_a_spent_plan_stops_the_sdks_from_retrying():
    """A spent plan is never cached, varies by Accept, and tells SDK clients not to try again."""
    headers = headers_of(LimitResponder().response(refused(), {}))
    assert headers["x-should-retry"] == "false"
    assert headers["cache-control"] == "no-store"
    assert headers["vary"] == "Accept"


def test_a_busy_user_is_asked_to_come_back():
    """Busy means a second's wait, and retrying is welcome."""
    headers = headers_of(LimitResponder().response(refused("busy", retryable=True), {}))
    assert headers["retry-after"] == "1"
    assert "x-should-retry" not in headers


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({}, "json"),
        ({"accept": "*/*"}, "json"),
        ({"accept": "application/json"}, "json"),
        ({"accept": "application/problem+json"}, "problem"),
        ({"accept": "application/problem+json, application/json"}, "problem"),
        ({"accept": "application/json, application/problem+json;q=0.5"}, "json"),
        ({"accept": BROWSER}, "html"),
        ({"accept": BROWSER, "sec-fetch-dest": "document"}, "html"),
        ({"accept": BROWSER, "sec-fetch-dest": "empty"}, "json"),
        ({"accept": BROWSER, "x-requested-with": "XMLHttpRequest"}, "json"),
        ({"accept": "text/html;q=0.1, application/json"}, "json"),
        ({"accept": "text/html;q=0"}, "json"),
        ({"accept": "text/event-stream"}, "json"),
        ({"accept": "text/html;q=nonsense, ;;,,=;q"}, "json"),
    ],
)
def test_the_form_follows_the_client(headers, kind):
    """A browser that opens a page gets a page, everything else JSON; nonsense counts as nothing."""
    assert negotiated(headers) == kind


# --- the page and the event -------------------------------------------------------------------------------


def test_the_page_escapes_everything():
    """Whatever stands in names and addresses, the page holds no markup but its own."""
    evil = '"><script>alert(1)</script>'
    responder = LimitResponder(lambda refusal: '/up?x="onmouseover=alert(1)', offers={evil: Offer("p", evil)})
    body = responder.response(refused("model_not_in_plan", plan=evil, model=evil), {"accept": BROWSER}).body
    assert b"<script" not in body
    assert b'href="/up?x=&quot;onmouseover=alert(1)"' in body


def test_the_page_needs_nothing_but_its_own_style():
    """The page's content policy names the hash of its one style element, and it refers to nothing outside."""
    answer = LimitResponder("/upgrade").response(refused(), {"accept": BROWSER})
    page = answer.body.decode()
    style = page.partition("<style>")[2].partition("</style>")[0]
    import base64
    import hashlib

    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in headers_of(answer)["content-security-policy"]
    assert "src=" not in page
    assert " style=" not in page


def test_an_event_is_one_line_of_data():
    """The event of a started stream ends whatever was being sent, and carries the problem in one line."""
    event = LimitResponder().event(refused()).decode()
    lines = event.strip("\n").split("\n")
    assert event.startswith("\n\nevent: error\n")
    assert event.endswith("\n\n")
    assert len(lines) == 2
    assert '"type":"error","problem":"https://paygent.to/problems/period_spend"' in lines[1]


# --- the address to upgrade at ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/up",
        "javascript:alert(1)",
        "//evil.example",
        "/\\evil.example",
        "up",
        "",
        "/a b",
        "https://a\n",
        "/{user}",
        "/{",
    ],
)
def test_an_address_that_leads_elsewhere_is_refused(url):
    """Only https and paths of the app itself are taken, and only the placeholder that is known."""
    with pytest.raises(ValueError, match="upgrade_url"):
        LimitResponder(url)


def test_a_computed_address_that_leads_elsewhere_is_left_out(caplog):
    """A callable's address is checked each time; a bad one is logged, and the refusal goes out without it."""
    problem = LimitResponder(lambda refusal: "http://evil.example").problem(refused())
    assert problem["upgrade"]["url"] is None
    assert "upgrade_url failed" in caplog.text


def test_a_failing_address_is_told_in_one_line_once(caplog):
    """However often users bring it about, each kind of error is one line with its place, and no traceback."""
    responder = LimitResponder(lambda refusal: {"gpt-4o": "javascript:x"}[refusal.model] * 1000)
    for model in ("gpt-4o", "a\r\nb", "gpt-4o", "other"):
        assert responder.problem(refused(model=model))["upgrade"]["url"] is None
    lines = caplog.text.splitlines()
    assert len(lines) == 2
    assert "ValueError" in lines[0]
    assert "KeyError" in lines[1]
    assert "test_limit_response.py" in lines[1]
    assert max(map(len, lines)) < 600


def test_a_plans_name_is_encoded_in_the_address():
    """A plan's name cannot add anything to the address but itself."""
    problem = LimitResponder("/up?from={plan}").problem(refused(plan="a&b/../ü"))
    assert problem["upgrade"]["url"] == "/up?from=a%26b%2F..%2F%C3%BC"


def test_another_status_is_refused():
    """A spent limit is answered with 429 or 402 and nothing else."""
    assert LimitResponder(status_code=402).problem(refused())["status"] == 402
    with pytest.raises(ValueError, match="status_code"):
        LimitResponder(status_code=200)


# --- finding it -------------------------------------------------------------------------------------------


class Group(Exception):  # noqa: N818  # stands in for exception groups, which Python 3.10 has no class for
    def __init__(self, *members):
        super().__init__("group")
        self.exceptions = members


def chained(outer, **links):
    for name, error in links.items():
        setattr(outer, name, error)
    return outer


LIMIT = refused()


@pytest.mark.parametrize(
    "error",
    [
        LIMIT,
        chained(RuntimeError("response already started"), __cause__=LIMIT),
        Group(ValueError("x"), LIMIT),
        chained(RuntimeError("outer"), __cause__=Group(Group(LIMIT))),
    ],
)
def test_a_wrapped_refusal_is_found(error):
    """A refusal is found in causes and groups, nested at will."""
    assert find_refusal(error) is LIMIT


def test_a_circle_of_errors_ends():
    """Errors that lead back to themselves are searched once."""
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert find_refusal(first) is None
