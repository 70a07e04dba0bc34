"""How browsers treat the answers of each web plugin: pages, scripts, other origins, event streams."""

FETCH = """async ([url, options]) => {
  const answer = await fetch(url, options);
  const [type, retry] = ["content-type", "x-should-retry"].map((name) => answer.headers.get(name));
  return { status: answer.status, type, retry, problem: await answer.json() };
}"""
POSTED = {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": "{}"}


def test_a_page_of_another_origin_reads_the_429(limited, page):
    """Through the app's CORS headers a script of another origin gets status, body and exposed headers."""
    page.goto(f"http://localhost:{limited.port}/")
    answer = page.evaluate(FETCH, [f"{limited.url}/gated", POSTED | {"credentials": "include"}])
    assert (answer["status"], answer["retry"]) == (429, "false")
    assert answer["problem"]["code"] == "period_spend"
    assert answer["problem"]["upgrade"]["url"] == "/upgrade?from=free"


def test_a_person_gets_a_page_and_a_script_gets_json(limited, page):
    """The same address answers a navigation with a page that says the way on, and fetch with JSON."""
    shown = page.goto(f"{limited.url}/gated")
    assert (shown.status, shown.headers["content-type"]) == (429, "text/html; charset=utf-8")
    assert page.get_by_role("heading").inner_text() == "Plan limit reached"
    link = page.get_by_role("link", name="Upgrade to Pro")
    assert link.get_attribute("href") == "/upgrade?from=free"
    assert page.evaluate("() => getComputedStyle(document.querySelector('main')).maxWidth") == "432px"
    assert [text for text in page.complaints if "429" not in text] == []  # its style passes its own policy
    page.goto(f"{limited.url}/")
    answer = page.evaluate(FETCH, [f"{limited.url}/gated", {}])
    assert (answer["status"], answer["type"]) == (429, "application/json")
    assert answer["problem"]["plan"] == {"name": "free", "label": "Free"}


def test_a_refusal_in_mid_stream_is_shown(limited, page):
    """The text that came before the refusal stays on the screen, with the reason and the way on under it."""
    page.goto(limited.url)
    page.get_by_label("Message").fill("Write two drafts.")
    page.get_by_role("button", name="Send").click()
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert page.locator(".assistant .said").inner_text().startswith("Happy to help")
    assert "You have used all of your Free plan." in problem.inner_text()
    assert problem.get_by_role("link", name="Upgrade to Pro").get_attribute("href") == "/upgrade?from=free"
    assert page.complaints == []
