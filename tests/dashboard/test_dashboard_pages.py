"""What the pages hold, whatever framework serves them."""

import logging
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, quote, urlsplit

import dashboard_world
import pytest
from dashboard_world import ODD, SCRIPT, USERS

from paygent import Paygent, PlanConfig, paygent_context
from paygent.dashboard import Dashboard
from paygent.dashboard.reading import Kept
from paygent.insight import DAY_US
from paygent.ledger import LedgerError

VOID = {"meta", "link", "input", "img", "br"}
ROOT = "/ops/paygent"


class Page(HTMLParser):
    """A page as a browser reads it: elements, texts, links."""

    def __init__(self, answer):
        super().__init__()
        self.status, self.headers = answer.status, dict(answer.headers)
        self.elements, self.open, self.texts = [], [], []
        self.feed(answer.body.decode())
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def links(self, page):
        found = (attributes.get("href", "") for name, attributes in self.elements if name == "a")
        return [href for href in found if urlsplit(href).path == f"{ROOT}/{page}"]


@pytest.fixture
def board(company):
    return Dashboard(company, lambda request: True)


def shown(board, path="", query=""):
    return Page(board.answer("GET", path, query, ROOT))


def one(user_id):
    return f"id={quote(user_id, safe='')}"


PAGES = [("", ""), ("users", ""), ("user", one(ODD)), ("user", one(SCRIPT)), ("plans", "")]


@pytest.mark.parametrize(("path", "query"), PAGES)
def test_pages_hold_nothing_that_could_run(board, path, query):
    """No page has a script, a style, a handler or an outside address, whatever users are called."""
    page = shown(board, path, query)
    assert page.status == 200
    for name, attributes in page.elements:
        assert name not in {"script", "style", "iframe", "object", "base"}
        assert not [key for key in attributes if key == "style" or key.startswith("on")]
        for key in ("href", "src", "action"):
            assert attributes.get(key, "/").startswith(("/", "#"))


@pytest.mark.parametrize(("path", "query"), PAGES)
def test_pages_are_kept_by_nobody_and_framed_by_nobody(board, path, query):
    """Each page forbids caches, frames, scripts, sniffing and telling others its address."""
    headers = shown(board, path, query).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(("path", "query"), PAGES)
def test_pages_can_be_read_without_eyes_or_pointer(board, path, query):
    """One first heading, a way past the navigation, scopes in tables, names on pictures, labels on fields."""
    page = shown(board, path, query)
    names = [name for name, _ in page.elements]
    assert names.count("h1") == 1
    assert next(attributes for name, attributes in page.elements if name == "a")["href"] == "#content"
    assert ("main", {"id": "content", "tabindex": "-1"}) in page.elements
    assert dict(page.elements)["html"] == {"lang": "en"}
    assert all(
        attributes.get("scope") in ("col", "row") for name, attributes in page.elements if name == "th"
    )
    assert names.count("table") == names.count("caption")
    for name, attributes in page.elements:
        if name == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
    fields = {attributes["id"] for name, attributes in page.elements if name == "input"}
    assert fields == {attributes["for"] for name, attributes in page.elements if name == "label"}


def test_every_user_is_listed_and_linked(board):
    """The list holds each user once, and its links lead to pages that name him as he is."""
    links = shown(board, "users").links("user")
    assert sorted(parse_qs(urlsplit(href).query)["id"][0] for href in links) == sorted(USERS)
    for href in links:
        user_id = parse_qs(urlsplit(href).query)["id"][0]
        assert user_id in shown(board, "user", urlsplit(href).query).texts


def test_the_overview_adds_up(board):
    """The spend of 30 days on the first page is the sum of all events, and its users lead to their pages."""
    page = shown(board)
    ledger = board._pg._meter.exporter.ledger
    today = board._days(30)
    total = sum(e.cost_nusd for e in ledger.events(limit=10_000) if e.timestamp_us >= today[0] * DAY_US)
    assert f"Spent in 30 days ${total / 1e9:,.2f}" in page.text
    assert "ada@northwind.example" in page.text
    assert len(page.links("user")) >= 10


@pytest.mark.parametrize(("days", "shown_days"), [("7", 7), ("90", 90), ("8", 30), ("-1", 30), ("x", 30)])
def test_only_offered_ranges_are_shown(board, days, shown_days):
    """The days asked for are one of those offered, else 30."""
    assert f"Spent in {shown_days} days" in shown(board, "", f"days={days}").text


def test_one_user_shows_all_limits(board):
    """Used, limit, state, reservation and reset of each limit of the plan, and the newest rows."""
    page = shown(board, "user", one("margaret@apollo.example"))
    assert "$20.40 of $20.00" in page.text
    assert "Tokens of gpt-4o" in page.text
    assert "Limit reached" in page.text
    assert "Decisions of the gate" in page.text
    assert "feature: " in page.text


