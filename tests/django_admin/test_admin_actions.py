"""What the buttons do: to users, to events and to plans."""

import csv
import io
import json
import re

import pytest
from admin_data import DAY_US, FORMULA, STRANGE, USD, event_of
from django.contrib.admin.models import LogEntry

from paygent.core.windows import calendar_month
from paygent.testing._contract_values import Process
from paygent_django import services
from paygent_django.admin.exports import as_text
from paygent_django.admin.overview import overview
from paygent_django.models import Plan, Subscription, UsageEvent
from paygent_django.models.moments import now_us

ADMIN = "/admin/paygent_django/"


@pytest.fixture
def user(project):
    return services.create_user(project, STRANGE, name="Ada", email="ada@example.com")


@pytest.fixture
def plans(project):
    free = services.save_plan(project, "free", {"max_spend_per_period": 2.0}, label="Free").plan
    services.set_default_plan(project, free)
    pro = services.save_plan(
        project,
        "pro",
        {"max_spend_per_period": 9.0, "max_spend_per_session": 1.0},
        label="Pro",
        price_nano=30 * USD,
    ).plan
    return {"free": free, "pro": pro}


def spend(user, usd=1.0, ts_us=None, **changes):
    event = event_of(user.external_user_id, ts_us or now_us(), int(usd * USD), **changes)
    services.ledger_of(user.project).settle([event])
    return UsageEvent.objects.using(user._state.db).get(event_id=event.id)


