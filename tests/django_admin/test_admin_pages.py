"""Every page: who may see it, what stands on it, and what stays text."""

import html
import re
from pathlib import Path

import pytest
from admin_data import FORMULA, MARKUP, STRANGE
from django.test import Client
from django.test.utils import override_settings

from paygent import charts
from paygent_django import services, webhooks
from paygent_django.models import EndUser, GateEvent, Plan, UsageEvent, WebhookEndpoint

ADMIN = "/admin/paygent_django/"
LISTS = {
    "dailyusage": "Overview",
    "enduser": "Users",
    "plan": "Plans",
    "usageevent": "Events",
    "gateevent": "Decisions",
    "lease": "Leases",
    "apikey": "API keys",
    "webhookendpoint": "Webhooks",
    "webhookdelivery": "Deliveries",
    "project": "Projects",
}
ADDED = ("plan", "apikey", "webhookendpoint", "project")
DONE = {
    "plan": "add_subscription", "grant": "add_grant", "reset": "add_subscription", "session": "add_session",
    "metering": "change_enduser", "profile": "change_enduser", "anonymise": "delete_enduser",
}  # fmt: skip


def body(client, url, status=200, **data):
    answer = client.get(url, data)
    assert answer.status_code == status, f"{url}: {answer.status_code}"
    return answer.content.decode()


def user_named(name=STRANGE):
    return services.find_user(services.project(), name)


def own_pages(project):
    """A page of one row of each kind."""
    alias = project._state.db
    event = UsageEvent.objects.using(alias).filter(user=user_named()).first()
    return {
        "enduser": f"{ADMIN}enduser/{user_named().pk}/change/",
        "plan": f"{ADMIN}plan/{Plan.objects.using(alias).first().pk}/change/",
        "usageevent": f"{ADMIN}usageevent/{event.pk}/change/",
        "gateevent": f"{ADMIN}gateevent/{GateEvent.objects.using(alias).first().pk}/change/",
    }


@pytest.mark.parametrize(("name", "title"), LISTS.items())
def test_each_list_renders(name, title, boss, filled):
    """Each list answers under its title, and no cache keeps it."""
    answer = boss.get(f"{ADMIN}{name}/")
    assert answer.status_code == 200
    assert f"<h1>{title}</h1>" in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_database_has_pages_too(name, boss, project):
    """Without any rows each list says so in a sentence, and does not fail."""
    assert "pg-tabs" in body(boss, f"{ADMIN}{name}/")


@pytest.mark.parametrize("name", ["enduser", "plan", "usageevent", "gateevent"])
def test_each_row_has_a_page(name, boss, filled):
    """A user, a plan, an event and a decision have pages of their own."""
    assert "pg-card" in body(boss, own_pages(filled)[name])


@pytest.mark.parametrize("name", LISTS)
def test_nobody_else_sees_a_list(name, signed_in, filled):
    """A list asks strangers to sign in, and refuses staff without the permission of its model."""
    assert Client().get(f"{ADMIN}{name}/").status_code == 302
    body(signed_in(), f"{ADMIN}{name}/", 403)
    assert "pg-tabs" in body(signed_in(f"view_{name}"), f"{ADMIN}{name}/")


@pytest.mark.parametrize("name", ["enduser", "plan", "usageevent", "gateevent"])
def test_nobody_else_sees_a_row(name, signed_in, filled):
    """The page of a row needs the permission to view its model, and another model's does not help."""
    others = [f"view_{other}" for other in LISTS if other != name]
    body(signed_in(*others), own_pages(filled)[name], 403)
    body(signed_in(f"view_{name}"), own_pages(filled)[name])


def test_a_user_page_shows_only_what_one_may_see(signed_in, filled):
    """Without permission for events, decisions and grants the user's page leaves them and all actions out."""
    shown = body(signed_in("view_enduser"), own_pages(filled)["enduser"])
    assert not re.search(r'id="events"|id="decisions"|Extra budget|<form[^>]*/do/|/export/', shown)


