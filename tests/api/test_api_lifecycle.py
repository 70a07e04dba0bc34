"""``init``, the properties, ``flush`` and ``shutdown``."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from api_world import answer, ask, events, openai_client

from paygent import Paygent, PaygentBackendUnreachable, PlanConfig, paygent_context


def test_without_arguments_the_ledger_is_a_file_in_the_home_folder():
    """``init()`` is local mode on ``~/.paygent/local.db``, patched and ready."""
    pg = Paygent.init()
    pg.record_event("ann", cost=1.0)
    pg.flush()
    assert Path("~/.paygent/local.db").expanduser().exists()
    assert (pg.is_local_mode, pg.is_initialized, pg.is_instrumented) == (True, True, True)
    assert (pg.api_key, pg.base_url) == (None, "https://api.paygent.to")
    assert (pg.is_connected, pg.backend_reachable) == (False, False)


def test_db_path_names_the_file(tmp_path):
    """``db_path`` puts the ledger elsewhere, folders included."""
    pg = Paygent.init(db_path=tmp_path / "deep" / "p.db")
    pg.record_event("ann", cost=1.0)
    pg.shutdown()
    assert (tmp_path / "deep" / "p.db").exists()


def test_a_user_in_the_file_is_known_to_the_next_process(tmp_path):
    """What was used is read back from the file."""
    Paygent.init(db_path=tmp_path / "p.db").record_event("ann", cost=1.5)
    assert Paygent.init(db_path=tmp_path / "p.db").get_usage("ann").period_cost == 1.5


def test_the_environment_names_the_backend(monkeypatch):
    """``PAYGENT_API_KEY`` and ``PAYGENT_BASE_URL`` stand in for arguments that are left out."""
    monkeypatch.setenv("PAYGENT_API_KEY", "pg_live_1")
    monkeypatch.setenv("PAYGENT_BASE_URL", "http://127.0.0.1:9")
    with pytest.warns(PaygentBackendUnreachable):
        pg = Paygent.init()
    assert (pg.api_key, pg.base_url, pg.is_local_mode) == ("pg_live_1", "http://127.0.0.1:9", False)
    assert (pg.is_connected, pg.backend_reachable) == (False, False)


def test_a_ledger_named_in_code_is_meant(monkeypatch):
    """A key in the environment does not redirect a Paygent whose code names its ledger."""
    monkeypatch.setenv("PAYGENT_API_KEY", "pg_live_1")
    assert Paygent.init(ledger="memory://").is_local_mode


def test_a_key_and_a_ledger_contradict_each_other(pg):
    """Two places for one ledger are refused by name, and the Paygent before goes on."""
    with pytest.raises(ValueError, match=r"api_key .* or ledger"):
        Paygent.init(api_key="k", ledger="memory://")
    assert pg.is_initialized


def test_an_argument_wins_over_the_environment(monkeypatch):
    """What the code says outranks what the environment says."""
    monkeypatch.setenv("PAYGENT_BASE_URL", "http://127.0.0.1:9")
    assert Paygent.init(ledger="memory://", base_url="http://127.0.0.1:8").base_url == "http://127.0.0.1:8"


def test_strict_backend_raises_and_leaves_the_earlier_instance(pg):
    """An ``init`` that fails changes nothing: the Paygent before it goes on."""
    with pytest.raises(PaygentBackendUnreachable):
        Paygent.init(api_key="k", base_url="http://127.0.0.1:9", strict_backend=True)
    assert Paygent.get_instance() is pg
    assert pg.is_initialized


def test_a_second_init_replaces_the_first(pg):
    """The first instance is shut down and says so; the second is the singleton."""
    second = Paygent.init(ledger="memory://")
    assert Paygent.get_instance() is second
    assert (pg.is_initialized, second.is_initialized) == (False, True)


def test_calls_after_a_second_init_are_counted_by_the_second(pg):
    """The patched SDKs ask the instance of now, not the one that patched them."""
    second = Paygent.init(ledger="memory://")
    with paygent_context("ann"):
        ask(openai_client())
    assert second.get_usage("ann").period_tokens_total == 2000
    assert pg.queue_stats["flushed"] == 0


def test_there_is_no_instance_before_init_and_after_shutdown():
    """``get_instance`` is ``None`` outside of the life of an instance."""
    assert Paygent.get_instance() is None
    pg = Paygent.init(ledger="memory://")
    assert Paygent.get_instance() is pg
    pg.shutdown()
    assert Paygent.get_instance() is None


def test_shutting_down_twice_is_harmless(pg):
    """The second ``shutdown`` does nothing."""
    pg.shutdown()
    pg.shutdown()
    assert not pg.is_initialized


def test_an_instance_that_asked_nothing_ends_without_a_thread(tmp_path, log, monkeypatch):
    """Python 3.12 starts none at the end of the interpreter: a script that only inits is quiet there."""

    def start(_thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    pg = Paygent.init(db_path=tmp_path / "p.db", auto_instrument=False)
    monkeypatch.setattr(threading.Thread, "start", start)
    pg.shutdown()
    assert log.text == ""


def test_shutting_down_an_older_handle_leaves_the_newer_instance(pg):
    """Only the instance itself ends: the patches of its successor stay."""
    second = Paygent.init(ledger="memory://")
    pg.shutdown()
    assert Paygent.get_instance() is second
    assert second.is_instrumented


def test_auto_instrument_can_be_left_out():
    """Without it nothing is patched until ``instrument``; ``uninstrument`` takes the patches off."""
    pg = Paygent.init(ledger="memory://", auto_instrument=False)
    assert not pg.is_instrumented
    keys = pg.instrument()
    assert "openai.SyncAPIClient.request" in keys
    assert pg.is_instrumented
    assert pg.uninstrument() == len(keys)
    assert not pg.is_instrumented


def test_flush_counts_the_events_it_delivers(pg):
    """``flush`` settles what is pending and returns how much that was."""
    for _ in range(3):
        pg.wrap(answer, user_id="ann", model="gpt-4o")
    pending = pg.pending_events
    delivered = pg.queue_stats["flushed"]
    assert pg.flush() == pending
    assert pg.pending_events == 0
    assert pg.queue_stats["flushed"] == delivered + pending == 3


def test_queue_stats_has_the_documented_keys(pg):
    """Nothing metered yet: nothing pending, dropped or wrong."""
    assert pg.queue_stats == {
        "pending": 0,
        "unsynced": 0,
        "flushed": 0,
        "dropped": 0,
        "degraded": False,
        "last_error": None,
    }


def test_shutdown_settles_what_is_open(tmp_path):
    """What was metered before ``shutdown`` is in the ledger after it."""
    pg = Paygent.init(db_path=tmp_path / "p.db")
    pg.wrap(answer, user_id="ann", model="gpt-4o")
    pg.shutdown()
    assert [event.user_id for event in events(Paygent.init(db_path=tmp_path / "p.db"))] == ["ann"]


def test_calls_after_shutdown_pass_with_one_warning(pg, log):
    """A handle kept beyond ``shutdown`` lets calls through unmetered, and says so once."""
    pg.shutdown()
    assert [pg.wrap(lambda: "result", user_id="ann") for _ in range(3)] == ["result"] * 3
    assert [r.message for r in log.records if "after shutdown" in r.message] == [
        "an LLM call was made after shutdown(): it passes unmetered"
    ]


def test_questions_after_shutdown_are_answered_at_once(pg):
    """No method of a handle kept beyond ``shutdown`` raises or waits for a ledger that is closed."""
    pg.shutdown()
    assert pg.check_guard("ann").status == "ok"
    assert pg.get_usage("ann").period_cost == 0.0
    assert pg.record_event("ann", cost=1.0) is None
    assert pg.flush() == 0
    pg.configure_plan("p", PlanConfig())
    assert pg.assign_plan("ann", "p").plan == "p"
    assert not pg.queue_stats["degraded"]


@pytest.mark.parametrize(
    "argument",
    [
        {"flush_interval": 0},
        {"flush_interval": float("nan")},
        {"max_batch_size": -1},
        {"max_queue_size": 0},
        {"refresh_interval": -5},
        {"busy_timeout": -1},
        {"unattributed": "maybe"},
        {"no_plan": "deny"},
        {"unpriced": True},
        {"on_cancel": "never"},
        {"ledger": "mysql://x"},
    ],
    ids=lambda argument: next(iter(argument)),
)
def test_an_argument_that_cannot_be_right_is_named(argument):
    """``init`` refuses it with its name in the message, and starts nothing."""
    with pytest.raises(ValueError, match=next(iter(argument))):
        Paygent.init(**{"ledger": "memory://", **argument})
    assert Paygent.get_instance() is None


def test_init_reads_no_home_for_a_ledger_in_memory():
    """``memory://`` leaves no file behind."""
    Paygent.init(ledger="memory://").record_event("ann", cost=1.0)
    assert list(Path.home().iterdir()) == []