def do(client, user, action, **data):
    """Press a button; returns the page that follows."""
    answer = client.post(f"{ADMIN}enduser/{user.pk}/do/{action}/", data, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def again(user):
    return services.find_user(user.project, user.external_user_id)


# -- users ------------------------------------------------------------------------------------------------


def test_another_plan_binds_from_now_on(boss, user, plans):
    """Changing the plan keeps what was used, names who did it, and stands in Django's log."""
    spend(user)
    assert "Moved to Pro" in do(boss, user, "plan", plan=plans["pro"].pk)
    usage = services.usage_of(user)
    assert (usage.plan, usage.cost_nusd) == ("pro", USD)
    assert services.running(user).created_by == "maya"
    assert LogEntry.objects.filter(object_id=str(user.pk), change_message__contains="Pro").exists()


def test_the_default_plan_can_be_chosen(boss, user, plans):
    """No plan of one's own is a choice too."""
    services.change_plan(user, plans["pro"])
    do(boss, user, "plan", plan="")
    assert services.usage_of(user).plan == "free"


def test_a_plan_of_another_project_is_no_choice(boss, user, plans):
    """What is not among the choices is refused, and nothing changes."""
    other = services.save_plan(services.create_project("other"), "theirs", {}).plan
    assert "valid choice" in do(boss, user, "plan", plan=other.pk)
    assert services.usage_of(user).plan == "free"


def test_extra_budget_raises_the_limit_once(boss, user, plans):
    """A grant raises the limit by exactly the dollars given; the same form sent twice grants once."""
    for _ in range(2):
        assert "Granted $2.50" in do(boss, user, "grant", amount="2.50", reason="sorry", key="form-1")
    assert services.usage_of(again(user)).terms.period.hard == int(4.5 * USD)


@pytest.mark.parametrize("amount", ["", "0", "-1", "x", "1e99", "NaN"])
def test_a_grant_of_nothing_is_refused(amount, boss, user, plans):
    """An amount that is none, not above zero or absurd is refused, and said so."""
    assert "US dollars:" in do(boss, user, "grant", amount=amount)
    assert services.usage_of(again(user)).terms.period.hard == 2 * USD


def test_a_reset_begins_a_fresh_account(boss, user, plans):
    """After a reset nothing is used, and the events are all there still."""
    spend(user, 2.0)
    do(boss, user, "reset")
    assert services.usage_of(user).cost_nusd == 0
    assert UsageEvent.objects.using(user._state.db).count() == 1


def test_metering_is_switched_off_and_on(boss, user, plans):
    """The switch turns metering off and on again, and the page shows which it is."""
    assert "metering off" in do(boss, user, "metering", enabled="off")
    assert again(user).sdk_enabled is False
    do(boss, user, "metering", enabled="on")
    assert again(user).sdk_enabled is True


def test_an_open_session_has_nothing_spent(boss, user, plans):
    """A new session takes the place of the running one; the next call counts in it."""
    services.change_plan(user, plans["pro"])
    process = Process(services.ledger_of(user.project), STRANGE)
    before = process.ask(begin_session=True).session
    do(boss, user, "session")
    after = Process(services.ledger_of(user.project), STRANGE).ask(begin_session=True).session
    assert before.session_id != after.session_id


def test_a_profile_is_edited(boss, user, plans):
    """Name and address change; a name that is too long is refused."""
    do(boss, user, "profile", name=FORMULA, email="new@example.com")
    assert (again(user).name, again(user).email) == (FORMULA, "new@example.com")
    assert "at most 300" in do(boss, user, "profile", name="x" * 301)


def test_anonymising_asks_first(boss, user, plans):
    """Without the confirmation nothing happens; with it the id and the name are gone."""
    do(boss, user, "anonymise")
    assert again(user).name == "Ada"
    shown = do(boss, user, "anonymise", confirm="on")
    assert again(user) is None
    assert "ada@example.com" not in shown


def test_the_log_of_the_admin_forgets_a_name(boss, user, plans, project):
    """What was done to an anonymous user and his events stays in the log without a name; others' is whole."""
    other = services.create_user(project, "bob", name="Bob")
    for who in (user, other):
        do(boss, who, "metering")
        event = spend(who)
        boss.post(f"{ADMIN}usageevent/{event.pk}/refund/", {"reason": f"sorry, {who.name}"})
    entries = LogEntry.objects.filter(content_type__app_label="paygent_django")
    entries.filter(content_type__model="usageevent").update(object_repr="a call of Ada or Bob")
    newest = entries.order_by("-pk")[:4]
    services.anonymise(user)
    shown = [(entry.object_repr, bool(entry.change_message)) for entry in newest]
    gone = (f"anonymised-{user.uuid}", False)
    assert shown == [("a call of Ada or Bob", True), ("Bob", True), gone, gone]


def test_an_unknown_action_is_refused(boss, user):
    """An action that does not exist is refused, whoever asks."""
    assert boss.post(f"{ADMIN}enduser/{user.pk}/do/delete/").status_code == 403


def test_one_user_is_exported(boss, signed_in, user, plans):
    """A user's file holds what is kept of him; it needs the permissions for users, events and decisions."""
    spend(user)
    url = f"{ADMIN}enduser/{user.pk}/export/"
    assert signed_in("view_enduser").get(url).status_code == 403
    answer = boss.get(url)
    kept = json.loads(answer.getvalue())
    assert (kept["user_id"], kept["email"], len(kept["events"])) == (STRANGE, "ada@example.com", 1)
    assert "attachment" in answer["Content-Disposition"]
    assert "no-store" in answer["Cache-Control"]


def test_a_user_of_many_events_is_exported_in_parts(boss, user, plans, monkeypatch):
    """The file says what the service says of him, and no part of it holds more than a batch of events."""
    monkeypatch.setattr("paygent_django.admin.exports.BATCH", 2)
    for index in range(7):
        spend(user, 0.1, now_us() - index)
    parts = [part.decode() for part in boss.get(f"{ADMIN}enduser/{user.pk}/export/").streaming_content]
    said, kept = json.loads("".join(parts)), json.loads(json.dumps(services.export_user(user)))
    assert sorted(said.pop("events"), key=str) == sorted(kept.pop("events"), key=str)
    assert said == kept
    assert max(part.count('"rate_source"') for part in parts) == 2


# -- events -----------------------------------------------------------------------------------------------


def test_a_refund_is_a_new_row(boss, user, plans):
    """A refunded event stays as it is; a correcting row takes it back, once, with the reason."""
    event = spend(user, 1.5)
    for _ in range(2):
        boss.post(f"{ADMIN}usageevent/{event.pk}/refund/", {"reason": "wrong answer"})
    rows = UsageEvent.objects.using(user._state.db).order_by("pk")
    assert [row.cost_nusd for row in rows] == [int(1.5 * USD), -int(1.5 * USD)]
    assert rows[1].description == "wrong answer"
    assert services.usage_of(user).cost_nusd == 0
    shown = boss.get(f"{ADMIN}usageevent/{event.pk}/change/").content.decode()
    assert "This event was refunded." in shown
    assert "Refund this event" not in shown


def test_a_refund_needs_its_permission(signed_in, user, plans):
    """Whoever may only look at events cannot refund one."""
    event = spend(user)
    url = f"{ADMIN}usageevent/{event.pk}/refund/"
    assert signed_in("view_usageevent").post(url).status_code == 403
    assert signed_in("view_usageevent", "add_usageevent").get(url).status_code == 405
    assert UsageEvent.objects.using(user._state.db).count() == 1


def test_a_correction_is_not_corrected(boss, user, plans):
    """A correcting row offers no refund, and refuses one."""
    made = services.refund(spend(user))
    url = f"{ADMIN}usageevent/{made.pk}/"
    assert "Refund this event" not in boss.get(url + "change/").content.decode()
    boss.post(url + "refund/")
    assert UsageEvent.objects.using(user._state.db).count() == 2


def exported(client, kind, **query):
    answer = client.get(f"{ADMIN}usageevent/export/{kind}/", query)
    assert answer.status_code == 200
    return b"".join(answer.streaming_content).decode("utf-8-sig")


def test_events_leave_as_csv_without_formulas(boss, user, plans):
    """A name that a spreadsheet would run is text in the file; a refund's amount is a number still."""
    services.update_user(user, name=FORMULA)
    event = spend(user, 0.25, metadata={"feature": "@SUM(1)"}, description="+1")
    services.refund(event)
    table = list(csv.DictReader(io.StringIO(exported(boss, "csv"))))
    assert {row["user_name"] for row in table} == {"'" + FORMULA}
    assert {row["user_id"] for row in table} == {STRANGE}
    assert {row["tag"] for row in table} == {"'@SUM(1)"}
    assert "'+1" in {row["description"] for row in table}
    assert sorted(float(row["cost_usd"]) for row in table) == [-0.25, 0.25]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "\uff1d"])
