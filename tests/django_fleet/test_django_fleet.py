"""Four workers of gunicorn and one database: one cap, nothing lost, and changes that reach every worker."""

import json
import logging
import os
import signal
import time

import pytest
from django.contrib.auth.models import Group
from fleet_server import CALL_NUSD, WORKERS, Crowd, until
from stripe import WebhookSignature

from paygent_django import services

log = logging.getLogger("paygent.fleet")  # how long each change took


def webhook(served, kind, user, status):
    """Deliver an event of Stripe's about a user's subscription, as Stripe does."""
    now_s = int(time.time())
    item = {
        "price": {"id": "price_pro", "object": "price"},
        "current_period_start": now_s - 86_400,
        "current_period_end": now_s + 86_400,
    }
    about = {
        "id": f"sub_{user}",
        "object": "subscription",
        "customer": f"cus_{user}",
        "status": status,
        "metadata": {"external_user_id": user},
        "items": {"object": "list", "data": [item]},
    }
    event = {"id": f"evt_{user}_{kind}", "object": "event", "created": now_s, "data": {"object": about}}
    body = json.dumps(event | {"type": f"customer.subscription.{kind}"})
    header = WebhookSignature.generate_signature_header(body, "whsec_fleet")
    answer = served.post("/stripe/webhook", body, {"stripe-signature": header})
    assert (answer.status_code, answer.text) == (200, "applied")


def named(served, plan_name):
    return services.find_plan(served.project, plan_name)


# What lets a user through who was refused, and what refuses him again.
CHANGES = {
    "plan saved": (
        "own",
        lambda served, user: services.save_plan(served.project, "own", named(served, "many").config),
        lambda served, user: services.save_plan(served.project, "own", named(served, "none").config),
    ),
    "plan changed": (
        "none",
        lambda served, user: services.change_plan(user, named(served, "many")),
        lambda served, user: services.change_plan(user, named(served, "none")),
    ),
    "webhook": (
        None,
        lambda served, user: webhook(served, "created", user.external_user_id, "active"),
        lambda served, user: webhook(served, "deleted", user.external_user_id, "canceled"),
    ),
}


def test_a_cap_for_a_hundred_calls_admits_a_hundred(served):
    """Four workers together answer a hundred calls of a plan for a hundred, and the books agree."""
    served.user("cap", "hundred")
    with Crowd(served, "cap") as crowd:
        until(lambda: sum(a.status == 429 for a in tuple(crowd.answers)) >= 60)
        crowd.until_all_workers(429, 0.0)
    made = sum(answer.status == 200 for answer in crowd.answers)
    assert 99 <= made <= 100
    until(lambda: len(served.recorded("cap")) == made)
    assert services.usage_of(served.user("cap")).cost_nusd == made * CALL_NUSD


def test_a_view_that_fails_leaves_its_spend(served):
    """Under ATOMIC_REQUESTS a view that fails after its call undoes what it wrote, not what it spent."""
    served.user("fails", "many")
    assert [served.get("/fail", "fails").status for _ in range(3)] == [500] * 3
    until(lambda: len(served.recorded("fails")) == 3)
    assert not Group.objects.using(served.alias).filter(name="written by the view").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reaches_every_worker(served, change):
    """A saved or assigned plan and an event of Stripe's let a user through, and refuse him, everywhere."""
    first, allow, refuse = CHANGES[change]
    services.save_plan(served.project, "own", named(served, "none").config)
    name = change.replace(" ", "-")
    user = served.user(name, first)
    with Crowd(served, name) as crowd:
        crowd.until_all_workers(429, 0.0)
        for act, before, after in ((allow, 429, 200), (refuse, 200, 429)):
            act(served, user)
            changed_s = time.monotonic()
            crowd.until_all_workers(after, changed_s)
            assert crowd.from_now_on() == {after}
            log.info("%s, then %s: %.2f s", change, after, crowd.latest(before, changed_s))


def test_a_grant_reaches_every_worker(served):
    """A grant lets a user who is spent through in every worker."""
    user = served.user("grant", "hundred")
    with Crowd(served, "grant") as crowd:
        crowd.until_all_workers(429, 0.0)
        services.grant(user, 10_000 * CALL_NUSD)
        changed_s = time.monotonic()
        crowd.until_all_workers(200, changed_s)
        assert crowd.from_now_on() == {200}
    log.info("a grant, then 200: %.2f s", crowd.latest(429, changed_s))


def test_a_worker_that_is_killed_loses_nothing(served):
    """After kill -9 of a worker in mid-traffic every answered call is in the books, once."""
    served.user("victim", "many")
    with Crowd(served, "victim") as crowd:
        crowd.until_all_workers(200, 0.0)
        os.kill(next(a.pid for a in reversed(crowd.answers) if a.pid), signal.SIGKILL)
        crowd.until_all_workers(200, time.monotonic())
    told = [id_ for answer in crowd.answers for id_ in answer.ids]
    lost = sum(answer.status == 0 for answer in crowd.answers)
    until(lambda: set(told) <= set(served.recorded("victim")))
    recorded = served.recorded("victim")
    assert len(recorded) == len(set(recorded))
    assert len(told) <= len(recorded) <= len(told) + lost
    assert len({a.pid for a in crowd.answers} - {0}) > WORKERS


def test_nothing_is_left_behind(served):
    """After a stop in good order there is no lease, no journal, and no total that differs from its events."""
    served.stop()
    assert served.left == ([], [])
    assert list(services.reconcile(served.project)) == []
