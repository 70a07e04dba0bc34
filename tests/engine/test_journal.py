import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_values import event

from paygent import journal as journal_module
from paygent._forking import no_fork
from paygent.journal import Journal, Reader
from paygent.recovery import dead_journals


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journals"


@pytest.fixture
def journal(folder):
    journal = Journal(folder, "aa")
    yield journal
    journal.close(remove=False)


def recovered(folder, own="me"):
    """What recovery finds, by owner; the files stay."""
    return {left.lease_id: list(left.reader.events()) for left in dead_journals(folder, own)}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def in_files(folder):
    return [row for path in sorted(folder.glob("*.journal")) for row in Reader(path).events()]


@pytest.fixture
def full_disk(journal, monkeypatch):
    """A disk that takes as many bytes as are put into the list, and no more."""
    left = []
    real = os.write

    def put(fd, data, _length):
        if not left:
            return real(fd, data)
        room = min(left[0], len(data))
        left[0] -= room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:room])

    monkeypatch.setattr(journal, "_put", put)
    return left


def test_an_event_is_in_the_file_when_append_returns(journal, folder):
    """An appended event can be read from the file at once."""
    rows = [event(), event()]
    for row in rows:
        journal.append(row)
    assert in_files(folder) == rows


def test_without_an_event_there_is_no_file(folder):
    """A process that meters nothing leaves no trace."""
    Journal(folder, "aa").close(remove=True)
    assert not folder.exists()


def test_a_living_process_is_not_recovered(journal, folder):
    """While its owner lives nobody takes a journal, not even the owner."""
    journal.append(event())
    assert recovered(folder) == {}
    assert recovered(folder, own="aa") == {}


def test_a_dead_process_is_recovered(journal, folder):
    """What a process leaves behind is found with its lease and its events."""
    rows = [event() for _ in range(3)]
    for row in rows:
        journal.append(row)
    journal.close(remove=False)
    assert recovered(folder) == {"aa": rows}


def test_a_killed_process_is_recovered(folder, tmp_path):
    """The events of a process that was killed are all there, and its lock is free."""
    code = (
        "import os, sys, signal; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from paygent.journal import Journal; from engine_values import event\n"
        "journal = Journal(Path(sys.argv[1]), 'aa')\n"
        "[journal.append(event()) for _ in range(5)]\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), str(Path(__file__).parent)], check=False)
    assert {owner: len(rows) for owner, rows in recovered(folder).items()} == {"aa": 5}


def test_no_journal_is_recovered_twice_at_once(journal, folder):
    """While one process recovers a journal another one finds nothing, and nothing once it is removed."""
    journal.append(event())
    journal.close(remove=False)
    for left in dead_journals(folder, "me"):
        assert list(dead_journals(folder, "you")) == []
        left.remove()
    assert recovered(folder, own="you") == {}


def test_a_recovery_that_fails_leaves_the_file(journal, folder):
    """A journal that was not removed is there for the next one."""
    row = event()
    journal.append(row)
    journal.close(remove=False)
    journals = dead_journals(folder, "me")
    next(journals)
    with pytest.raises(RuntimeError):
        journals.throw(RuntimeError)
    assert recovered(folder) == {"aa": [row]}


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_no_event(journal, folder, cut):
    """A process that died within a write has not answered that call: the line is passed over."""
    rows = [event(), event()]
    for row in rows:
        journal.append(row)
    journal.close(remove=False)
    path = folder / "aa.journal"
    path.write_bytes(path.read_bytes()[:-cut])
    (left,) = dead_journals(folder, "me")
    assert list(left.reader.events()) == rows[:1]
    assert left.reader.damaged == 0


def test_a_damaged_line_loses_only_itself(journal, folder, caplog):
    """Lines beside a damaged one are recovered, and the file is kept under a name that the log tells."""
    rows = [event() for _ in range(3)]
    for row in rows:
        journal.append(row)
    journal.close(remove=False)
    path = folder / "aa.journal"
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"ada", b"eve")
    path.write_bytes(b"\n".join(lines))
    for left in dead_journals(folder, "me"):
        assert list(left.reader.events()) == [rows[0], rows[2]]
        left.remove()
    assert files(folder) == ["aa.damaged"]
    assert "aa.damaged" in caplog.text


def test_a_file_without_a_header_is_known_by_its_name(journal, folder):
    """A process that died while starting its file anew still has its lease closed."""
    journal.append(event())
    journal.close(remove=False)
    (folder / "aa.journal").write_bytes(b"")
    assert recovered(folder) == {"aa": []}


