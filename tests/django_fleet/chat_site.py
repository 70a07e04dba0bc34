"""The example app, on the database that the environment names."""

import os
import sys
from pathlib import Path

import fleet_databases
from django.conf import LazySettings

configure = LazySettings.configure


def on_that_database(settings, **given):
    """
    As the example says, but for its database, and for what befalls a ledger that does not answer.

    A machine that is busy with other tests can make it look so, and calls that then go on are above the cap.
    """
    database = {"default": fleet_databases.settings(os.environ["FLEET_DATABASE"])}
    paygent = given["PAYGENT"] | {"FAIL_OPEN": False}
    configure(settings, **given | {"DATABASES": database, "PAYGENT": paygent})


LazySettings.configure = on_that_database
sys.path.insert(0, str(Path(__file__).parents[2] / "example_apps" / "chat_django"))

from app import app  # once it is told where to store  # noqa: E402

__all__ = ["app"]