def test_the_overview_names_users_to_those_who_may_see_them(signed_in, filled):
    """Who spends most is left out for staff who may not view users."""
    assert "Grace Hopper" not in body(signed_in("view_dailyusage"), f"{ADMIN}dailyusage/")
    assert "Grace Hopper" in body(signed_in("view_dailyusage", "view_enduser"), f"{ADMIN}dailyusage/")


def test_tabs_lead_only_where_one_may_go(signed_in, filled):
    """The tabs are the pages of whoever is signed in."""
    shown = body(signed_in("view_dailyusage", "view_plan"), f"{ADMIN}dailyusage/")
    tabs = re.search(r'class="pg-tabs".*?</nav>', shown, re.DOTALL)[0]
    assert re.findall(r">([A-Z][\w ]+)</a>", tabs) == ["Overview", "Plans"]


@pytest.mark.parametrize("name", ADDED)
def test_adding_needs_its_permission(name, signed_in, filled):
    """Whoever may only view a model cannot open the form that adds one, nor send it."""
    client = signed_in(f"view_{name}")
    assert client.get(f"{ADMIN}{name}/add/").status_code == 403
    assert client.post(f"{ADMIN}{name}/add/", {"name": "x"}).status_code == 403
    body(signed_in(f"view_{name}", f"add_{name}"), f"{ADMIN}{name}/add/")


@pytest.mark.parametrize(
    "name", ["dailyusage", "usageevent", "gateevent", "lease", "webhookdelivery", "enduser"]
)
def test_the_ledger_has_no_forms(name, boss, filled):
    """Not even the superuser can add, change or delete a row of the ledger by Django's own addresses."""
    pages = own_pages(filled)
    assert boss.get(f"{ADMIN}{name}/add/").status_code == 403
    if name in pages:
        before = UsageEvent.objects.using(filled._state.db).values().get(pk=1)
        assert boss.post(pages[name].replace("change", "delete"), {"post": "yes"}).status_code == 403
        boss.post(pages[name], {"cost_nusd": "0", "name": "changed"})
        assert UsageEvent.objects.using(filled._state.db).values().get(pk=1) == before


@pytest.mark.parametrize(("action", "permission"), DONE.items())
def test_an_action_is_a_post_of_those_who_may(action, permission, signed_in, filled):
    """An action needs its permission and a POST; a link that somebody is lured to changes nothing."""
    url = f"{ADMIN}enduser/{user_named().pk}/do/{action}/"
    every_other = [one for one in set(DONE.values()) if one != permission]
    assert signed_in("view_enduser", *every_other).post(url).status_code == 403
    assert signed_in("view_enduser", permission).get(url).status_code == 405


def test_changes_need_the_token_of_the_form(filled, boss):
    """A POST without Django's token against forgery is refused on every address that changes something."""
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = boss.cookies
    pages = own_pages(filled)
    event = re.search(r"\d+", pages["usageevent"])[0]
    for url in (
        pages["plan"],
        f"{ADMIN}usageevent/{event}/refund/",
        f"{ADMIN}apikey/add/",
        f"{ADMIN}plan/add/",
        *(f"{ADMIN}enduser/{user_named().pk}/do/{action}/" for action in DONE),
    ):
        assert forged.post(url, {}).status_code == 403, url


def test_names_stay_text(boss, filled):
    """A name that is HTML or a formula is shown as it is, on every page that names the user."""
    pages = [f"{ADMIN}enduser/", f"{ADMIN}usageevent/", own_pages(filled)["enduser"], f"{ADMIN}dailyusage/"]
    for url in pages:
        shown = body(boss, url)
        assert MARKUP not in shown
        assert html.escape(MARKUP) in shown or html.escape(FORMULA) in shown or "dailyusage" in url
    assert html.escape(MARKUP) in body(boss, own_pages(filled)["enduser"])


