"""The Django ledger under a real Paygent: many processes, kill -9, forks, lost connections."""

import contextlib
import time

import app_calls
import app_databases
import pytest
from app_calls import CENT, call, plan, until_refused
from django.db import connections, transaction
from django.test import Client, override_settings

from paygent import Paygent, PaygentLimitExceeded
from paygent.ledger import LedgerError
from paygent.meter import patience
from paygent_django import services
from paygent_django.ledger import DjangoLedger
from paygent_django.models import EndUser, Project, UsageEvent


@pytest.fixture(autouse=True)
def _on(alias):
    with override_settings(PAYGENT={"DATABASE": alias}):
        yield


@pytest.fixture
def pg(alias):
    made = Paygent.init(ledger="django://", auto_instrument=False)
    yield made
    made.shutdown()


def save(name, config):
    services.save_plan(services.project(), name, config)


def events(alias):
    return UsageEvent.objects.using(alias)


def test_a_cap_for_a_hundred_calls_admits_a_hundred(start, alias):
    """Four processes that call at the same time are admitted a hundred calls, never one more."""
    save("default", plan(100))
    crowd = [start(app_calls.spend_all) for _ in range(4)]
    assert [pipe.recv() for _, pipe in crowd] == ["ready"] * 4
    for _, pipe in crowd:
        pipe.send("go")
    made = sum(pipe.recv() for _, pipe in crowd)
    assert 99 <= made <= 100
    for process, _ in crowd:
        process.join(30)
    assert events(alias).count() == made
    assert list(services.reconcile(services.project())) == []


def test_the_first_call_makes_project_and_user(pg, alias):
    """In an empty database the first call makes the project ``default`` and the user's row."""
    call(pg, "42")
    pg.flush()
    user = EndUser.objects.using(alias).select_related("project").get()
    assert (user.external_user_id, user.project.name) == ("42", "default")


def test_a_saved_plan_reaches_a_process_within_a_second(start):
    """A plan saved by one process blocks the calls of another one within a second, and unblocks them."""
    save("default", plan(100_000))
    _, pipe = start(app_calls.watch)
    for config in (plan(0), plan(100_000)):
        assert pipe.recv() == "ready"
        save("default", config)
        pipe.send("saved")
        assert pipe.recv() < 2.0  # a second, and a busy machine


def test_what_was_answered_survives_kill_9(start, pg, alias, monkeypatch):
    """After kill -9 in mid-traffic every answered call is in the database once, and no lease is left."""
    monkeypatch.setattr(patience, "PATIENCE_S", 60.0)  # a busy machine is no ledger that is away
    save("default", plan(100_000))
    save("one", plan(1))
    user = services.ensure_user(services.project(), "holder")
    services.change_plan(user, services.find_plan(services.project(), "one"))
    process, pipe = start(app_calls.spend_and_hold)
    answered = {pipe.recv() for _ in range(120)}
    process.kill()
    with contextlib.suppress(EOFError):
        while True:
            answered.add(pipe.recv())
    process.join(30)
    pg.shutdown()
    again = Paygent.init(ledger="django://", auto_instrument=False)
    call(again, "holder")
    with pytest.raises(PaygentLimitExceeded):
        call(again, "holder")
    again.shutdown()
    found = set(events(alias).filter(user__external_user_id="ada").values_list("event_id", flat=True))
    assert answered <= found
    assert len(found) <= len(answered) + 1  # answered, and not yet told of
    assert list(services.reconcile(services.project())) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_a_connection_of_its_own(start, alias):
    """A child that is forked after its parent used the ledger meters its own calls, and both are counted."""
    save("default", plan(100_000))
    _, pipe = start(app_calls.fork)
    assert pipe.recv() == 0
    assert events(alias).count() == 19


# -- transactions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/spend", "/write"])
@override_settings(ROOT_URLCONF="app_views", MIDDLEWARE=[])
def test_a_view_that_fails_leaves_its_spend(pg, alias, monkeypatch, address):
    """What a view spent under ATOMIC_REQUESTS before it raised is recorded; what it wrote is not."""
    monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", True)
    save("default", plan(100))
    answer = Client(raise_request_exception=False).get(address)
    pg.flush()
    assert answer.status_code == 500
    assert events(alias).count() == 1
    assert not Project.objects.using(alias).filter(name="written by the view").exists()


