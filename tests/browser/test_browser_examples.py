"""What a visitor sees and does in each example app."""

import contextlib
import dataclasses

import pytest

SENDS_MAX = 8
# Kept in the page: how long the newest answer was each time it changed.
WATCH = """() => {
  window.lengths = [];
  const answers = () => [...document.querySelectorAll(".assistant .said")];
  const note = () => window.lengths.push(answers().at(-1)?.textContent.length ?? 0);
  new MutationObserver(note).observe(document.getElementById("log"), { childList: true, subtree: true });
}"""


class Visitor:
    """A person at the page, who finds things by what they say."""

    def __init__(self, page, url):
        self.page = page
        page.goto(url)

    def sign_in(self, name):
        self.page.get_by_role("button", name=f"{name} ").click()
        self.page.get_by_label("claude-haiku-4-5").check()

    def ask(self, question):
        self.page.get_by_label("Message").fill(question)
        self.send()

    def send(self):
        with self.until_answered():
            self.page.get_by_role("button", name="Send").click()

    @contextlib.contextmanager
    def until_answered(self):
        with self.page.expect_response("**/paygent/me"):  # the page reads its meter at the end of each turn
            yield
        self.page.locator("#send:not([disabled])").wait_for()

    def ask_until_refused(self):
        """Ask the same again and again; returns the meter's values and states on the way."""
        values, states = [self.percent()], []
        for _ in range(SENDS_MAX):
            self.ask("How do I start a small project?")
            states.append(self.page.locator("#panel").get_attribute("class").split()[-1])
            if self.problem.is_visible():
                return values, states
            values.append(self.percent())
        raise AssertionError(f"never refused: {values}")

    def percent(self):
        meter = self.page.get_by_role("meter", name="Share of the plan used")
        return int(meter.get_attribute("aria-valuenow"))

    @property
    def problem(self):
        return self.page.get_by_role("alert")

    @property
    def answers(self):
        return self.page.locator(".assistant .said")


@pytest.fixture
def visitor(example, page):
    return Visitor(page, example.url)


def test_the_way_from_sign_in_to_the_upgrade_and_on(visitor, page, llm):
    """A visitor chats until the gate, reads why, upgrades, and the very next question is answered."""
    visitor.sign_in("Ada")
    page.evaluate(WATCH)
    values, states = visitor.ask_until_refused()
    lengths = [length for length in page.evaluate("() => window.lengths") if length]
    assert len(set(lengths)) >= 4, "the text comes piece by piece"
    assert values == sorted(set(values)), "the meter grows with each answer"
    assert (values[0], values[-1]) == (0, 100)
    assert list(dict.fromkeys(states)) == ["ok", "soft_gate", "hard_gate"]
    assert visitor.problem.inner_text().split("\n\n")[:2] == [
        "Plan limit reached",
        "You have used all of your Free plan.",
    ]
    said, asked = visitor.answers.count(), len(llm.requests)
    assert page.get_by_label("Message").input_value() == "How do I start a small project?"

    page.get_by_role("alert").get_by_role("link", name="Upgrade to Pro").click()
    page.wait_for_url("**/upgrade?from=free")
    page.get_by_role("button", name="Upgrade to Pro").click()
    page.wait_for_url("**/")
    visitor.send()
    assert visitor.problem.is_hidden()
    assert visitor.answers.count() == said + 1, "what was said before is still there"
    assert len(llm.requests) == asked + 1, "a refused question never reached the model"
    assert page.locator("#plan").inner_text() == "Pro"
    assert 0 < visitor.percent() < 10
    assert [text for text in page.complaints if "429" not in text] == []
    assert len(page.complaints) == 1, "the browser itself notes the one refusal"


def test_an_answer_that_breaks_off_says_so(visitor, page, llm):
    """Where the model's connection breaks in mid-stream, what came stays, and the page says what happened."""
    visitor.sign_in("Cleo")
    whole = llm.provider.controls
    llm.provider.controls = dataclasses.replace(whole, cut_after=6)
    try:
        visitor.ask("Will this come to an end?")
    finally:
        llm.provider.controls = whole
    assert visitor.problem.locator("strong").inner_text() == "The answer broke off"
    assert visitor.answers.last.inner_text().startswith("Happy to help")
    visitor.ask("And now?")
    assert visitor.problem.is_hidden()


def test_the_keyboard_alone_is_enough(servers, page):
    """Signing in, asking, reading the refusal and upgrading need no pointer: focus is where it goes on."""
    visitor = Visitor(page, servers["chat_starlette"].until_up().url)
    page.get_by_role("button", name="Ada ").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Ben
    page.locator("#text:focus").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+Tab")
    for _ in range(SENDS_MAX):
        page.keyboard.type("Go on?")
        with visitor.until_answered():
            page.keyboard.press("Enter")
        if visitor.problem.is_visible():
            break
    assert page.locator("#upgrade:focus").is_visible()
    page.keyboard.press("Enter")
    page.locator("#take:focus").wait_for()
    page.keyboard.press("Enter")
    page.locator("#text:focus").wait_for()
    with visitor.until_answered():
        page.keyboard.press("Enter")  # the question is still there
    assert visitor.problem.is_hidden()
    assert visitor.answers.last.inner_text().startswith("Happy to help")
    assert page.locator("#user").inner_text() == "Ben"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_narrow_phone(scheme, servers, page):
    """At 320 pixels nothing sticks out sideways, and the theme is the one the visitor prefers."""
    url = servers["chat_starlette"].until_up().url
    page.set_viewport_size({"width": 320, "height": 640})
    page.emulate_media(color_scheme=scheme)
    visitor = Visitor(page, url)
    visitor.sign_in("Cleo")
    page.locator("#plan", has_text="Pro").wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") == 320
    page.goto(f"{url}/upgrade")
    page.get_by_role("link", name="Back to the chat").wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") == 320
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(244, 245, 249)", "dark": "rgb(15, 18, 26)"}[scheme]
    assert page.complaints == []
