import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engine_values import call, plan

from paygent._connection import journal_folder

CHILD = """
import os, sys
from paygent import Paygent
pg = Paygent.init(db_path=sys.argv[1], auto_instrument=False, flush_interval=1000)
pg.record_event("ada", cost=0.25)
print("returned", flush=True)
os.kill(os.getpid(), 9)
"""


def files(folder):
    return sorted(path.suffix for path in folder.rglob("*") if path.is_file())


def test_journals_go_where_they_are_asked_to_go(init, tmp_path):
    """With ``journal_dir`` the journal is there, in a folder of the ledger's own, and not beside the file."""
    pg = init(journal_dir=tmp_path / "volume", flush_interval=1000)
    pg.configure_plan("default", plan(10))
    call(pg)
    assert files(tmp_path / "volume") == [".journal"]
    assert not list(tmp_path.glob("*journal*/"))


def test_the_environment_names_the_folder_too(init, tmp_path, monkeypatch):
    """``PAYGENT_JOURNAL_DIR`` works where the argument is not given."""
    monkeypatch.setenv("PAYGENT_JOURNAL_DIR", str(tmp_path / "volume"))
    pg = init(flush_interval=1000)
    call(pg)
    assert files(tmp_path / "volume") == [".journal"]


def test_a_journal_elsewhere_is_recovered(init, tmp_path, monkeypatch):
    """A process that was killed loses nothing where its journal is on a volume: the next one recovers it."""
    monkeypatch.setenv("PAYGENT_JOURNAL_DIR", str(tmp_path / "volume"))
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "p.db")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, "returned\n")
    assert files(tmp_path / "volume") == [".journal"]
    pg = init()
    pg.flush()
    assert pg.get_usage("ada").period_cost == pytest.approx(0.25)


def test_each_ledger_has_journals_of_its_own(tmp_path):
    """Two ledgers that share a volume never find each other's journals."""
    assert journal_folder(tmp_path, "sqlite:////a.db") != journal_folder(tmp_path, "sqlite:////b.db")


def test_a_new_password_finds_the_old_journals(tmp_path):
    """Who signs in to a server is not part of the folder's name."""
    before = journal_folder(tmp_path, "postgresql://app:old@db.example/app")
    assert journal_folder(tmp_path, "postgresql://app:new@db.example/app?sslmode=require") == before


def test_a_ledger_in_memory_keeps_no_journal(init, tmp_path):
    """What ends with its process anyway is not journalled, wherever that may be asked for."""
    pg = init(ledger="memory://", journal_dir=tmp_path / "volume")
    call(pg)
    assert not (tmp_path / "volume").exists()


def test_a_folder_that_cannot_be_written_costs_no_call(init, tmp_path):
    """Where the journal cannot be kept, calls go on and the state says why."""
    (tmp_path / "volume").write_text("a file, no folder")
    pg = init(journal_dir=tmp_path / "volume", flush_interval=1000)
    assert call(pg)
    assert os.strerror(errno.ENOTDIR) in pg.queue_stats["last_error"]
