"""A user who is renamed (anonymised) by another transaction in the moment in which his row is made."""

import uuid

import pytest
from django.test import override_settings

from paygent.core.events import Event
from paygent.ledger import LedgerError
from paygent_django import services
from paygent_django.ledger import _accounts
from paygent_django.models import EndUser


@pytest.fixture(autouse=True)
def _on(alias):
    with override_settings(PAYGENT={"DATABASE": alias}):
        yield


def event(user_id):
    return Event(
        str(uuid.uuid4()), user_id, 1_767_225_600_000_000, "p1767225600000000", "s1767225600000000:chat",
        "chat", "openai", "chat", "m", "m", "m", 10, 0, 0, 0, 0, 1000, 0, (), None, "auto", 0, 0, "plan",
        None,
    )  # fmt: skip


@pytest.fixture
def renamed(monkeypatch):
    """Rename the row of a user so many times before it can be locked."""
    lock = _accounts.Accounts.lock

    def rename(times):
        left = [times]

        def overtaken(self, users):
            found = self.sql.rows("SELECT id FROM paygent_enduser WHERE external_user_id = 'ada'")
            if left[0] and found:
                left[0] -= 1
                gone = [f"gone-{uuid.uuid4()}", found[0][0]]
                self.sql.run("UPDATE paygent_enduser SET external_user_id = %s WHERE id = %s", gone)
            return lock(self, users)

        monkeypatch.setattr(_accounts.Accounts, "lock", overtaken)

    return rename


def test_a_user_renamed_as_he_is_made_is_made_again(alias, renamed):
    """The event is counted on a new row of that name, and nothing is lost."""
    ledger = services.ledger_of(services.project())
    renamed(1)
    ledger.settle([event("ada")])
    assert EndUser.objects.using(alias).filter(external_user_id="ada").count() == 1
    assert [row.user_id for row in ledger.events(limit=10)] == ["ada"]


def test_users_renamed_without_end_are_a_ledger_that_is_away(renamed):
    """What never succeeds is tried again later: no event is set aside for it."""
    ledger = services.ledger_of(services.project())
    renamed(1000)
    with pytest.raises(LedgerError):
        ledger.settle([event("ada")])