def test_any_id_is_found_and_shown(boss, filled):
    """A user id of any signs is found by its beginning, leads to his page, and is shown there."""
    for query in (STRANGE, STRANGE[:6]):
        shown = body(boss, f"{ADMIN}enduser/", q=query)
        link = re.search(r'href="(/admin/paygent_django/enduser/\d+/change/)"', shown)[1]
        assert html.escape(STRANGE) in body(boss, link)
    user = user_named()
    events = body(boss, f"{ADMIN}usageevent/", user=user.pk)
    assert html.escape(MARKUP) in events
    assert "Grace Hopper" not in events


@pytest.mark.parametrize("query", ["\0", "%", "'; DROP TABLE x; --", "\u2400", "x" * 500, "=1+1"])
def test_odd_searches_find_nothing(query, boss, filled):
    """A search for odd signs answers with an empty list, also where the database could not store them."""
    assert "No user is found by that." in body(boss, f"{ADMIN}enduser/", q=query)


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("dailyusage", {"days": "0", "project": "abc"}),
        ("dailyusage", {"project": "9" * 30}),
        ("enduser", {"after": "x", "by": "x"}),
        ("enduser", {"after": "99999999999999999999999.1"}),
        ("usageevent", {"user": "-1", "from": "2026-02-30"}),
        ("usageevent", {"user": "\u0663", "until": "soon"}),
        ("gateevent", {"user": "9" * 30, "after": "1.x"}),
        ("lease", {"after": "1.x"}),
    ],
)
def test_nonsense_in_an_address_is_the_plain_page(name, query, boss, filled):
    """What an address cannot mean is left out; the page answers."""
    body(boss, f"{ADMIN}{name}/", **query)


@pytest.mark.parametrize("name", ["enduser", "plan", "usageevent", "gateevent", "webhookendpoint"])
def test_a_row_that_is_not_there_leads_back(name, boss, filled):
    """The address of a row that does not exist goes to the front with a message."""
    for pk in ("999999", "x"):
        assert boss.get(f"{ADMIN}{name}/{pk}/change/").status_code == 302


def test_long_lists_go_on_page_by_page(boss, filled):
    """Going from page to page shows every event of a user once, the newest first, and then ends."""
    user = user_named("user_4137")
    url, seen = f"{ADMIN}usageevent/?user={user.pk}", []
    while url:
        shown = body(boss, url)
        seen += re.findall(r'usageevent/(\d+)/change/"><bdi><time', shown)
        following = re.search(r'href="([^"]+)" rel="next"', shown)
        url = f"{ADMIN}usageevent/{html.unescape(following[1])}" if following else None
    newest = UsageEvent.objects.using(filled._state.db).filter(user=user).order_by("-timestamp_us", "-pk")
    assert len(seen) > 100
    assert seen == [str(pk) for pk in newest.values_list("pk", flat=True)]


def test_top_spenders_come_in_order(boss, filled):
    """The users who spent most this month come first."""
    spent = re.findall(
        r'<td class="num">\s*<bdi>\$([\d,.]+)</bdi>', body(boss, f"{ADMIN}enduser/", by="spend")
    )
    amounts = [float(one.replace(",", "")) for one in spent]
    assert len(amounts) > 5
    assert amounts == sorted(amounts, reverse=True)


def test_projects_are_apart(boss, filled):
    """A page of one project shows nothing of another one, and says of which it is."""
    other = services.create_project("other")
    services.ensure_user(other, "somebody-else")
    assert "somebody-else" not in body(boss, f"{ADMIN}enduser/")
    shown = body(boss, f"{ADMIN}enduser/", project=other.pk)
    assert "somebody-else" in shown
    assert "Grace Hopper" not in shown
    assert re.search(r"Project <strong>other</strong>", shown)
    assert "other" in body(boss, f"{ADMIN}project/")


def test_the_app_index_leads_to_the_overview(boss, filled):
    """The page of the app in Django's admin opens with the way to the overview."""
    assert f'href="{ADMIN}dailyusage/"' in body(boss, ADMIN)