def test_every_start_of_a_formula_is_text(start):
    """Whatever a spreadsheet takes for the start of a formula gets an apostrophe; other values stay."""
    assert as_text(start + "1") == "'" + start + "1"
    assert [as_text(one) for one in ("a=1", -3, None, True)] == ["a=1", -3, "", "true"]


def test_events_leave_as_json(boss, user, plans):
    """The JSON is one array of all events, or an empty one, with exact amounts."""
    assert json.loads(exported(boss, "json")) == []
    for _ in range(3):
        spend(user, 0.000000001)
    found = json.loads(exported(boss, "json"))
    assert [one["cost_usd"] for one in found] == ["0.000000001"] * 3
    assert [one["user_id"] for one in found] == [STRANGE] * 3


def test_an_export_goes_beyond_one_batch(boss, user, plans, monkeypatch):
    """An export of many batches holds each event once, also those of one moment."""
    monkeypatch.setattr("paygent_django.admin.exports.BATCH", 2)
    moment = now_us()
    ids = {spend(user, 0.1, moment - (index % 2)).event_id for index in range(7)}
    found = [one["id"] for one in json.loads(exported(boss, "json"))]
    assert len(found) == 7
    assert set(found) == ids


def test_an_export_is_narrowed_like_its_list(boss, signed_in, user, plans):
    """Days and a user narrow the file; it needs the permission to view events."""
    old = spend(user, 1.0, now_us() - 5 * DAY_US)
    spend(services.create_user(user.project, "other"), 1.0)
    day = old.timestamp.date().isoformat()
    assert [one["id"] for one in json.loads(exported(boss, "json", **{"from": day, "until": day}))] == [
        old.event_id
    ]
    assert [one["id"] for one in json.loads(exported(boss, "json", user=user.pk))] == [old.event_id]
    assert signed_in("view_enduser").get(f"{ADMIN}usageevent/export/csv/").status_code == 403
    assert boss.get(f"{ADMIN}usageevent/export/exe/").status_code == 404


async def test_an_export_streams_under_asgi(user, plans, signed_in):
    """Served by an ASGI server, the file is streamed as well, line by line."""
    from asgiref.sync import sync_to_async
    from django.test import AsyncRequestFactory

    from paygent_django.admin.exports import streamed

    await sync_to_async(spend)(user)
    events = UsageEvent.objects.using(user._state.db).all()
    answer = streamed(AsyncRequestFactory().get("/"), events, "json")
    assert answer.is_async
    parts = [part async for part in answer]
    assert len(json.loads(b"".join(parts))) == 1


# -- the figures of the overview --------------------------------------------------------------------------


def test_the_overview_adds_up(user, plans):
    """Spend, calls, refunds and tags of the overview are those of the rows, and of no other days."""
    now = now_us()
    spend(user, 1.0, now, model="gpt-4o", metadata={"feature": "chat"}, estimated=0)
    spend(user, 3.0, now - DAY_US, model="gpt-4o-mini", metadata={"feature": "chat"}, estimated=1)
    spend(user, 7.0, now - 8 * DAY_US, metadata=None, estimated=0)
    services.refund(spend(user, 2.0, now, model="gpt-4o", metadata=None, estimated=0))
    found = overview(user.project, now, 7)
    assert found.total.cost_nusd == 4 * USD
    assert (found.total.calls, found.before.cost_nusd) == (3, 7 * USD)
    assert dict(found.tags) == {"chat": 4 * USD, "": 0}
    assert found.total.estimated_share == 0.75
    assert found.spend[-2:] == [3 * USD, USD]
    assert [one.user_id for one in found.top] == [user.pk]


def test_the_margin_is_the_price_of_the_days_less_the_spend(user, plans):
    """Ten days of a plan for 30 dollars a month bring in a third of it, less what was spent."""
    now = now_us()
    services.change_plan(user, plans["pro"])
    Subscription.objects.using(user._state.db).update(starts_us=now - 10 * DAY_US)
    spend(user, 4.0)
    margin = next(one for one in overview(user.project, now, 30).margins if one.plan.name == "pro")
    assert margin.margin_nusd / USD == pytest.approx(30 * 10 / 30.436875 - 4, abs=0.01)
    assert margin.subscriptions == 1


def test_a_price_in_another_currency_is_not_compared(boss, user, plans):
    """A plan in euros counts as spend without revenue, and its line says why."""
    services.save_plan(user.project, "pro", {"max_spend_per_period": 9.0}, currency="EUR")
    services.change_plan(user, Plan.objects.using(user._state.db).get(name="pro"))
    spend(user, 4.0)
    shown = boss.get(f"{ADMIN}dailyusage/").content.decode()
    assert "price in another currency" in shown
    assert "\u2212$4.00" in shown


def test_the_period_of_the_data_is_the_one_shown(user, plans):
    """What the tests write lies in the running month, so that a limit can be reached at all."""
    assert spend(user).period == calendar_month(now_us()).key
    assert re.fullmatch(r"p\d+", spend(user).period)
