"""A database of Paygent's own whose requests are transactions."""

import subprocess
import sys

PROJECT = """
import sys, uuid
from django.conf import settings

here = sys.argv[1]
base = {"ENGINE": "django.db.backends.sqlite3", "ATOMIC_REQUESTS": True}
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], USE_TZ=True, ROOT_URLCONF="paygent_django.urls",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "paygent_django"],
    DATABASES={name: {**base, "NAME": f"{here}/{name}.sqlite3"} for name in ("default", "metering")},
    DATABASE_ROUTERS=["paygent_django.database.PaygentRouter"],
    PAYGENT={"DATABASE": "metering"},
)
import django

django.setup()
from django.core.management import call_command
from django.db import connections
from django.test import Client
from paygent_django import services
from paygent_django.api import events, users

call_command("migrate", database="metering", verbosity=0)
project = services.project()
key = services.create_key(project, scopes=["read", "ingest", "admin"]).secret
client = Client(headers={"Authorization": f"Bearer {key}"})


def within(module, name):
    # Says whether a transaction of the request is open where the API begins to work.
    work = getattr(module, name)

    def wrapped(*given, **more):
        print(name, [connections[alias].in_atomic_block for alias in ("default", "metering")])
        return work(*given, **more)

    setattr(module, name, wrapped)


within(events, "placed")
within(users.services, "create_user")
made = client.post("/api/v1/users", {"external_user_id": "ada"}, content_type="application/json")
event = {"id": str(uuid.uuid4()), "user_id": "ada", "timestamp": "2026-04-03T10:20:30Z", "cost_total": 1.0}
posted = client.post("/api/v1/events/batch", [event], content_type="application/json")
print(made.status_code, posted.status_code)
"""


def test_an_operation_is_in_no_transaction_of_its_request(tmp_path):
    """Under ATOMIC_REQUESTS of PAYGENT["DATABASE"] an operation of the API begins its own transaction."""
    command = [sys.executable, "-W", "error", "-c", PROJECT, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert said.stdout.splitlines() == [
        "create_user [False, False]",
        "placed [False, False]",
        "201 200",
    ], said.stderr
