"""Many events, some of them twice, out of order, over two periods: the sums are exact."""

import os
import random
import uuid
from collections import Counter

import pytest
from django.db.models import Sum
from django.test import override_settings

from paygent.core.events import Event, posts
from paygent.testing._contract_values import at_once
from paygent_django import services
from paygent_django.ledger import DjangoLedger
from paygent_django.models import DailyUsage, Total, UsageEvent, UserUsage

EVENTS = int(os.environ.get("PAYGENT_TEST_EVENTS", "20000"))  # a million takes some minutes
USERS = [f"org/{number}?x=#é 💥" for number in range(50)]
DAY_US = 86_400_000_000
PERIODS = {"p1767225600000000": 1_767_225_600_000_000, "p1769904000000000": 1_769_904_000_000_000}


@pytest.fixture(autouse=True)
def _on(alias):
    with override_settings(PAYGENT={"DATABASE": alias}):
        yield


def mixed(count, rng):
    """So many distinct events of all kinds."""
    for number in range(count):
        period, start_us = rng.choice(list(PERIODS.items()))
        model = rng.choice(["gpt-4o", "gpt-4o-mini", "claude", None])
        tokens = rng.randrange(5000)
        yield Event(
            str(uuid.UUID(int=rng.getrandbits(128))), rng.choice(USERS),
            start_us + rng.randrange(28 * DAY_US), period, f"s{start_us}:{rng.randrange(9)}", None, "openai",
            "chat", model, model, model, tokens, tokens // 3, 0, 0, 0, rng.randrange(10**8), number % 7, (),
            {"feature": rng.choice(["chat", "search"])} if number % 3 else None, "auto", number % 11 == 0, 0,
            "plan", None,
        )  # fmt: skip


def sent(events, rng):
    """Batches of them, one in ten twice, in no order."""
    everything = [*events, *rng.sample(events, len(events) // 10)]
    rng.shuffle(everything)
    return [everything[start : start + 500] for start in range(0, len(everything), 500)]


@pytest.mark.timeout(3600)
def test_sums_are_exact_whatever_the_order(alias):
    """Two processes post events with one in ten twice: each counts once, and every counter is exact."""
    rng = random.Random(7)
    events = list(mixed(EVENTS, rng))
    batches = sent(events, rng)
    new = []

    def post(share):
        ledger = DjangoLedger(alias)
        new.extend(ledger.settle(batch) for batch in share)
        ledger.close()

    at_once(post, [batches[::2], batches[1::2]])
    wanted = Counter()
    for event in events:
        for scope, window, amount in posts(event):
            wanted[event.user_id, scope, window] += amount
    stored = Total.objects.using(alias).values_list("user__external_user_id", "scope", "window", "amount")
    assert sum(new) == len(events) == UsageEvent.objects.using(alias).count()
    assert {(user, scope, window): amount for user, scope, window, amount in stored} == wanted
    spent = sum(event.cost_nusd for event in events)
    assert DailyUsage.objects.using(alias).aggregate(n=Sum("cost_nusd"))["n"] == spent
    months = UserUsage.objects.using(alias).filter(grain=UserUsage.MONTH)
    assert months.aggregate(n=Sum("cost_nusd"))["n"] == spent
    assert list(services.reconcile(services.project())) == []
    first = Total.objects.using(alias).first()
    Total.objects.using(alias).filter(pk=first.pk).update(amount=first.amount + 1)
    (planted,) = services.reconcile(services.project())
    assert planted[3:] == (first.amount + 1, first.amount)
