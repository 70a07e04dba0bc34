"""Stripe's events as it sends them: documented shapes, really signed, into the project's own database."""

import shutil

import pytest
from django_project import harness
from real_servers import postgres_server, postgres_url

harness.set_up()

import stripe_databases  # noqa: E402  # it needs the app
from django.test import override_settings  # noqa: E402  # it needs Django's settings
from django_project.harness import django_database, django_unblocked  # noqa: E402
from stripe_deliveries import PLANS, SECRET, Deliveries  # noqa: E402

from paygent_django import services  # noqa: E402

__all__ = ["django_database", "django_unblocked", "postgres_server", "postgres_url"]


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory, django_unblocked):
    path = tmp_path_factory.mktemp("stripe") / "template.sqlite3"
    with stripe_databases.added(stripe_databases.sqlite(path)) as alias:
        stripe_databases.migrate(alias)
    return path


@pytest.fixture
def sqlite_alias(migrated_file, tmp_path):
    shutil.copy(migrated_file, tmp_path / "app.sqlite3")
    with stripe_databases.added(stripe_databases.sqlite(tmp_path / "app.sqlite3")) as alias:
        yield alias


@pytest.fixture
def postgres_alias(postgres_url, django_unblocked):
    with stripe_databases.added(stripe_databases.postgres(postgres_url)) as alias:
        stripe_databases.migrate(alias)
        yield alias


@pytest.fixture
def database(request):
    """SQLite, unless a test asks for both kinds: what is tested here is what is done, not where."""
    return request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_alias")


@pytest.fixture
def paygent_settings(database):
    """``PAYGENT`` of a project; a test may change it."""
    given = {
        "DATABASE": database,
        "LEDGER": "memory://",
        "STRIPE_WEBHOOK_SECRET": SECRET,
        "STRIPE_PLANS": {"price_pro": "pro", "price_team": "team"},
    }
    with override_settings(PAYGENT=given, ROOT_URLCONF="stripe_routes", MIDDLEWARE=[]):
        yield given


@pytest.fixture
def stripe(paygent_settings):
    """Stripe, and the project it delivers to, which has the plans default, pro and team."""
    project = services.project()
    for rank, (name, config) in enumerate(PLANS.items()):
        services.save_plan(project, name, config, rank=rank)
    return Deliveries(project)