def test_holds_of_processes_are_shown_as_reserved(board):
    """What a process has leased for a user stands beside what he has used."""
    ledger = board._pg._meter.exporter.ledger
    held = sum(
        amount
        for lease in ledger._connection.execute("SELECT amounts FROM leases").fetchall()
        for scope, _, amount in __import__("json").loads(lease[0])
        if scope == "total_spend"
    )
    assert held
    texts = [shown(board, "user", one(user)).text for user in ("linus@kernel.example", ODD)]
    reserved = [re.search(r"of \$20\.00 \d+% (\$[\d.]+)", text)[1] for text in texts]
    assert "$0.00" not in reserved


def test_reading_changes_nothing(board, company):
    """After every page was shown the store holds exactly the rows that it held before."""
    company.flush(give_back=True)
    ledger = company._meter.exporter.ledger

    def rows():
        tables = ("accounts", "plans", "sessions", "totals", "leases", "events", "gate_events")
        return {t: ledger._query(f"SELECT * FROM {t} ORDER BY 1, 2") for t in tables}

    before = rows()
    for path, query in [*PAGES, ("user", "id=nobody")]:
        shown(board, path, query)
    assert rows() == before


def test_who_is_not_known_is_said_to_be_so(board):
    """The page of an id that was never seen says that, and makes no user of it."""
    page = shown(board, "user", "id=nobody")
    assert "Nobody with this id has made a call yet." in page.text
    assert "nobody" not in shown(board, "users").texts


def test_a_search_finds_by_prefix_and_says_when_it_does_not(board):
    """Ids that begin with the text are listed; markup in it stays text; no match is said."""
    assert len(shown(board, "users", "q=ma").links("user")) == 1
    odd = shown(board, "users", f"q={quote(SCRIPT)}")
    assert len(odd.links("user")) == 1
    assert ("input", SCRIPT) in [(name, attributes.get("value")) for name, attributes in odd.elements]
    assert "No user's id begins with that." in shown(board, "users", "q=zz").text


def test_users_are_paged(pg):
    """120 users take three pages, linked one to the next with the search kept, each user on one of them."""
    names = [f"u{number:03}" for number in range(120)]
    write = lambda ledger: [ledger.put_account(name, {}) for name in names]  # noqa: E731
    pg._meter.exporter.call(write).result(30)
    board, seen, query = Dashboard(pg, lambda request: True), [], "q=u"
    for _ in range(3):
        page = shown(board, "users", query)
        seen += [parse_qs(urlsplit(href).query)["id"][0] for href in page.links("user")]
        following = [a["href"] for name, a in page.elements if name == "a" and a.get("rel") == "next"]
        query = urlsplit(following[0]).query if following else None
    assert (seen, query) == (names, None)


def test_plans_are_shown_with_what_binds(board):
    """Limits, marks, prices for a million tokens and the number of users stand on each plan."""
    text = shown(board, "plans").text
    assert text.index("Default") < text.index("Free") < text.index("Pro") < text.index("Business")
    assert "$250.00" in text
    assert "95%" in text
    assert "claude-sonnet-4-5 $3.00 $15.00 1,000,000" in text
    assert "web_search $0.01" in text
    assert "Pro 5 users" in text


def test_users_on_a_plan_that_nobody_registered_are_pointed_out(pg):
    """They have no limits, so the page of plans says how many there are."""
    pg._meter.exporter.call(lambda ledger: ledger.put_account("ada", {"plan": "gone"})).result(30)
    text = shown(Dashboard(pg, lambda request: True), "plans").text
    assert "One user is on the plan “gone”, which is not registered." in text


def test_an_empty_ledger_is_no_error(pg):
    """Every page of a new app says that there is nothing yet."""
    board = Dashboard(pg, lambda request: True)
    assert "Nobody has made a call yet." in shown(board, "users").text
    assert "No plan is registered" in shown(board, "plans").text
    assert "Nothing here yet." in shown(board).text


def test_a_call_is_seen_at_once(pg):
    """A call made through Paygent is on the pages as soon as it is settled."""
    pg.configure_plan("pro", PlanConfig(max_spend_per_period=5.0))
    pg.assign_plan("ada", "pro")
    board = Dashboard(pg, lambda request: True)
    assert "Spent today $0.00" in shown(board).text
    with paygent_context(user_id="ada"):
        pg.record_event(cost=1.25, description="a report")
    pg.flush()
    assert "Spent today $1.25" in shown(board).text
    assert "$1.25 of $5.00" in shown(board, "user", "id=ada").text


@pytest.mark.parametrize("path", ["elsewhere", "user", "users/x", "../plans", "style.css", "user/ada"])
def test_other_addresses_are_not_found(board, path):
    """What is no page is a 404 that says nothing of the address."""
    page = shown(board, path)
    assert page.status == 404
    assert path not in page.text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_can_be_written(board, method):
    """Only GET and HEAD are answered; there is no form that sends anything else."""
    assert board.answer(method, "", "", ROOT).status == 405
    forms = [a for path, query in PAGES for name, a in shown(board, path, query).elements if name == "form"]
    assert {form["method"] for form in forms} == {"get"}