def test_a_view_that_has_written_is_not_held_up(pg, alias, ledger_waits):
    """A view that has written and then calls waits once at most, and what it spent is counted."""
    save("default", plan(100))
    call(pg)
    pg.flush()
    with transaction.atomic(using=alias):
        Project.objects.using(alias).create(name="written by the view")
        ledger_waits.forget()
        for _ in range(5):
            call(pg)
        call(pg, "somebody else")
        waited = len(ledger_waits)
    if connections[alias].vendor == "sqlite":  # whose one lock the view holds
        assert waited <= 1
    deadline = time.monotonic() + 10
    while events(alias).count() < 7 and time.monotonic() < deadline:
        pg.flush()
    assert events(alias).count() == 7
    assert list(services.reconcile(services.project())) == []


def test_a_shared_ledger_sees_what_the_test_has_not_committed(alias):
    """With a shared connection the ledger thread works inside the caller's transaction, and goes with it."""
    with override_settings(PAYGENT={"DATABASE": alias, "CONNECTION": "shared"}):
        atomic = transaction.atomic(using=alias)
        atomic.__enter__()
        pg = Paygent.init(ledger="django://", auto_instrument=False)
        try:
            save("default", plan(3))
            assert until_refused(pg) == 3
            pg.flush()
            assert events(alias).count() == 3
        finally:
            pg.shutdown()
            transaction.set_rollback(True, using=alias)
            atomic.__exit__(None, None, None)
    assert events(alias).count() == 0


# -- faults -----------------------------------------------------------------------------------------------


def test_a_lost_connection_is_opened_again(alias, request):
    """When the server drops the connection, the next operation goes through on a new one."""
    ledger = DjangoLedger(alias)
    ledger.put_account("ada", {"sdk_enabled": False})
    if connections[alias].vendor == "postgresql":
        name = connections[alias].settings_dict["NAME"]
        server = request.getfixturevalue("postgres_server")
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )
    else:
        ledger._source._disconnect()
    ledger.put_account("ada", {"plan": "pro"})
    assert services.period_of(services.find_user(services.project(), "ada"))
    ledger.close()


def test_a_database_without_tables_says_so(tmp_path):
    """A ledger in a database that nobody migrated says what to do."""
    alias = app_databases.add(**app_databases.sqlite(tmp_path / "empty.sqlite3"))
    ledger = DjangoLedger(alias)
    with pytest.raises(LedgerError, match=r"manage\.py migrate"):
        ledger.totals("ada")
    ledger.close()
    app_databases.remove(alias)


def test_a_ledger_names_a_database_that_is_there():
    """A ledger on a database that is not in the settings, or with an unknown connection, is refused."""
    with pytest.raises(ValueError, match="nowhere"):
        Paygent.init(ledger="django://nowhere")
    with override_settings(PAYGENT={"CONNECTION": "mine"}), pytest.raises(ValueError, match="CONNECTION"):
        Paygent.init(ledger="django://")
    assert Paygent.get_instance() is None


def test_the_settings_name_the_apps_own_project(alias):
    """An embedded app is the project that its settings name."""
    with override_settings(PAYGENT={"DATABASE": alias, "PROJECT": "acme"}):
        pg = Paygent.init(ledger="django://", auto_instrument=False)
        call(pg)
        pg.shutdown()
    assert events(alias).get().user.project.name == "acme"


def test_projects_share_nothing(alias):
    """Two projects in one database have the same user, plan and event ids without meeting."""
    pgs = []
    for project, calls in (("a", 2), ("b", 3)):
        services.save_plan(services.project(project), "default", plan(calls))
        pg = Paygent.init(ledger=f"django://{alias}/{project}", auto_instrument=False)
        assert until_refused(pg) == calls
        pg.shutdown()
        pgs.append(pg)
    assert events(alias).count() == 5
    first = events(alias).select_related("user").filter(user__project__name="a").first()
    row = services.to_core(first)
    other = services.ledger_of(services.project("b"))
    assert other.post([row]).accepted == 1
    assert services.ledger_of(services.project("a")).post([row]) == (0, 1, [])
    assert services.usage_of(first.user).cost_nusd == 2 * CENT