def test_a_key_is_shown_once(boss, filled):
    """A new key stands in the answer that made it, and nowhere afterwards; the list knows its beginning."""
    answer = boss.post(
        f"{ADMIN}apikey/add/", {"name": "server", "scopes": ["read", "ingest"], "kind": "live"}
    )
    secret = re.search(r'value="(pg_live_[\w-]+)"', answer.content.decode())[1]
    assert services.authenticate(secret).scopes == ("read", "ingest")
    assert "no-store" in answer["Cache-Control"]
    listed = body(boss, f"{ADMIN}apikey/")
    assert secret not in listed
    assert secret not in str(dict(boss.session))
    assert secret[:20] in listed


def test_a_key_without_a_scope_is_refused_at_the_field(boss, filled):
    """A key that may do nothing is not made; the field says so."""
    shown = boss.post(f"{ADMIN}apikey/add/", {"name": "server", "kind": "live"}).content.decode()
    assert "This field is required" in shown
    assert "pg_live_" not in shown


def test_a_revoked_key_opens_nothing(boss, signed_in, filled):
    """Revoking needs its permission and a POST, and the key then opens nothing."""
    made = services.create_key(filled, "old")
    url = f"{ADMIN}apikey/{made.row.pk}/revoke/"
    assert signed_in("view_apikey").post(url).status_code == 403
    assert services.authenticate(made.secret) is not None
    boss.post(url)
    assert services.authenticate(made.secret) is None
    assert "revoked" in body(boss, f"{ADMIN}apikey/")


def test_a_webhook_address_is_added_tried_and_logged(boss, filled, monkeypatch):
    """The secret of a new address is shown once; a test is queued, and stands in its log."""
    monkeypatch.setattr(webhooks.worker, "poke", lambda: None)  # nothing is sent from here
    sent = {"url": "https://hooks.example.com/paygent", "events": ["hard_gate"], "is_enabled": "on"}
    answer = boss.post(f"{ADMIN}webhookendpoint/add/", sent).content.decode()
    secret = re.search(r'value="(whsec_[\w-]+)"', answer)[1]
    listed = body(boss, f"{ADMIN}webhookendpoint/")
    link = re.search(r"webhookendpoint/(\d+)/change/", listed)[1]
    boss.post(f"{ADMIN}webhookendpoint/{link}/test/")
    page = body(boss, f"{ADMIN}webhookendpoint/{link}/change/")
    assert "waiting" in page
    assert secret not in page + listed


def test_an_address_in_a_private_network_is_refused_at_the_field(boss, filled):
    """What the webhook service refuses is said at the field that it names."""
    sent = {"url": "http://127.0.0.1/x", "is_enabled": "on"}
    shown = boss.post(f"{ADMIN}webhookendpoint/add/", sent).content.decode()
    assert re.search(r'name="url".*?pg-error', shown, re.DOTALL)
    assert not WebhookEndpoint.objects.using(filled._state.db).exists()


@pytest.mark.parametrize("use_tz", [True, False])
def test_pages_work_with_and_without_time_zones(use_tz, boss, filled):
    """Moments are shown whether the project uses time zones or not."""
    with override_settings(USE_TZ=use_tz, TIME_ZONE="Asia/Tokyo"):
        for url in (f"{ADMIN}usageevent/", own_pages(filled)["enduser"], f"{ADMIN}dailyusage/"):
            assert "pg-tabs" in body(boss, url)


def test_the_stylesheet_of_charts_is_the_same_everywhere():
    """The static file of the Django app is the stylesheet of the charts, byte by byte."""
    import paygent_django

    static = Path(paygent_django.__file__).parent / "static/paygent/charts.css"
    assert static.read_text("utf-8") == charts.stylesheet()


def test_users_with_a_name_are_told_apart(boss, filled):
    """Below a name stands the id, so that two users of one name are told apart."""
    assert EndUser.objects.using(filled._state.db).filter(name="Ada Lovelace").exists()
    assert re.search(r"Ada Lovelace</bdi></a><small><bdi>user_4100<", body(boss, f"{ADMIN}enduser/"))