def test_head_is_get_without_the_body(board):
    """HEAD has the status and headers of GET, and nothing else."""
    answer = board.answer("HEAD", "plans", "", ROOT)
    assert (answer.status, answer.body) == (200, b"")
    assert int(dict(answer.headers)["content-length"]) > 1000


def test_the_style_is_one_file_that_may_be_kept(board):
    """The page's style sheet is served under a name that changes with its content, and colours the charts."""
    (href,) = [a["href"] for name, a in shown(board).elements if a.get("rel") == "stylesheet"]
    answer = board.answer("GET", href.removeprefix(f"{ROOT}/"), "", ROOT)
    assert dict(answer.headers)["content-type"].startswith("text/css")
    assert "immutable" in dict(answer.headers)["cache-control"]
    assert b"prefers-color-scheme" in answer.body
    assert b"--pgc-s0" in answer.body


def test_a_ledger_that_is_away_is_said_without_its_name(company, monkeypatch, caplog):
    """The page is a 503 that tells nothing of the store; the log does."""
    from paygent.ledgers.sqlite import SqliteLedger

    def away(*_):
        raise LedgerError("/secret/place: unable to open")

    monkeypatch.setattr(SqliteLedger, "_query", away)
    with caplog.at_level(logging.WARNING, "paygent"):
        page = shown(Dashboard(company, lambda request: True))
    assert page.status == 503
    assert "/secret/place" not in page.text
    assert "/secret/place" in caplog.text


def test_sums_do_not_run_on_the_ledger_thread(company, monkeypatch):
    """While a page adds up many rows the ledger thread is free for the calls of users."""
    import threading

    from paygent.ledgers.sqlite import SqliteLedger

    seen = []
    plain = SqliteLedger.day_sums

    def watched(self, *asked):
        seen.append(threading.current_thread().name)
        assert company._meter.exporter.call(lambda ledger: 1).result(60) == 1
        return plain(self, *asked)

    monkeypatch.setattr(SqliteLedger, "day_sums", watched)
    assert shown(Dashboard(company, lambda request: True)).status == 200
    assert seen
    assert "paygent-ledger" not in seen


def test_a_store_without_sums_still_shows_one_user(redis_url):
    """On Redis the lists say why they are not there, and a whole id leads to its user and to the plans."""
    pg = Paygent.init(ledger=redis_url, auto_instrument=False)
    try:
        dashboard_world.fill(pg)
        board = Dashboard(pg, lambda request: True)
        assert "This ledger keeps no sums over all users" in shown(board).text
        answer = board.answer("GET", "users", f"q={quote(ODD, safe='')}", ROOT)
        assert answer.status == 307
        page = shown(board, "user", urlsplit(dict(answer.headers)["location"]).query)
        assert "$12.20 of $20.00" in page.text
        assert "Pro" in shown(board, "plans").text
    finally:
        pg.shutdown()


@pytest.mark.parametrize("written", ["http://127.0.0.1:9/pay", "http://127.0.0.1:9/pay/api/v1/"])
def test_connected_mode_leads_to_the_backend(tmp_path, written):
    """With an API key the pages are the backend's own, and the link leads to its admin."""
    with pytest.warns(UserWarning, match="no connection"):
        pg = Paygent.init("pg_test_x", written, tmp_path / "p.db", auto_instrument=False)
    try:
        page = Page(Dashboard(pg, lambda request: True).answer("GET", "", "", ROOT))
        assert "http://127.0.0.1:9/pay/admin/" in [a.get("href") for _, a in page.elements]
        assert "pg_test_x" not in page.text
    finally:
        pg.shutdown()


def test_without_a_paygent_there_is_nothing_to_show(pg):
    """After shutdown, and before init, a page says so with a 503."""
    board, following = Dashboard(pg, lambda request: True), Dashboard(None, lambda request: True)
    assert shown(following).status == 200
    pg.shutdown()
    assert shown(board).status == 503
    assert shown(following).status == 503


@pytest.mark.parametrize("given", [None, "yes", True])
def test_a_dashboard_without_authorize_is_not_made(pg, given):
    """What is no function is refused when the app starts."""
    with pytest.raises(TypeError, match="authorize must be a function"):
        Dashboard(pg, given)


@pytest.mark.parametrize("said", [False, None, 0, 1, "yes", object(), [True]])
def test_only_true_lets_a_request_pass(pg, said):
    """An answer that is merely truthy, such as a redirect returned by mistake, lets nobody in."""
    assert Dashboard(pg, lambda request: True).allows(True) is True
    assert Dashboard(pg, lambda request: True).allows(said) is False


def test_answers_are_kept_for_a_while_and_then_asked_for_again():
    """Within its time an answer is not asked for again, afterwards it is; other keys are others."""
    now, asked = [100.0], []
    kept = Kept(lambda: now[0])

    def ask():
        asked.append(now[0])
        return len(asked)

    assert [kept.get("a", 30, ask), kept.get("a", 30, ask), kept.get("b", 30, ask)] == [1, 1, 2]
    now[0] += 30
    assert kept.get("a", 30, ask) == 3
