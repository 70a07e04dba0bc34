"""A project behind a real server: the tests' users, and sessions that need no database."""

import os

from django_project.settings import *  # noqa: F403  # that is how settings inherit

ROOT_URLCONF = "llm_views"
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
PAYGENT = {
    "DB_PATH": os.environ["SERVED_LEDGER"],
    "PLANS": os.environ["SERVED_PLANS"],
    "DEFER_START_S": 0.2,
}