def test_a_journal_of_a_newer_version_is_left_alone(folder):
    """A format that this version does not know is neither read nor removed."""
    folder.mkdir()
    (folder / "bb.journal").write_bytes(
        journal_module._line('{"lease_id":"bb","format":2}') + b"what comes then\n"
    )
    assert recovered(folder) == {}
    assert files(folder) == ["bb.journal"]


def test_settled_events_are_trimmed(journal, folder, monkeypatch):
    """Under steady traffic, with something always open, the files stay small and hold what is open."""
    monkeypatch.setattr(journal_module, "_SEGMENT_BYTES", 4000)
    journal._limit = 4000
    open_rows = []
    for _ in range(300):
        open_rows.append(event())
        journal.append(open_rows[-1])
        if len(open_rows) > 5:
            journal.settled([open_rows.pop(0)])
        assert {row.id for row in open_rows} <= {row.id for row in in_files(folder)}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 16_000


def test_one_event_that_stays_open_keeps_its_file_alone(journal, folder, monkeypatch):
    """An event that is never settled stays in a file while all the others are trimmed."""
    monkeypatch.setattr(journal_module, "_SEGMENT_BYTES", 2000)
    journal._limit = 2000
    straggler = event()
    journal.append(straggler)
    for _ in range(300):
        row = event()
        journal.append(row)
        journal.settled([row])
    assert straggler.id in {row.id for row in in_files(folder)}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12_000


def test_an_idle_journal_starts_anew(journal, folder, monkeypatch):
    """Once everything is settled a grown file is emptied, and still names its owner."""
    rows = [event() for _ in range(10)]
    for row in rows:
        journal.append(row)
    monkeypatch.setattr(journal_module, "_SEGMENT_BYTES", 1000)
    journal.settled(rows)
    assert (folder / "aa.journal").read_bytes().rstrip(b"\0").count(b"\n") == 1
    last = event()
    journal.append(last)
    journal.close(remove=True)
    assert recovered(folder) == {"aa": [last]}


def test_settling_twice_trims_nothing_that_is_open(journal, folder):
    """An event that is reported settled again, or was never appended, makes no other one go."""
    first, second = event(), event()
    journal.append(first)
    journal.append(second)
    journal.settled([first, first, event()])
    journal.settled([first])
    journal.close(remove=True)
    assert recovered(folder) == {"aa": [first, second]}


def test_an_event_appended_twice_is_settled_once(journal, folder):
    """A line that was written twice for one event is no longer needed once the event is settled."""
    row = event()
    journal.append(row)
    journal.append(row)
    journal.settled([row])
    journal.close(remove=True)
    assert files(folder) == []


def test_a_settled_journal_is_removed_at_the_end(journal, folder):
    """A process that ends with nothing open leaves no file."""
    row = event()
    journal.append(row)
    journal.settled([row])
    journal.close(remove=True)
    assert files(folder) == []


def test_events_that_left_memory_are_settled_from_the_file(journal, folder):
    """What was shed is given to the ledger in batches, and then trimmed."""
    rows = [event() for _ in range(1200)]
    for row in rows:
        journal.append(row)
    assert journal.shed(rows[:1000]) == 0
    assert journal.shed_count == 1000
    posted = []
    journal.settle_shed(posted.append)
    assert journal.shed_count == 0
    assert max(map(len, posted)) == 500
    assert [row for batch in posted for row in batch] == rows
    journal.settled(rows[1000:])
    journal.close(remove=True)
    assert files(folder) == []


def test_shedding_survives_a_ledger_that_fails_again(journal):
    """Where posting what was shed fails, it stays to be posted again."""
    rows = [event() for _ in range(3)]
    for row in rows:
        journal.append(row)
    journal.shed(rows)
    with pytest.raises(RuntimeError):
        journal.settle_shed(lambda batch: (_ for _ in ()).throw(RuntimeError))
    assert journal.shed_count == 3


def test_a_full_disk_keeps_events_in_memory(journal, folder, full_disk, caplog):
    """An event that does not fit raises nothing, is said once, and is not taken for written."""
    first = event()
    journal.append(first)
    full_disk.append(100)
    second, third = event(), event()
    journal.append(second)
    journal.append(third)
    assert not journal.writable
    assert in_files(folder) == [first]
    assert journal.shed([first, second]) == 1
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) <= 2
    assert "No space" in (journal.last_error or "")


