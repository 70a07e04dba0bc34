"""The journal's file itself: there before the first grant, locked, and never longer than it must be."""

import errno
import os

import pytest
from engine_values import event

from paygent import journal as journal_module
from paygent.journal import Journal
from paygent.recovery import dead_journals


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def journal(folder):
    made = Journal(folder, "aa")
    yield made
    made.close(remove=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_claim_names_the_lease_before_the_first_event(journal, folder):
    """A process that dies in its first call leaves a file that names its lease, and no event."""
    journal.claim()
    journal.claim()
    assert names(folder) == ["aa.journal"]
    journal.close(remove=False)
    (left,) = dead_journals(folder, "me")
    assert (left.lease_id, list(left.reader.events())) == ("aa", [])


def test_a_claimed_file_is_the_one_that_events_go_to(journal, folder):
    """The first event after a claim begins no other file."""
    journal.claim()
    journal.append(event())
    assert names(folder) == ["aa.journal"]


def test_a_claim_that_fails_is_told_and_costs_nothing(tmp_path, caplog):
    """Where no file can be made the log says so, and events wait in memory until one can."""
    blocker = tmp_path / "journal"
    blocker.write_text("")
    journal = Journal(blocker, "aa")
    journal.claim()
    assert "cannot be written" in caplog.text
    assert journal.last_error is not None
    blocker.unlink()
    journal.append(event())
    assert names(blocker) == ["aa.journal"]
    journal.close(remove=True)


def test_a_file_that_starts_anew_is_short_again(journal, folder, monkeypatch):
    """How long files grew while something old was open says nothing of those after it."""
    monkeypatch.setattr(journal_module, "_SEGMENT_BYTES", 2000)
    journal.claim()
    journal._limit = 20_000
    rows = [event() for _ in range(30)]
    for row in rows:
        journal.append(row)
    journal.settled(rows)
    assert names(folder) == ["aa.journal"]
    assert (folder / "aa.journal").stat().st_size < 100
    for row in rows:
        journal.append(row)
    assert len(names(folder)) > 1
    assert max(path.stat().st_size for path in folder.iterdir()) < 8000


def test_a_closed_journal_keeps_what_is_not_settled(journal, folder):
    """Of two files, the one with nothing unsettled goes at the end, the other one stays for recovery."""
    first, second = event(), event()
    journal.append(first)
    journal._limit = 1
    journal.append(second)
    assert names(folder) == ["aa-1.journal", "aa.journal"]
    journal.settled([second])
    journal.close(remove=True)
    assert names(folder) == ["aa.journal"]


def test_a_resting_journal_keeps_what_is_not_settled(journal, folder):
    """At rest a file with something unsettled stays, and the next event goes on in it."""
    row = event()
    journal.append(row)
    journal.rest()
    assert names(folder) == ["aa.journal"]
    journal.settled([row])
    journal.rest()
    assert names(folder) == []
    journal.append(event())
    assert names(folder) == ["aa-1.journal"]


def test_a_call_that_outlives_its_engine_leaves_its_event_for_recovery(journal, folder):
    """An event that is appended after the end is in a file that nobody holds any more."""
    journal.close(remove=True)
    row = event()
    journal.append(row)
    (left,) = dead_journals(folder, "me")
    assert list(left.reader.events()) == [row]


@pytest.mark.parametrize("room", [0, 1, 20])
def test_a_file_without_room_for_its_header_is_none(journal, folder, monkeypatch, room):
    """Where the first line does not fit nothing is left behind, and the event waits until one does."""
    put = os.write

    def cramped(fd, data):
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(fd, data[:room])

    monkeypatch.setattr(os, "write", cramped)
    row = event()
    journal.append(row)
    assert names(folder) == []
    assert not journal.writable
    monkeypatch.setattr(os, "write", put)
    journal.append(event())
    assert journal.writable
    journal.close(remove=False)
    (left,) = dead_journals(folder, "me")
    assert row in left.reader.events()


def test_half_a_line_in_a_file_that_started_anew_costs_no_other(journal, folder, monkeypatch):
    """When the disk is full after a restart, only the line that did not fit is taken off again."""
    old, kept = event(), event()
    journal.append(old)
    monkeypatch.setattr(journal_module, "_SEGMENT_BYTES", 10)
    journal.settled([old])
    journal._limit = 1 << 20
    journal.append(kept)
    monkeypatch.setattr(journal, "_put", lambda fd, line, _length: os.write(fd, line[:50]))
    journal.append(event())
    journal.close(remove=False)
    (left,) = dead_journals(folder, "me")
    assert list(left.reader.events()) == [kept]
    assert left.reader.damaged == 0


def test_a_file_is_its_leases_whatever_its_name(folder):
    """The header says whose a file is; a name with a dash in it is not cut there."""
    journal = Journal(folder, "host-7")
    journal.claim()
    journal.close(remove=False)
    (left,) = dead_journals(folder, "me")
    assert left.lease_id == "host-7"
