"""
A Django project with the admin, in a process of its own: fills its database and times its pages.

``python -m benchmarks._admin_site postgresql://… EVENTS USERS`` prints one JSON line per page.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from benchmarks._admin_data import DAYS, PLANS, STATEMENTS

ROUNDS = 7
ADMIN = "/admin/paygent_django/"
APPS = ("admin", "auth", "contenttypes", "sessions", "messages")


def configure(url: str) -> None:
    """A project as ``startproject`` makes it, on the database of *url*."""
    import django
    from django.conf import settings

    parts = urlsplit(url)
    database = {
        "ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], "USER": parts.username,
        "HOST": parts.hostname, "PORT": str(parts.port), "CONN_MAX_AGE": None,
    }  # fmt: skip
    processors = ("template.context_processors.request", "contrib.auth.context_processors.auth",
                  "contrib.messages.context_processors.messages")  # fmt: skip
    settings.configure(
        SECRET_KEY="the benchmark signs with this", ALLOWED_HOSTS=["*"], DATABASES={"default": database},
        ROOT_URLCONF=__name__, STATIC_URL="/static/", USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[*(f"django.contrib.{app}" for app in APPS), "paygent_django"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
            "OPTIONS": {"context_processors": [f"django.{one}" for one in processors]},
        }],
    )  # fmt: skip
    django.setup()


def fill(events: int, users: int) -> None:
    """Tables, four plans, and the rows."""
    from django.core.management import call_command
    from django.db import connection

    from paygent.core.windows import calendar_month, from_us
    from paygent_django import services

    call_command("migrate", verbosity=0)
    project, now = services.project(), time.time_ns() // 1000
    for number in range(PLANS):
        config = {"max_spend_per_period": 0.02 * 5**number, "soft_gate_at": 0.8}
        services.save_plan(project, f"plan-{number}", config, price_nano=number * 10**10, rank=number)
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval(pg_get_serial_sequence('paygent_enduser', 'id'))")
        values = {
            "project": project.pk, "users": users, "events": events, "now": now, "days": DAYS, "plans": PLANS,
            "first_user": cursor.fetchone()[0] + 1, "month": calendar_month(now).start_us,
            "start": from_us(now).date(),
        }  # fmt: skip
        for statement in STATEMENTS:
            cursor.execute(statement.format(**values))


def addresses() -> dict[str, str]:
    """The pages, by what they show."""
    from paygent_django.models import EndUser, Plan, UsageEvent

    busiest = EndUser.objects.order_by("pk").first()
    event = UsageEvent.objects.filter(user=busiest).order_by("timestamp_us").first()
    plan = Plan.objects.order_by("pk").first()
    assert busiest is not None
    assert event is not None
    assert plan is not None
    user = f"{ADMIN}enduser/{busiest.pk}/change/"
    return {
        "overview, 30 days": f"{ADMIN}dailyusage/",
        "overview, 90 days": f"{ADMIN}dailyusage/?days=90",
        "users": f"{ADMIN}enduser/",
        "users, a later page": f"{ADMIN}enduser/?after={busiest.pk + 1000}.{busiest.pk + 1000}",
        "users, top spenders": f"{ADMIN}enduser/?by=spend",
        "users, search by id": f"{ADMIN}enduser/?q=user-77777",
        "users, search by address": f"{ADMIN}enduser/?q=customer4242@example",
        "users, search by name": f"{ADMIN}enduser/?q=tomer+4242",
        "users, search without a hit": f"{ADMIN}enduser/?q=zzz",
        "the busiest user": user,
        "his oldest events": f"{user}?events={event.timestamp_us + 10**9}.1",
        "events": f"{ADMIN}usageevent/",
        "events, the oldest": f"{ADMIN}usageevent/?after={event.timestamp_us}.1",
        "events of a user": f"{ADMIN}usageevent/?user={busiest.pk}",
        "one event": f"{ADMIN}usageevent/{event.pk}/change/",
        "decisions": f"{ADMIN}gateevent/",
        "leases": f"{ADMIN}lease/",
        "plans": f"{ADMIN}plan/",
        "a plan": f"{ADMIN}plan/{plan.pk}/change/",
    }


def timed(act: Callable[[], Any], rounds: int) -> list[float]:
    """How many seconds *act* takes, several times after a first one."""
    act()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        act()
        taken.append(time.perf_counter() - start)
    return taken


def measured() -> Iterator[dict[str, Any]]:
    """The pages, and the dry run of a plan that everybody might be on."""
    from django.contrib.auth.models import User
    from django.test import Client

    from paygent_django.admin.plans import dry_run_of
    from paygent_django.models import Plan

    client = Client()
    client.force_login(User.objects.create_superuser("bench"))
    for name, url in addresses().items():
        if client.get(url).status_code != 200:
            raise SystemExit(f"{url} does not answer")
        yield {"page": name, "seconds": timed(lambda url=url: client.get(url), ROUNDS)}  # type: ignore[misc]
    plan = Plan.objects.select_related("current", "project").get(name="plan-1")
    config = plan.config
    assert config is not None
    loose = config.model_copy(
        update={"max_spend_per_period": 10.0**6}
    )  # nobody is over it: all are looked at
    yield {"page": "dry run of a plan", "seconds": timed(lambda: dry_run_of(plan, loose), 1)}


def urlpatterns_of() -> list[Any]:
    """The admin alone."""
    from django.contrib import admin
    from django.urls import path

    return [path("admin/", admin.site.urls)]


def __getattr__(name: str) -> Any:
    """Django asks for the addresses once its apps are there."""
    if name == "urlpatterns":
        return urlpatterns_of()
    raise AttributeError(name)


def main() -> None:
    """Run what the command line asks for."""
    url, events, users = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    configure(url)
    fill(events, users)
    for row in measured():
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
