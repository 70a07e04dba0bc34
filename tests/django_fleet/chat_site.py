"""The example app, on the database that the environment names."""

import os
import sys
from pathlib import Path

import fleet_databases
from django.conf import LazySettings

configure = LazySettings.configure


def on_that_database(settings, **given):
    """As the example says, but for its database."""
    configure(
        settings, **given | {"DATABASES": {"default": fleet_databases.settings(os.environ["FLEET_DATABASE"])}}
    )


LazySettings.configure = on_that_database
sys.path.insert(0, str(Path(__file__).parents[2] / "example_apps" / "chat_django"))

from app import app  # once it is told where to store  # noqa: E402

__all__ = ["app"]
