"""The services: what admin, API and commands do, on every database."""

from datetime import datetime, timedelta, timezone

import pytest
from django.db import IntegrityError, transaction
from django.test import override_settings

from paygent.core.models import PlanConfig
from paygent.core.windows import to_us
from paygent.testing._contract_values import Process, bucket_in, event, leased
from paygent_django import services
from paygent_django.ledger import DjangoLedger
from paygent_django.models import Grant, Subscription, UsageEvent
from paygent_django.models.fields import MOMENT_MAX_US
from paygent_django.services import ServiceError

USD = 10**9
STRANGE = "org/42?x=#é 💥"
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _on(alias):
    with override_settings(PAYGENT={"DATABASE": alias}):
        yield


@pytest.fixture
def ledger(alias):
    made = DjangoLedger(alias)
    yield made
    made.close()


@pytest.fixture
def project():
    return services.project()


@pytest.fixture
def user(project):
    return services.ensure_user(project, STRANGE)


def plan_of(project, name, usd=5.0, **more):
    said = {key: more.pop(key) for key in ("label", "price_nano", "rank") if key in more}
    config = PlanConfig(max_spend_per_period=usd, pre_call_estimate=True, **more)
    return services.save_plan(project, name, config, **said).plan


def spend(ledger, user, cost_nusd, **more):
    reply = Process(ledger, user.external_user_id).ask()
    row = event(reply, cost_nusd, **more)
    ledger.settle([row])
    return row


# -- plans ------------------------------------------------------------------------------------------------


def test_a_plan_saved_again_is_no_new_version(project):
    """Equal content makes no version, other content the next one, and the old one stays as it was."""
    config = PlanConfig(max_spend_per_period=5)
    first = services.save_plan(project, "pro", config, label="Pro", price_nano=49 * USD)
    again = services.save_plan(project, "pro", {"max_spend_per_period": 5.0})
    changed = services.save_plan(project, "pro", {"max_spend_per_period": 6.0})
    assert (first.number, again.number, changed.number) == (1, None, 2)
    assert (changed.plan.label, changed.plan.current.price_nano) == ("Pro", 49 * USD)
    assert changed.plan.versions.using(changed.plan._state.db).get(number=1).plan_config == config


def test_a_plan_that_only_looks_different_is_a_new_version(project):
    """A new label or price is a new version, with the same limits."""
    before = plan_of(project, "pro", label="Pro").current
    after = services.save_plan(project, "pro", before.plan_config, label="Professional").plan.current
    assert (after.number, after.key, after.label) == (2, before.key, "Professional")


