"""The system checks: what is wrong with the settings, under which id, and what to do about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from paygent_django import checks, conf

AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"


def found():
    return {message.id: message for message in checks.check_settings() + checks.check_middleware()}


def test_the_shared_settings_are_fine():
    """A project that follows the documentation hears nothing."""
    assert found() == {}


def test_they_are_registered():
    """``manage.py check`` runs them."""
    assert [message.id for message in run_checks() if message.id.startswith("paygent.")] == []
    registered = {check.__name__ for check in registry.get_checks()}
    assert {"check_settings", "check_middleware"} <= registered


@pytest.mark.parametrize(
    ("given", "number", "says"),
    [
        ([("LEDGER", "memory://")], "E001", "must be a dict, not list"),
        ({"UPGRADE_ULR": "/upgrade"}, "E002", "Did you mean 'UPGRADE_URL'"),
        ({"upgrade_url": "/upgrade"}, "E002", "Did you mean 'UPGRADE_URL'"),
        ({"LEDGR": "memory://"}, "E002", "Did you mean 'LEDGER'"),
        ({"XYZZY": 1}, "E002", "There are: "),
        ({"STATUS_CODE": 500}, "E003", "status_code=500"),
        ({"UPGRADE_URL": "javascript:alert(1)"}, "E003", "upgrade_url="),
        ({"GET_USER_ID": "nowhere.at.all"}, "E003", "leads nowhere"),
        ({"ANONYMOUS": "refuse"}, "E003", "anonymous"),
        ({"PLANS": "missing.toml"}, "E003", "missing.toml"),
        ({"DATABASE": "elsewhere"}, "E004", "There are: 'default'"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_right(given, number, says, settings_with):
    """Each is an error with an id, and its message or hint says what is meant."""
    settings_with(PAYGENT=given)
    message = found()[f"paygent.{number}"]
    assert says in f"{message.msg} {message.hint}"
    assert message.hint


def test_bad_settings_do_not_start(settings_with):
    """A project that is started all the same stops at the first request, with the name of the setting."""
    settings_with(PAYGENT={"UPGRADE_ULR": "/upgrade"})
    with pytest.raises(ImproperlyConfigured, match="did you mean UPGRADE_URL"):
        Client().get("/hello")
    with pytest.raises(ImproperlyConfigured, match="UPGRADE_ULR"):
        conf.options()


def test_a_view_and_the_ledger_on_one_sqlite_file(settings_with, monkeypatch):
    """With ATOMIC_REQUESTS on the SQLite file of the ledger they wait for each other: a warning."""
    monkeypatch.setitem(settings.DATABASES["default"], "ATOMIC_REQUESTS", True)
    settings_with(PAYGENT={})
    assert list(found()) == ["paygent.W005"]


def test_a_file_that_each_view_locks_is_no_place_for_the_ledger(settings_with, monkeypatch):
    """Where a transaction takes the lock as it begins, each view would shut the ledger out: an error."""
    monkeypatch.setitem(settings.DATABASES["default"], "ATOMIC_REQUESTS", True)
    monkeypatch.setitem(settings.DATABASES["default"], "OPTIONS", {"transaction_mode": "IMMEDIATE"})
    settings_with(PAYGENT={})
    assert list(found()) == ["paygent.E005"]


def test_the_ledger_is_the_projects_own_database_unless_it_says_otherwise(settings_with, monkeypatch):
    """Nothing named means the project's database; a ledger, a file or an API key means that."""
    ledgers = []
    for given in (
        {},
        {"PROJECT": "a b"},
        {"LEDGER": "memory://"},
        {"DB_PATH": "p.db"},
        {"API_KEY": "pg_live_x"},
    ):
        settings_with(PAYGENT=given)
        ledgers.append(conf.options().paygent.get("ledger"))
    assert ledgers == ["django://", "django:///a%20b", "memory://", None, None]
    monkeypatch.setenv("PAYGENT_API_KEY", "pg_live_x")
    settings_with(PAYGENT={"STATUS_CODE": 402})
    assert "ledger" not in conf.options().paygent


@pytest.mark.parametrize(
    ("middleware", "number"),
    [
        ([AUTH], "W001"),
        ([checks.MIDDLEWARE, AUTH], "W002"),
        ([AUTH, checks.MIDDLEWARE, "corsheaders.middleware.CorsMiddleware"], "W003"),
        ([AUTH, checks.MIDDLEWARE, checks.MIDDLEWARE], "W004"),
    ],
)
def test_a_middleware_that_is_out_of_place(middleware, number, settings_with):
    """Missing, before authentication, outside of CORS, or twice: each is a warning with a hint."""
    settings_with(MIDDLEWARE=middleware)
    assert list(found()) == [f"paygent.{number}"]
    assert found()[f"paygent.{number}"].hint


def test_every_setting_of_the_plugin_is_known():
    """All options of the web plugins and all arguments of ``Paygent.init`` may be given."""
    known = {"GET_USER_ID", "DEFER_START_S", "OFFERS", "LEDGER", "PLANS", "API_KEY", "FAIL_OPEN"}
    assert known <= conf.KNOWN_NAMES
    assert "PAYGENT" not in conf.KNOWN_NAMES
    assert settings.PAYGENT


def test_the_command_reports_them(tmp_path):
    """``manage.py check`` of a project with a misspelt setting fails, and says which was meant."""
    (tmp_path / "misspelt.py").write_text(
        "from django_project.settings import *\nPAYGENT = {'UPGRADE_ULR': '/upgrade'}\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parent.parent)])
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "misspelt", "PYTHONPATH": path}
    command = [sys.executable, "-m", "django", "check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "(paygent.E002) PAYGENT has no setting 'UPGRADE_ULR'" in done.stderr
