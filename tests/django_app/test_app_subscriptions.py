"""Subscriptions whose period was reset, and those of a database whose clock was set back."""

from datetime import datetime, timedelta, timezone

import pytest
from django.test import override_settings

from paygent.core.models import PlanConfig
from paygent.core.windows import calendar_month, from_us, to_us
from paygent_django import services
from paygent_django.ledger import _accounts, _clock
from paygent_django.models import Subscription
from paygent_django.models.fields import MOMENT_MAX_US
from paygent_django.services import _base

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _on(alias):
    with override_settings(PAYGENT={"DATABASE": alias}):
        yield


@pytest.fixture
def project():
    return services.project()


@pytest.fixture
def user(project):
    return services.ensure_user(project, "org/42?x=#é 💥")


def plan_of(project, name):
    return services.save_plan(project, name, PlanConfig(max_spend_per_period=5.0)).plan


def spans(user):
    found = Subscription.objects.using(user._state.db).filter(user=user).order_by("starts_us")
    return [(row.plan and row.plan.name, row.starts_us, row.ends_us) for row in found]


@pytest.fixture
def half_way(project, user):
    """The user on the plan pro, at the middle of a period of twenty days that was reset just now."""
    start = datetime.now(timezone.utc) - 10 * DAY
    pro = plan_of(project, "pro")
    services.subscribe(user, pro, period_start=start, period_end=start + 20 * DAY, reference="sub_1")
    services.reset_period(user)
    return to_us(start), to_us(start + 20 * DAY)


def terms_of(user):
    found = Subscription.objects.using(user._state.db).filter(user=user).order_by("starts_us")
    return [(row.plan and row.plan.name, row.reference) for row in found]


def test_a_reset_period_keeps_the_reference(user, half_way):
    """Before, during and after the rest of a period the subscription is the same one of the provider's."""
    assert terms_of(user) == [("pro", "sub_1")] * 3
    assert spans(user)[2][1:] == (half_way[1], MOMENT_MAX_US)


def test_cancelling_after_a_reset_ends_all_of_it(project, user, half_way):
    """Who cancels after his period was reset gets his plan back neither now nor at the period's end."""
    plan_of(project, "default")
    assert services.cancel(user)
    assert services.running(user, half_way[1] + 1) is None
    assert services.usage_of(user).plan == "default"
    assert len(spans(user)) == 2


def test_cancelling_later_ends_a_reset_subscription_then(user, half_way):
    """A reset subscription that is cancelled for a later moment ends there."""
    at = datetime.now(timezone.utc) + 3 * DAY
    services.cancel(user, at)
    assert spans(user)[-1] == ("pro", spans(user)[0][2], to_us(at))


def test_a_reset_does_not_undo_a_cancellation(project, user):
    """A period is reset until the subscription's end at most."""
    services.subscribe(user, plan_of(project, "pro"))
    at = datetime.now(timezone.utc) + timedelta(seconds=30)
    services.cancel(user, at)
    services.reset_period(user)
    assert spans(user)[-1][2] == to_us(at)


def test_a_plan_changed_after_a_reset_stays_changed(project, user, half_way):
    """Another plan binds to the end of the reset period and after it, in the periods from before."""
    before = services.period_of(user, half_way[1])
    services.change_plan(user, plan_of(project, "free"))
    assert terms_of(user)[2:] == [("free", "sub_1")] * 2
    assert services.running(user, half_way[1]).plan.name == "free"
    assert services.period_of(user, half_way[1]) == before


def test_a_period_is_reset_more_than_once(user, half_way):
    """After two resets the subscription goes on at the period's end as after one."""
    services.reset_period(user)
    assert terms_of(user) == [("pro", "sub_1")] * 4
    assert services.period_of(user, half_way[1]).start_us == half_way[1]
    assert services.period_of(user).end_us == half_way[1]


def test_a_renewal_ends_what_a_reset_has_cut(project, user, half_way):
    """A subscription for a period of its own takes the place of the rest, too."""
    start = datetime.now(timezone.utc) + DAY
    services.subscribe(user, plan_of(project, "team"), period_start=start, period_end=start + DAY)
    assert spans(user)[-1] == ("team", to_us(start), MOMENT_MAX_US)
    assert services.running(user, half_way[1]).plan.name == "team"


def test_a_reset_without_a_subscription_leaves_calendar_months(project, user):
    """Who has the default plan gets another one after a reset, and months as before."""
    end_us = services.period_of(user).end_us
    services.reset_period(user)
    services.change_plan(user, plan_of(project, "pro"))
    assert services.running(user, end_us).plan.name == "pro"
    assert services.period_of(user, end_us) == calendar_month(end_us)
    assert services.period_of(user).end_us == end_us


def test_a_scheduled_subscription_survives_reset_and_cancellation(project, user):
    """What was scheduled with a period of its own begins then, whatever becomes of the running one."""
    pro = plan_of(project, "pro")
    services.subscribe(user, pro)
    end_us = services.period_of(user).end_us
    end = from_us(end_us)
    services.subscribe(user, pro, period_start=end, period_end=end + 30 * DAY)
    services.reset_period(user)
    services.cancel(user)
    assert services.running(user, end_us).plan.name == "pro"


# -- a database whose clock is set back ---------------------------------------------------------------------


@pytest.fixture
def set_back(monkeypatch):
    """Set the ledger's clock back by an hour for the services."""

    def act():
        monkeypatch.setattr(_accounts, "clock_us", lambda sql: _clock.clock_us(sql) - 3_600_000_000)
        monkeypatch.setattr(_base, "clock_us", lambda sql: _clock.clock_us(sql) - 3_600_000_000)

    return act


def test_a_clock_that_is_set_back_undoes_no_change(project, user, set_back):
    """A plan that binds goes on to bind when the clock goes back to before it was given."""
    for name in ("free", "pro"):
        services.change_plan(user, plan_of(project, name))
    set_back()
    assert services.running(user).plan.name == "pro"
    assert services.usage_of(user).plan == "pro"


def test_a_change_after_the_clock_was_set_back_binds(project, user, set_back):
    """A plan that is given when the clock has gone back binds at once, and is cancelled at once."""
    plan_of(project, "default")
    for name in ("free", "pro"):
        services.change_plan(user, plan_of(project, name))
    set_back()
    services.change_plan(user, plan_of(project, "team"))
    assert services.usage_of(user).plan == services.running(user).plan.name == "team"
    assert services.cancel(user)
    assert services.usage_of(user).plan == "default"
    assert services.running(user) is None
