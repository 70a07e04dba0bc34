import uuid

import pytest
from django.db import connections

from paygent.core.events import Event
from paygent.ledger import LeaseRequest
from paygent_django.ledger import DjangoLedger
from paygent_django.ledger._pipeline import PipelinedSql

NOW_US = 1_768_000_000_000_000
PLAN = '{"max_spend_per_period": 100}'


def event(user_id):
    """One call for a thousandth of a dollar."""
    return Event(
        str(uuid.uuid4()), user_id, NOW_US, "p1767225600000000", "s0:api", None, "openai", "chat", "gpt-4o",
        "gpt-4o", None, 41, 28, 0, 0, 0, 1_000_000, 0, (), None, "auto", 0, 0, None, None,
    )  # fmt: skip


def asked(seq, *, events=()):
    """A lease operation of one process for Ada."""
    need = {"total_spend": 1_000_000}
    return LeaseRequest("ada", "process", seq, begin_session=True, need=need, events=list(events))


@pytest.fixture
def trips(monkeypatch):
    """Every trip to PostgreSQL from now on, as the number of its statements."""
    made = []
    send = PipelinedSql._send

    def counted(sql):
        made.append(len(sql._waiting))
        send(sql)

    monkeypatch.setattr(PipelinedSql, "_send", counted)
    return made


@pytest.fixture
def statements(alias):
    """Every statement on the calling thread's connection from now on."""
    made = []

    def counted(execute, sql, values, many, context):
        made.append(sql)
        return execute(sql, values, many, context)

    with connections[alias].execute_wrapper(counted):
        yield made


@pytest.fixture
def ledger(alias):
    """A ledger on the calling thread's connection, with a plan and one user who has leased before."""
    ledger = DjangoLedger(alias, connection="shared")
    ledger.put_plan("default", PLAN)
    ledger.lease([asked(1, events=[event("ada")])])
    ledger.lease([asked(2)])
    return ledger


def test_a_lease_of_a_known_user_takes_two_trips(postgres_alias, trips):
    """One lease operation with an event reads in one trip to PostgreSQL and writes in a second one."""
    ledger = DjangoLedger(postgres_alias)
    ledger.put_plan("default", PLAN)
    ledger.lease([asked(1)])
    trips.clear()
    ledger.lease([asked(2, events=[event("ada")])])
    ledger.close()
    assert len(trips) == 2
    assert sum(trips) <= 16


def test_a_batch_of_known_users_takes_two_trips(postgres_alias, trips):
    """A hundred events of fifty users reach PostgreSQL in two trips, however many rows they change."""
    ledger = DjangoLedger(postgres_alias)
    batch = [event(f"user-{number % 50}") for number in range(100)]
    ledger.settle([event(f"user-{number}") for number in range(50)])
    trips.clear()
    assert ledger.settle(batch) == 100
    assert len(trips) == 2
    trips.clear()
    assert ledger.settle(batch) == 0
    ledger.close()
    assert len(trips) == 2


def test_a_lease_takes_few_statements(ledger, statements):
    """One lease operation with an event takes at most 18 statements on every database."""
    ledger.lease([asked(3, events=[event("ada")])])
    assert len(statements) <= 18


def test_an_event_that_comes_twice_with_leases_counts_once(ledger):
    """An event that two lease operations carry is in the sums once, with all that came before."""
    last = event("ada")
    for seq in (3, 4):
        ledger.lease([asked(seq, events=[last])])
    assert ledger.totals("ada")["total_spend", "p1767225600000000"] == 2_000_000


def test_a_failed_statement_undoes_the_whole_trip(postgres_alias):
    """Where one statement of a trip fails nothing of it is kept, and the ledger goes on."""
    ledger = DjangoLedger(postgres_alias)
    ledger.put_account("ada", {"plan": None})
    with pytest.raises(Exception, match="paygent_event_amounts"):
        ledger.settle([event("ada"), event("ada")._replace(input_tokens=-1)])
    assert ledger.events() == []
    assert ledger.settle([event("ada")]) == 1
    ledger.close()
