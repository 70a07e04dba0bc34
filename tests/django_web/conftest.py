"""Django in this process: real sessions and users, with the real SDK talking to the loopback LLM server."""

import pytest
from django_project import harness

harness.set_up()

from django_project.harness import django_database, django_unblocked  # noqa: E402  # once Django is set up
from ledger_waits import ledger_waits  # noqa: E402

from paygent import Paygent, PlanConfig  # noqa: E402
from paygent.testing.llm_server import LLMServer  # noqa: E402

__all__ = ["django_database", "django_unblocked", "ledger_waits"]


@pytest.fixture(scope="session")
def llm():
    with LLMServer(reply_tokens=20) as server:
        yield server


@pytest.fixture
def pg(llm, monkeypatch):
    """``pro`` may spend ten dollars, ``free`` nothing; ``tiny`` some calls."""
    monkeypatch.setenv("OPENAI_BASE_URL", llm.openai_base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    pg = Paygent.init(ledger="memory://")
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
    pg.configure_plan("tiny", PlanConfig(max_spend_per_period=0.0001))
    pg.configure_plan("pro", PlanConfig(max_spend_per_period=10.0))
    yield pg
    pg.shutdown()


@pytest.fixture
def routes(settings_with):
    settings_with(ROOT_URLCONF="llm_views")


@pytest.fixture
def settings_with():
    """Override Django's settings until the test ends."""
    from django.test import override_settings

    overrides = []

    def override(**given):
        overrides.append(override_settings(**given))
        overrides[-1].enable()

    yield override
    for one in reversed(overrides):
        one.disable()


@pytest.fixture
def person(django_database, pg):
    """Make a user with a plan; his id with Paygent is his primary key."""
    from django.contrib.auth.models import User

    def make(name, plan="pro"):
        user, _ = User.objects.get_or_create(username=name)
        pg.assign_plan(str(user.pk), plan)
        return user

    return make


@pytest.fixture
def browser(routes, person):
    """A browser of the WSGI handler, with somebody signed in."""
    from django.test import Client

    def make(name=None, plan="pro", **headers):
        client = Client(headers={"accept": "application/json", **headers})
        if name is not None:
            user = person(name, plan)
            client.force_login(user)
            client.user_id = str(user.pk)
        return client

    return make


@pytest.fixture
def async_browser(routes, person):
    """The same of the ASGI handler, to be awaited."""
    from asgiref.sync import sync_to_async
    from django.test import AsyncClient, Client

    def signed_in(client, name, plan):
        plain, user = Client(), person(name, plan)
        plain.force_login(user)
        client.cookies, client.user_id = plain.cookies, str(user.pk)

    async def make(name=None, plan="pro"):
        client = AsyncClient(headers={"accept": "application/json"})
        if name is not None:
            await sync_to_async(signed_in)(client, name, plan)
        return client

    return make