@pytest.mark.parametrize(
    "config, said, field",
    [
        ({"max_spend_per_period": -1}, {}, "config.max_spend_per_period"),
        ({"soft_gate_at": 0.9, "hard_gate_at": 0.5}, {}, "config"),
        ({"nonsense": 1}, {}, "config.nonsense"),
        ({}, {"currency": "usd"}, "currency"),
        ({}, {"price_nano": -1}, "price_nano"),
        ({}, {"price_nano": 4.5}, "price_nano"),
        ({}, {"interval": "fortnight"}, "interval"),
        ({}, {"label": "x" * 201}, "label"),
        ({}, {"rank": True}, "rank"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_its_field(project, config, said, field):
    """A plan with a field that cannot be right is refused, the field named, and nothing is saved."""
    with pytest.raises(ServiceError) as refused:
        services.save_plan(project, "pro", config, **said)
    assert refused.value.field == field
    assert services.find_plan(project, "pro") is None


def test_a_saved_plan_binds_the_next_operation(project, ledger):
    """A plan that is saved binds the ledger's next answer to a process that had another one."""
    plan_of(project, "default", 1e-6)
    process = Process(ledger)
    assert process.hold(1000).denied is None
    plan_of(project, "default", 2e-6)
    assert process.hold(1000).denied is None
    assert process.hold(1).busy


def test_the_projects_default_plan_is_for_everybody_without_one(project, ledger):
    """Users without a subscription have the default plan that the project chose."""
    services.set_default_plan(project, plan_of(project, "free", 1e-6))
    assert Process(ledger).ask().plan.name == "free"


def test_one_default_plan_only(project):
    """A plan named default and another default plan cannot be there together."""
    free = plan_of(project, "free")
    services.set_default_plan(project, free)
    with pytest.raises(ServiceError, match="default"):
        plan_of(project, "default")
    services.set_default_plan(project, None)
    plan_of(project, "default")
    with pytest.raises(ServiceError, match="default"):
        services.set_default_plan(project, free)


def test_a_plan_of_another_project_is_unknown(project):
    """Neither a default plan nor a subscription can be another tenant's."""
    other = services.create_project("other")
    plan = plan_of(other, "pro")
    for refused in (
        lambda: services.set_default_plan(project, plan),
        lambda: services.subscribe(services.ensure_user(project, "ada"), plan),
    ):
        with pytest.raises(ServiceError) as error:
            refused()
        assert error.value.code == "unknown"


# -- subscriptions ----------------------------------------------------------------------------------------


def spans(user):
    found = Subscription.objects.using(user._state.db).filter(user=user).order_by("starts_us")
    return [(row.plan and row.plan.name, row.starts_us, row.ends_us) for row in found]


def test_a_subscription_begins_with_its_period(project, user):
    """The first subscription binds from the start of its period on, in the past or in the future."""
    plan = plan_of(project, "pro")
    start = datetime.now(timezone.utc) - 10 * DAY
    made = services.subscribe(user, plan, period_start=start, period_end=start + 30 * DAY)
    assert spans(user) == [("pro", to_us(start), MOMENT_MAX_US)]
    assert made.period_end_us == to_us(start + 30 * DAY)


def test_a_new_subscription_ends_the_running_one_at_its_start(project, user):
    """A subscription for the next period ends the running one when that period starts."""
    free, pro = plan_of(project, "free"), plan_of(project, "pro")
    start = datetime.now(timezone.utc) - 10 * DAY
    services.subscribe(user, free, period_start=start, period_end=start + 30 * DAY)
    services.subscribe(user, pro, period_start=start + 30 * DAY, period_end=start + 60 * DAY)
    change = to_us(start + 30 * DAY)
    assert spans(user) == [("free", to_us(start), change), ("pro", change, MOMENT_MAX_US)]


def test_a_renewal_of_the_running_period_rewrites_no_past(project, user, ledger):
    """Another plan for the same period binds from now on, and keeps what was used."""
    free, pro = plan_of(project, "free"), plan_of(project, "pro", 50)
    start = datetime.now(timezone.utc) - 10 * DAY
    services.subscribe(user, free, period_start=start, period_end=start + 30 * DAY)
    spend(ledger, user, 700)
    services.subscribe(user, pro, period_start=start, period_end=start + 30 * DAY)
    (_, _, first_ends), (name, second_starts, _) = spans(user)
    reply = Process(ledger, STRANGE).ask()
    assert first_ends == second_starts > to_us(start)
    assert (name, reply.plan.name, reply.posted[bucket_in(reply)]) == ("pro", "pro", 700)


def test_what_is_scheduled_stays(project, user):
    """A change of plan lasts until the subscription that was scheduled before."""
    free, pro = plan_of(project, "free"), plan_of(project, "pro")
    later = datetime.now(timezone.utc) + 30 * DAY
    services.subscribe(user, free, period_start=later, period_end=later + 30 * DAY)
    services.change_plan(user, pro)
    assert [(name, ends) for name, _, ends in spans(user)] == [("pro", to_us(later)), ("free", MOMENT_MAX_US)]


def test_cancelling_falls_back_to_the_default_plan(project, user, ledger):
    """After the end of a subscription the default plan applies."""
    plan_of(project, "default")
    services.subscribe(user, plan_of(project, "pro"))
    assert services.cancel(user)
    assert not services.cancel(user)
    assert Process(ledger, STRANGE).ask().plan.name == "default"


@pytest.mark.parametrize(
    "start, end, field",
    [(0, None, "period_end"), (None, 0, "period_start"), (1, 1, "period_end"), (2, 1, "period_end")],
)
def test_a_period_has_two_ends_in_order(user, start, end, field):
    """A period without one of its ends, or that ends before it starts, is refused by its field."""
    now = datetime.now(timezone.utc)
    ends = {"period_start": start, "period_end": end}
    with pytest.raises(ServiceError) as refused:
        services.subscribe(user, None, **{k: None if v is None else now + v * DAY for k, v in ends.items()})
    assert refused.value.field == field
    assert spans(user) == []


def test_the_database_refuses_what_the_service_would_not_write(user, alias):
    """Two subscriptions with the same start, or the same end, or no length cannot be stored."""
    rows = Subscription.objects.using(alias)
    rows.create(user=user, starts_us=10, ends_us=20)
    for starts_us, ends_us in ((10, 15), (15, 20), (30, 30)):
        with pytest.raises(IntegrityError), transaction.atomic(using=alias):
            rows.create(user=user, starts_us=starts_us, ends_us=ends_us)


def test_resetting_a_period_leaves_the_books_alone(project, user, ledger):
    """After a reset nothing is used until the period's end, the events stay, and then all is as before."""
    plan_of(project, "default", 1e-6)
    spend(ledger, user, 1000)
    assert Process(ledger, STRANGE).hold(1).denied
    before = services.period_of(user)
    services.reset_period(user)
    fresh = Process(ledger, STRANGE).hold(1000)
    assert fresh.denied is None
    assert fresh.period.end_us == before.end_us
    assert len(ledger.events(STRANGE)) == 1
    assert services.period_of(user, before.end_us) == services.period_of(user, before.end_us + 5)


# -- grants and corrections -------------------------------------------------------------------------------


def test_a_grant_unblocks_the_next_call(project, user, ledger):
    """A granted amount raises the limit of the running period by exactly that."""
    plan_of(project, "default", 1e-6)
    spend(ledger, user, 1000)
    process = Process(ledger, STRANGE)
    assert (process.hold(1).denied, process.hold(1).busy) == ("total_spend", False)
    services.grant(user, 500, reason="sorry")
    assert leased(process.hold(500)) == 500
    assert process.hold(1).denied == "total_spend"


def test_a_grant_counts_once_by_its_key(user, alias):
    """The same key grants once, and grants of one period add up."""
    first = services.grant(user, 500, key="ticket 7")
    assert services.grant(user, 900, key="ticket 7") == first
    services.grant(user, 20)
    assert Grant.objects.using(alias).count() == 2
    assert services.find_user(services.project(), STRANGE).grant_nusd == 520


@pytest.mark.parametrize("amount", [0, -1, 1.5, True, 10**18])
def test_a_grant_is_an_amount(user, amount):
    """What is no whole amount above zero is no grant."""
    with pytest.raises(ServiceError, match="amount_nusd"):
        services.grant(user, amount)


def test_a_grant_ends_with_its_period(project, user, ledger):
    """A grant of one period raises no limit of another one."""
    plan_of(project, "default", 1e-6)
    services.grant(user, 500)
    services.reset_period(user)
    assert Process(ledger, STRANGE).hold(1001).denied


def test_a_refund_is_a_row_of_its_own(project, user, ledger, alias):
    """A refund takes an event back where it counts, once, and leaves the event as it was."""
    plan_of(project, "default", 1e-6)
    row = spend(ledger, user, 1000, tokens=30, metadata={"feature": "chat"})
    assert Process(ledger, STRANGE).hold(1).denied
    stored = UsageEvent.objects.using(alias).get(event_id=row.id)
    refund = services.refund(stored, reason="a bug of ours")
    assert services.refund(stored) == refund
    assert (refund.cost_nusd, refund.input_tokens, refund.corrects) == (-1000, -30, row.id)
    assert set(ledger.totals(STRANGE).values()) == {0}
    assert Process(ledger, STRANGE).hold(1000).denied is None
    with pytest.raises(ServiceError, match="correction"):
        services.refund(refund)


def test_events_are_never_edited(ledger, user, alias):
    """Stored events can be neither saved again, nor changed, nor deleted through the models."""
    spend(ledger, user, 5)
    stored = UsageEvent.objects.using(alias).get()
    for step in (
        stored.save,
        stored.delete,
        lambda: UsageEvent.objects.using(alias).update(cost_nusd=0),
        UsageEvent.objects.using(alias).delete,
    ):
        with pytest.raises(TypeError, match="append-only"):
            step()


def test_an_event_below_zero_cannot_be_stored(ledger, user):
    """Only a correction may have amounts below zero: the database refuses the others."""
    with pytest.raises(IntegrityError):
        spend(ledger, user, -5)
    assert ledger.totals(STRANGE) == {}


# -- users ------------------------------------------------------------------------------------------------


def test_a_user_is_registered_once(project):
    """A second user of the same name is refused, and may be registered in another project."""
    services.create_user(project, STRANGE, name="Ada", email="ada@example.org")
    with pytest.raises(ServiceError) as refused:
        services.create_user(project, STRANGE)
    assert (refused.value.field, refused.value.code) == ("external_user_id", "exists")
    assert services.create_user(services.create_project("other"), STRANGE)


@pytest.mark.parametrize("name", ["", "x" * 513, "\ud800", None])
def test_a_user_has_a_name_that_can_be_stored(project, name):
    """An id that is empty, too long or not encodable is refused."""
    with pytest.raises(ServiceError, match="external_user_id"):
        services.create_user(project, name)


def test_a_name_that_no_column_holds_is_refused(project):
    """A NUL takes two places in a database: a name of as many as would fit is refused, and named."""
    with pytest.raises(ServiceError, match="name"):
        services.save_plan(project, "\0" * 300, PlanConfig())


def test_metering_is_switched_off_for_one_user(user, ledger):
    """The ledger tells every process that a user is not metered."""
    services.set_metering(user, False)
    assert not Process(ledger, STRANGE).ask().account.sdk_enabled
    assert Process(ledger, "ada").ask().account.sdk_enabled


def test_anonymising_keeps_the_sums(project, user, ledger, alias):
    """What says who a user is goes; his events and totals stay and still agree."""
    services.update_user(user, name="Grace", email="grace@example.org", metadata={"phone": "1"})
    reply = Process(ledger, STRANGE).ask(session_id="grace's chat")
    ledger.settle([event(reply, 7, metadata={"mail": "grace@example.org"}, description="for Grace")])
    services.anonymise(user)
    assert services.find_user(project, STRANGE) is None
    assert "grace" not in str(services.export_user(user)).lower()
    assert ledger.totals(user.external_user_id)["total_spend", reply.period.key] == 7
    assert list(services.reconcile(project)) == []


def test_an_export_holds_everything_of_one_user(project, user, ledger):
    """An export holds profile, subscriptions, grants, events and sums of that user alone."""
    services.subscribe(user, plan_of(project, "pro"))
    services.grant(user, 5)
    spend(ledger, user, 7)
    spend(ledger, services.ensure_user(project, "bob"), 9)
    export = services.export_user(user)
    assert (export["user_id"], len(export["events"]), len(export["grants"])) == (STRANGE, 1, 1)
    assert export["subscriptions"][0]["plan"] == "pro"
    assert sum(row["cost_nusd"] for row in export["events"]) == 7


# -- keys -------------------------------------------------------------------------------------------------


def test_a_key_opens_until_it_is_revoked(project):
    """A key is recognised with its scopes, noted as used, and opens nothing once it is revoked."""
    made = services.create_key(project, "ci", scopes=["ingest"])
    found = services.authenticate(made.secret)
    assert (found, found.scopes, found.project) == (made.row, ("ingest",), project)
    assert services.authenticate(made.secret).last_used_us is not None
    services.revoke(found)
    assert services.authenticate(made.secret) is None


def test_a_key_is_nowhere_but_with_its_owner(project, alias):
    """Neither the row nor its text nor the object's text holds the key."""
    made = services.create_key(project, live=False)
    stored = str(vars(made.row))
    assert made.secret.startswith("pg_test_")
    assert made.secret not in stored
    assert made.secret[25:] not in stored + repr(made) + str(made.row)


@pytest.mark.parametrize(
    "change", [lambda s: s[:-1] + "!", lambda s: s + "x", lambda s: s[:20], lambda _: "", lambda _: "é\0"]
)
def test_a_key_that_is_nearly_right_opens_nothing(project, change):
    """A key that differs anywhere, also behind the part by which it is found, is unknown."""
    made = services.create_key(project)
    assert services.authenticate(change(made.secret)) is None


def test_a_key_has_scopes_that_exist(project):
    """A key without a scope, or with an unknown one, is refused."""
    for scopes in ([], ["read", "fly"]):
        with pytest.raises(ServiceError, match="scopes"):
            services.create_key(project, scopes=scopes)


# -- usage ------------------------------------------------------------------------------------------------


def test_usage_says_what_counts_against_the_limits(project, user, ledger):
    """Usage names cost and tokens by model in the running period, and the limits, grants included."""
    plan_of(project, "default", 1e-6)
    services.grant(user, 500)
    spend(ledger, user, 40, tokens=3, model="m")
    usage = services.usage_of(user)
    assert (usage.cost_nusd, usage.tokens, usage.cost_nusd_by_model) == (40, 3, {"m": 40})
    assert (usage.plan, usage.terms.period.cap, usage.spent_scope) == ("default", 1500, None)


def test_a_dry_run_names_who_would_be_blocked(project, ledger):
    """Who has used more than a plan would allow is named, and nothing is saved."""
    plan = plan_of(project, "default", 1.0)
    for name, cost in (("ada", 10), ("bob", 100), ("cy", 1000)):
        spend(ledger, services.ensure_user(project, name), cost)
    other = plan_of(project, "pro", 1.0)
    services.subscribe(services.find_user(project, "cy"), other)
    blocked = list(services.would_block(plan, PlanConfig(max_spend_per_period=1e-7)))
    assert [(row.user_id, row.used, row.limit, row.was_blocked) for row in blocked] == [
        ("bob", 100, 100, False)
    ]
    assert services.find_plan(project, "default").current.number == 1


def test_the_cheapest_plan_that_helps_is_suggested(project, user, ledger):
    """Of the higher plans the cheapest is suggested that would admit the call."""
    plan_of(project, "default", 1e-6, rank=1)
    plan_of(project, "gold", 1.0, rank=4, price_nano=99 * USD)
    plan_of(project, "bronze", 1.2e-6, rank=2, price_nano=5 * USD)
    silver = plan_of(project, "silver", 1e-5, rank=3, price_nano=9 * USD)
    plan_of(project, "cheap but lower", 1.0, rank=0, price_nano=1 * USD)
    spend(ledger, user, 1500)
    assert services.suggested_plan(user) == silver
    assert services.suggested_plan(user, need={"total_spend": 10**6}).name == "gold"


def test_a_batch_with_a_changed_event_is_taken_but_for_that(project, ledger, user):
    """Of a batch, new events are taken, known ones counted once, and one with other content is named."""
    reply = Process(ledger, STRANGE).ask()
    one, two, three = (event(reply, cost) for cost in (1, 2, 4))
    api = services.ledger_of(project)
    assert api.post([one, two])[:2] == (2, 0)
    posted = api.post([one, two._replace(cost_tokens_nusd=3), three, three, three._replace(model="n")])
    assert posted == (1, 2, [(two.id, "cost_tokens_nusd"), (three.id, "model")])


KEY = "pg_live_a key that somebody chose, é"


def test_a_key_that_somebody_chose_is_adopted(project):
    """A chosen key opens its project like one that was made, and adopting it again changes nothing."""
    chosen = "pg_test_" + "chosen-by-a-script-0123"
    row = services.adopt_key(project, chosen, ["read"], name="ci")
    assert services.adopt_key(project, chosen) == services.authenticate(chosen) == row
    assert (row.scopes, row.is_live, chosen in str(vars(row))) == (("read",), False, False)


@pytest.mark.parametrize("secret", ["", "pg_live_short", KEY, "sk_" + "x" * 40, "pg_live_" + "x" * 300])
def test_what_cannot_be_a_key_is_not_adopted(project, secret):
    """A text that is no key is refused, and is not in the message."""
    with pytest.raises(ServiceError) as refused:
        services.adopt_key(project, secret)
    assert not secret or secret not in str(refused.value)


def test_a_known_beginning_is_not_adopted(project):
    """A key that begins as another does, was revoked, or opens another project is refused."""
    made = services.create_key(project)
    for secret, where in ((made.secret[:-1] + "!", project), (made.secret, services.create_project("other"))):
        with pytest.raises(ServiceError, match="key"):
            services.adopt_key(where, secret)
    services.revoke(made.row)
    with pytest.raises(ServiceError, match="revoked"):
        services.adopt_key(project, made.secret)


# -- sessions ---------------------------------------------------------------------------------------------


def test_an_opened_session_has_nothing_spent(user, ledger):
    """In a new default session nothing is spent; one that the app named stays."""
    for session_id in (None, "of the app"):
        reply = Process(ledger, STRANGE).ask(session_id=session_id)
        ledger.settle([event(reply, 1000)])
    opened = services.open_session(user)
    asked = Process(ledger, STRANGE).ask()
    assert asked.session.session_id == opened.session_id
    assert not any(scope == "session_spend" for scope, _ in asked.posted)
    named = Process(ledger, STRANGE).ask(session_id="of the app")
    assert 1000 in [amount for (scope, _), amount in named.posted.items() if scope == "session_spend"]
