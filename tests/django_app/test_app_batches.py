"""What others post to the ledger: several batches in one transaction, and rows that PostgreSQL copies in."""

import logging
import uuid

import app_databases
import psycopg
import pytest
from django.db import connections

from paygent.core.events import Event
from paygent.ledger import LeaseRequest
from paygent_django.ledger import DjangoLedger
from paygent_django.ledger._planner import BY_KEYS, Plans
from paygent_django.models import Total

NOW_US = 1_768_000_000_000_000
PERIOD = "p1767225600000000"
ODD = "tab\t line\nfeed \\N back\\slash \"quotes\" 'both' {a,b} \r ␀ \0 💥"


def event(user_id="ada", **changes):
    """One call for a thousandth of a dollar."""
    return Event(
        str(uuid.uuid4()), user_id, NOW_US, PERIOD, "s0:api", None, "openai", "chat", "gpt-4o", "gpt-4o",
        None, 41, 28, 0, 0, 0, 1_000_000, 0, (), None, "auto", 0, 0, None, None,
    )._replace(**changes)  # fmt: skip


@pytest.fixture
def ledger(alias):
    """A ledger as the API makes it."""
    return DjangoLedger(alias, connection="shared")


@pytest.fixture
def prepared_alias(postgres_alias):
    """The same PostgreSQL database over a connection that may keep prepared statements, as the server's."""
    settings = connections[postgres_alias].settings_dict
    options = {"server_side_binding": True, "prepare_threshold": 1_000_000}
    alias = app_databases.add(**{**settings, "OPTIONS": options})
    yield alias
    app_databases.remove(alias)


def test_each_batch_is_told_its_own(ledger):
    """Of batches in one transaction, the first to bring an event has it accepted and the next a duplicate."""
    shared, other = event(), event()
    told = ledger.post_batches([[shared], [shared, other], [other, event()]])
    assert [(posted.accepted, posted.duplicates) for posted in told] == [(1, 0), (1, 1), (1, 1)]
    assert len(ledger.events()) == 3


def test_a_conflict_between_batches_is_told_to_the_second(ledger):
    """An id with other content in a later batch is a conflict of that batch alone, and is not stored."""
    first = event()
    told = ledger.post_batches([[first], [first._replace(input_tokens=7), event()]])
    assert told[0] == (1, 0, [])
    assert told[1] == (1, 0, [(first.id, "input_tokens")])
    assert ledger.totals("ada")["model_limit:gpt-4o", PERIOD] == 2 * 69


def test_batches_that_are_sent_again_count_once(ledger):
    """The same batches once more are all duplicates, and change no sum."""
    batches = [[event(f"user-{number}") for number in range(40)] for _ in range(3)]
    ledger.post_batches(batches)
    before = sorted(Total.objects.using(ledger.alias).values_list("user_id", "scope", "amount"))
    told = ledger.post_batches(batches)
    assert [(posted.accepted, posted.duplicates) for posted in told] == [(0, 40)] * 3
    assert sorted(Total.objects.using(ledger.alias).values_list("user_id", "scope", "amount")) == before


@pytest.mark.parametrize("count", [1, 100])
def test_odd_texts_come_back_as_they_were(ledger, count):
    """Texts that a database reads as signs of its own are the same afterwards, in few rows and in many."""
    events = [
        event(f"{ODD}{number}", session_id=ODD, description=ODD, metadata={"said": ODD}, tool_calls=(ODD,))
        for number in range(count)
    ]
    assert ledger.settle(events) == count
    assert {found.id: found for found in ledger.events()} == {posted.id: posted for posted in events}


def test_prepared_statements_survive_a_failure(prepared_alias):
    """After a transaction that failed, the next one prepares its statements anew and is stored."""
    ledger = DjangoLedger(prepared_alias, connection="shared")
    ledger.settle([event()])
    for others in (1, 40, 1):  # few rows are inserted, many are copied in
        with pytest.raises(Exception, match="paygent_event_amounts"):
            ledger.settle([*(event() for _ in range(others)), event(input_tokens=-1)])
        assert ledger.settle([event() for _ in range(40)]) == 40
    assert len(ledger.events()) == 121


def test_a_table_that_has_grown_is_analysed(prepared_alias):
    """A connection that prepares statements has PostgreSQL look at a table that has grown."""
    with connections[prepared_alias].cursor() as cursor:
        cursor.execute("TRUNCATE paygent_enduser CASCADE")
    ledger = DjangoLedger(prepared_alias, connection="shared")
    for number in range(8):
        ledger.settle([event(f"user-{number}-{index}") for index in range(100)])
    with connections[prepared_alias].cursor() as cursor:
        cursor.execute("SELECT reltuples FROM pg_class WHERE oid = 'paygent_enduser'::regclass")
        assert cursor.fetchone()[0] > 100


def test_plans_are_made_anew_while_tables_grow():
    """Statements are planned anew after one, two, four and eight transactions, not with each."""

    class Connection:
        def execute(self, *_, **__):
            return self

        def fetchall(self):
            return []

    plans, connection = Plans(), Connection()
    assert [plans.used(connection) for _ in range(9)] == [
        " -- 1", " -- 2", " -- 2", " -- 3", " -- 3", " -- 3", " -- 3", " -- 4", " -- 4",
    ]  # fmt: skip


def test_a_table_that_cannot_be_analysed_stops_nobody(caplog):
    """A fault while tables are analysed is logged, and the transaction that was about to begin goes on."""

    class Connection:
        def execute(self, *_, **__):
            raise psycopg.OperationalError("canceling statement due to statement timeout")

    assert Plans().used(Connection()) == " -- 1"
    assert "tables could not be analysed" in caplog.text


def test_what_the_ledger_sets_ends_with_its_transaction(postgres_alias):
    """A project's own connection plans its own statements as before."""
    ledger = DjangoLedger(postgres_alias, connection="shared")
    ledger.settle([event()])
    with connections[postgres_alias].cursor() as cursor:
        for name in BY_KEYS:
            cursor.execute(f"SELECT setting = reset_val FROM pg_settings WHERE name = '{name}'")
            assert cursor.fetchone() == (True,)


def test_a_lease_on_prepared_statements_keeps_its_answers(prepared_alias, caplog):
    """Leases of many operations in a row answer as one would expect, whichever plans they use."""
    caplog.set_level(logging.ERROR)
    ledger = DjangoLedger(prepared_alias, connection="shared")
    ledger.put_plan("default", '{"max_spend_per_period": 1}')
    need, granted, spent = {"total_spend": 100_000_000}, [], []
    for seq in range(1, 21):
        request = LeaseRequest("ada", "process", seq, begin_session=True, need=need, events=spent)
        (reply,) = ledger.lease([request])
        granted.append(reply.denied is None)
        spent = [event(cost_tokens_nusd=100_000_000, period=reply.period.key)]
    assert granted == [True] * 10 + [False] * 10
    assert caplog.records == []
