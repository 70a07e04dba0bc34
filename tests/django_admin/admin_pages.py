"""The pages of the admin, and how often each may ask Paygent's database, however many rows there are."""

import time

from django.db import connections
from django.test.utils import CaptureQueriesContext

from paygent_django.models import EndUser, Plan, UsageEvent
from paygent_django.models.moments import now_us

ADMIN = "/admin/paygent_django/"
QUERIES = {
    "overview": 10, "overview of 90 days": 10, "users": 10, "spenders": 12, "search": 10,
    "search for an address": 9, "search in vain": 3, "user": 17, "older": 17, "events": 3,
    "later events": 3, "events of a user": 4, "events of a day": 3, "event by id": 3, "event": 7,
    "decisions": 3, "leases": 4, "plans": 3, "plan": 5,
}  # fmt: skip


def pages_of(user):
    """The addresses of the pages of *user*'s project; it has a plan, and *user* an event."""
    alias = user._state.db
    event = UsageEvent.objects.using(alias).filter(user=user).first()
    plan = (
        Plan.objects.using(alias).filter(project=user.project_id, current__isnull=False).order_by("pk").last()
    )
    now = now_us()
    return {
        "overview": f"{ADMIN}dailyusage/",
        "overview of 90 days": f"{ADMIN}dailyusage/?days=90",
        "users": f"{ADMIN}enduser/",
        "spenders": f"{ADMIN}enduser/?by=spend",
        "search": f"{ADMIN}enduser/?q=user_4",
        "search for an address": f"{ADMIN}enduser/?q=ada@exam",
        "search in vain": f"{ADMIN}enduser/?q=nobody+is+called+so",
        "user": f"{ADMIN}enduser/{user.pk}/change/",
        "older": f"{ADMIN}enduser/{user.pk}/change/?events={now}.9&gates={now}.9",
        "events": f"{ADMIN}usageevent/",
        "later events": f"{ADMIN}usageevent/?after={now}.99999",
        "events of a user": f"{ADMIN}usageevent/?user={user.pk}",
        "events of a day": f"{ADMIN}usageevent/?from=2026-01-01",
        "event by id": f"{ADMIN}usageevent/?q={event.event_id}",
        "event": f"{ADMIN}usageevent/{event.pk}/change/",
        "decisions": f"{ADMIN}gateevent/",
        "leases": f"{ADMIN}lease/",
        "plans": f"{ADMIN}plan/",
        "plan": f"{ADMIN}plan/{plan.pk}/change/",
    }


def user_named(alias, external_user_id):
    """A user of the only project there."""
    return EndUser.objects.using(alias).get(external_user_id=external_user_id)


def asked(client, alias, url):
    """What a page asks Paygent's database."""
    with CaptureQueriesContext(connections[alias]) as queries:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in queries]


def seconds(client, url, rounds=1):
    """How long a page takes at its best; the first time does not count."""
    taken = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        assert client.get(url).status_code == 200
        taken.append(time.perf_counter() - start)
    return min(taken[1:])
