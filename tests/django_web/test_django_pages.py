"""What a user is shown of his own plan: the template tags, and ``GET …/paygent/me``."""

from html.parser import HTMLParser

import pytest
from django.conf import settings

from paygent import PlanConfig


@pytest.fixture
def routes(settings_with, request):
    folder = request.path.parent / "templates"
    settings_with(ROOT_URLCONF="verb_views", TEMPLATES=[{**settings.TEMPLATES[0], "DIRS": [folder]}])


class Page(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, answer):
        super().__init__()
        self.tags = []
        self.feed(answer.content.decode())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def first(self, tag):
        return next((attributes for name, attributes in self.tags if name == tag), None)


def spend(pg, client, cost):
    pg.record_event(client.user_id, cost=cost)


def test_the_usage_as_a_sentence_and_as_a_value(browser, pg):
    """``paygent_usage`` says what is used, and offers the parts to the template."""
    ada = browser("ada")
    spend(pg, ada, 2.5)
    page = ada.get("/page").content.decode()
    assert '<p id="sentence">Pro: $2.50 of $10.00 used</p>' in page
    assert '<p id="value">Pro|2.50|10.00|ok</p>' in page


def test_the_meter_is_readable_for_everybody(browser, pg):
    """The bar is an HTML meter with a label and figures, and nothing that a strict policy forbids."""
    ada = browser("ada")
    spend(pg, ada, 8.5)
    page = Page(ada.get("/page"))
    meter = page.first("meter")
    assert (meter["value"], meter["min"], meter["max"]) == ("85.0", "0", "100")
    assert meter["aria-label"]
    assert page.first("div")["data-state"] == "soft_gate"
    assert not {"script", "style"} & {tag for tag, _ in page.tags}
    assert not any(name == "style" or name.startswith("on") for _, given in page.tags for name in given)


def test_figures_are_the_same_in_every_language(browser, pg, settings_with):
    """A page in a language with decimal commas keeps the point in the attribute, where HTML asks for it."""
    settings_with(LANGUAGE_CODE="de", USE_I18N=True)
    ada = browser("ada")
    spend(pg, ada, 8.55)
    assert Page(ada.get("/page")).first("meter")["value"] == "85.5"


def test_the_name_of_a_plan_is_escaped(browser, pg):
    """A plan's name is text, whatever is in it."""
    pg.configure_plan("<script>alert(1)</script>", PlanConfig(max_spend_per_period=1.0))
    eve = browser("eve", "<script>alert(1)</script>")
    page = eve.get("/page")
    assert Page(page).first("script") is None
    assert b"&lt;" in page.content


def test_an_unlimited_plan_has_no_bar(browser, pg):
    """Without a limit there is a sentence, and no meter."""
    pg.configure_plan("endless", PlanConfig())
    cleo = browser("cleo", "endless")
    page = cleo.get("/page")
    assert Page(page).first("meter") is None
    assert b"Endless: $0.00 used" in page.content


def test_amounts_may_be_kept_to_ourselves(browser, pg, settings_with):
    """With EXPOSE_AMOUNTS False the sentence speaks of a share."""
    settings_with(PAYGENT={"EXPOSE_AMOUNTS": False})
    ada = browser("ada")
    spend(pg, ada, 2.5)
    page = ada.get("/page").content.decode()
    assert '<p id="sentence">Pro: 25% used</p>' in page
    assert "2.50" not in page


def test_a_visitor_sees_nothing(browser):
    """Nobody has no plan to show."""
    page = browser().get("/page")
    assert '<p id="sentence"></p>' in page.content.decode()
    assert Page(page).first("meter") is None


def test_a_template_without_a_request_shows_nothing(pg):
    """A template that is rendered outside of a request (an e-mail) has no user to show."""
    from django.template import Context, Template

    assert Template("{% load paygent %}[{% paygent_usage %}]").render(Context()) == "[]"


def test_a_fault_leaves_the_page_whole(browser, settings_with, caplog):
    """Where the user cannot be found, the page is shown without his usage, and the log says why."""
    settings_with(PAYGENT={"GET_USER_ID": "finders.failing_finder"})
    assert browser("ada").get("/page").status_code == 200
    assert "get_user_id failed" in caplog.text


def test_me_tells_the_signed_in_user_his_own(browser, pg):
    """The JSON is that of all plugins, of this user, and is not to be stored."""
    ada = browser("ada")
    spend(pg, ada, 2.5)
    answer = ada.get("/paygent/me")
    told = answer.json()
    assert (told["plan"]["name"], told["used"], told["limit"], told["percent"]) == (
        "pro",
        "2.50",
        "10.00",
        25.0,
    )
    assert (told["state"], answer["Cache-Control"]) == ("ok", "no-store")
    assert "Cookie" in answer["Vary"]


def test_me_is_nobodys_without_a_user(browser):
    """A visitor is answered 401, in the words of a refusal."""
    answer = browser().get("/paygent/me")
    assert (answer.status_code, answer.json()["code"]) == (401, "no_user")


def test_me_is_only_read(browser):
    """Nothing can be sent to it."""
    assert browser("ada").post("/paygent/me").status_code == 405


def test_me_of_an_async_finder(browser, pg, settings_with):
    """An async GET_USER_ID names the user here too."""
    settings_with(PAYGENT={"GET_USER_ID": "finders.async_finder"})
    pg.assign_plan("ada-of-finders", "free")
    assert browser("ada").get("/paygent/me").json()["plan"]["name"] == "free"


async def test_me_under_asgi(async_browser):
    """The same under ASGI."""
    ada = await async_browser("ada")
    assert (await ada.get("/paygent/me")).json()["plan"]["name"] == "pro"
