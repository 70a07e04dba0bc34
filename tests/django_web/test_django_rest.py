"""Django REST framework and django-ninja: they sign in after all middleware, and catch errors themselves."""

from base64 import b64encode

import pytest


@pytest.fixture
def routes(settings_with):
    settings_with(ROOT_URLCONF="rest_views")


@pytest.fixture
def api(browser, person):
    """Call an API as somebody who is signed in by nothing but the request itself."""

    def call(path, name, plan="pro"):
        user = person(name, plan)
        headers = {"x-user": name, "authorization": f"Bearer {name}", "x-key": "secret-key"}
        return browser().get(path, headers=headers), str(user.pk)

    return call


def tokens(pg, user_id):
    return pg.get_usage(user_id).period_tokens_total


@pytest.mark.parametrize(
    "path", ["/rest/plain", "/rest/tagged", "/rest/too-early", "/ninja/plain", "/ninja/async"]
)
def test_a_user_signed_in_late_pays(path, api, pg):
    """Whoever the API signs in is charged, also where somebody has asked for the user too early."""
    answer, user_id = api(path, "ada")
    assert answer.status_code == 200, answer.content
    assert tokens(pg, user_id) > 0


@pytest.mark.parametrize("path", ["/rest/shipped", "/ninja/session"])
def test_a_user_of_djangos_session_pays(path, browser, pg):
    """Both frameworks' own look at Django's session names the user; without one nobody gets in."""
    ada = browser("ada")
    assert (ada.get(path).status_code, browser().get(path).status_code) == (200, 401)
    assert tokens(pg, ada.user_id) > 0


def test_a_user_of_a_password_pays(browser, person, pg):
    """REST framework's own basic authentication names the user; a wrong password is its own 401."""
    ada = person("ada")
    ada.set_password("secret")
    ada.save()
    sent = [b64encode(f"ada:{word}".encode()).decode() for word in ("secret", "wrong")]
    answers = [browser().get("/rest/shipped", headers={"authorization": f"Basic {word}"}) for word in sent]
    assert [answer.status_code for answer in answers] == [200, 401]
    assert tokens(pg, str(ada.pk)) > 0


def test_a_stream_of_an_api(api, pg):
    """A streamed body of an API view is the user's too."""
    answer, user_id = api("/rest/streaming", "ada")
    assert answer.getvalue().startswith(b"data: ")
    assert tokens(pg, user_id) > 0


@pytest.mark.parametrize(
    "path",
    ["/rest/plain", "/rest/swallowing", "/rest/streaming", "/rest/tagged", "/rest/budgeted", "/ninja/plain",
     "/ninja/async", "/ninja/budgeted"],
)  # fmt: skip
def test_a_refusal_within_an_api(path, api):
    """The answer is the 429, whatever the API makes of exceptions."""
    answer, _ = api(path, "ben", "free")
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")


def test_another_fault_after_a_refusal_is_the_answer(browser, person):
    """A view that got over a refusal and then broke by itself answers 500."""
    person("ben", "free")
    client = browser()
    client.raise_request_exception = False
    assert client.get("/rest/clumsy", headers={"x-user": "ben"}).status_code == 500


@pytest.mark.parametrize("path", ["/ninja/plain", "/ninja/async"])
def test_ninja_in_debug_mode(path, api, settings_with):
    """In debug mode django-ninja answers every exception with a traceback: still the 429."""
    settings_with(DEBUG=True)
    answer, _ = api(path, "ben", "free")
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")


@pytest.mark.parametrize("path", ["/rest/budgeted", "/ninja/budgeted"])
def test_who_has_budget_reaches_the_view(path, api):
    """``require_budget`` lets pass whoever has something left."""
    answer, _ = api(path, "ada")
    assert answer.json()["reached"]


def test_claims_of_a_token_name_the_user(api, pg):
    """Claims that django-ninja found in a token name the user by their subject."""
    answer, _ = api("/ninja/claims", "ada")
    assert answer.json()["user"] == "ada"


def test_a_bare_key_is_no_user(api):
    """A text that signs in may be a secret: it never becomes a user's id."""
    answer, _ = api("/ninja/key", "ada")
    assert answer.json()["user"] is None