def test_a_forked_child_keeps_no_journal_of_its_parent_locked(journal, folder):
    """A child that lets go of the parent's files holds none of their locks when the parent is gone."""
    journal.append(event())
    done, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        journal.forget_after_fork()
        os.write(done[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(done[0], 1)
    journal.close(remove=False)
    try:
        assert list(recovered(folder)) == ["aa"]
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)


def test_half_a_line_swallows_no_other(journal, folder, full_disk):
    """After a write that was cut off, the next line is intact, and what was missed is written too."""
    rows = [event() for _ in range(3)]
    journal.append(rows[0])
    full_disk.append(30)
    journal.append(rows[1])
    full_disk.clear()
    journal.append(rows[2])
    assert journal.writable
    assert in_files(folder) == [rows[0], rows[2], rows[1]]


def test_a_folder_that_cannot_be_made_loses_nothing_in_memory(tmp_path):
    """Where no journal can be kept at all nothing raises, and once it can everything is written."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    journal = Journal(blocker / "journals", "aa")
    first, second = event(), event()
    journal.append(first)
    assert not journal.writable
    blocker.unlink()
    journal.append(second)
    assert in_files(tmp_path / "file" / "journals") == [second, first]
    journal.close(remove=False)


def test_a_network_file_system_is_refused(folder, monkeypatch):
    """A journal on a network file system would not be locked there: events stay in memory."""
    monkeypatch.setattr(journal_module, "network_filesystem", lambda path: "nfs4")
    journal = Journal(folder, "aa")
    journal.append(event())
    assert not journal.writable
    assert "nfs4" in (journal.last_error or "")


def test_without_a_folder_nothing_is_written(tmp_path):
    """A ledger within the process keeps no journal."""
    journal = Journal(None, "aa")
    journal.append(event())
    journal.settled([event()])
    journal.close(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_never_named_is_swept_after_a_day(folder):
    """What a process left that died while creating its file is removed, but not at once."""
    folder.mkdir()
    for name, age_s in (("old.new", 2 * 86_400), ("young.new", 60)):
        (folder / name).write_bytes(b"")
        now = (folder / name).stat().st_mtime
        os.utime(folder / name, (now - age_s, now - age_s))
    assert recovered(folder) == {}
    assert files(folder) == ["young.new"]


def test_an_event_that_no_ledger_takes_is_set_aside(journal, folder, caplog):
    """A rejected event is kept in a file and named in the log."""
    row = event()
    journal.append(row)
    journal.set_aside(row, "OverflowError: too large")
    assert list(Reader(folder / "rejected.lines").events()) == [row]
    assert row.id in caplog.text


def test_a_file_that_is_cut_under_the_process_costs_nobody_his_life(folder):
    """A journal that some other program empties loses what was in it, and the process goes on."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from paygent.journal import Journal; from engine_values import event\n"
        "journal = Journal(Path(sys.argv[1]), 'aa')\n"
        "journal.append(event())\n"
        "os.truncate(Path(sys.argv[1]) / 'aa.journal', 0)\n"
        "[journal.append(event()) for _ in range(5)]\n"
        "os._exit(7)\n"
    )
    script = [sys.executable, "-c", code, str(folder), str(Path(__file__).parent)]
    assert subprocess.run(script, check=False).returncode == 7


def test_no_fork_comes_between_a_file_and_the_note_of_it(journal, monkeypatch):
    """A file is opened and noted, forgotten and closed, while forks are kept away: no child keeps one."""
    owned = []
    opened, closed = journal_module._new_file, os.close

    def new_file(*given):
        owned.append(no_fork._is_owned())
        return opened(*given)

    def close(fd):
        owned.append(no_fork._is_owned())
        closed(fd)

    monkeypatch.setattr(journal_module, "_new_file", new_file)
    monkeypatch.setattr(journal_module.os, "close", close)
    journal.append(event())
    journal.close(remove=False)
    assert owned == [True, True]


def test_closing_within_an_append_of_the_same_thread_ends(journal, folder, monkeypatch):
    """As the handler of a signal may: the files stay to be recovered, and nothing waits for itself."""
    monkeypatch.setattr(journal_module, "_CLOSE_S", 0.01)
    row = event()
    journal.append(row)
    with journal._lock:
        journal.close(remove=True)
    assert in_files(folder) == [row]
