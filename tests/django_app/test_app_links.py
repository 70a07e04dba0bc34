"""The link from Paygent's users to the project's own, made with the first call."""

import logging

import pytest
from app_calls import call
from django.contrib.auth.models import User
from django.db import connections
from django.test import override_settings

from paygent import Paygent
from paygent_django import services
from paygent_django.ledger import _links


@pytest.fixture(autouse=True)
def _on(alias):
    class Here:
        def db_for_read(self, model, **_):
            return alias

        db_for_write = db_for_read

    with override_settings(PAYGENT={"DATABASE": alias}, DATABASE_ROUTERS=[Here()]):
        yield
        User.objects.using(alias).all().delete()


@pytest.fixture
def pg(alias):
    made = Paygent.init(ledger="django://", auto_instrument=False)
    yield made
    made.shutdown()


def linked(user_id):
    return services.find_user(services.project(), user_id).auth_user_id


def test_the_first_call_links_the_user(pg, alias):
    """The row of str(user.pk) is linked to that user when it is made, and unlinked when he is deleted."""
    user = User.objects.using(alias).create(username="ada")
    call(pg, str(user.pk))
    pg.flush()
    assert linked(str(user.pk)) == str(user.pk)
    assert services.find_user(services.project(), str(user.pk)).auth_user == user
    key = str(user.pk)
    user.delete()
    assert linked(key) is None


@pytest.mark.parametrize("name", ["{}1", "0{}", " {}", "ada", "9" * 40, "org/42?x=#é 💥", "-{}", "{}.0"])
def test_other_ids_are_nobodys(pg, alias, name):
    """An id that is not written as a user's key is, or is no user's, is linked to nobody."""
    user = User.objects.using(alias).create(username="ada")
    name = name.format(user.pk)
    call(pg, name)
    pg.flush()
    assert linked(name) is None


def test_ids_of_the_projects_own_making_are_nobodys(pg, alias):
    """Where the project says who pays, an id may be a team's that looks like a user's key."""
    key = str(User.objects.using(alias).create(username="ada").pk)
    with override_settings(PAYGENT={"DATABASE": alias, "GET_USER_ID": lambda request: "7"}):
        call(pg, key)
        pg.flush()
    assert linked(key) is None


def test_only_the_first_call_looks(pg, alias):
    """Later calls of a user ask nothing more: what was unlinked by hand stays so."""
    key = str(User.objects.using(alias).create(username="ada").pk)
    call(pg, key)
    pg.flush()
    user = services.find_user(services.project(), key)
    type(user).objects.using(alias).update(auth_user_id=None)
    call(pg, key)
    pg.flush()
    assert linked(key) is None


def test_a_fault_of_the_link_costs_no_call(pg, alias, monkeypatch, caplog):
    """Where the link cannot be made the call is metered all the same, and the log says why."""
    monkeypatch.setattr(_links, "link", lambda *_: 1 // 0)
    with caplog.at_level(logging.ERROR, "paygent"):
        call(pg, "7")
        pg.flush()
    assert "could not be told" in caplog.text
    assert services.usage_of(services.find_user(services.project(), "7")).tokens == 10
    assert connections[alias].is_usable()
