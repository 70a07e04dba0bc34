import os
import re
import signal
import subprocess
import sys

import httpx
import pytest

from paygent import cli
from paygent.cli._board import LinesBoard, PlainBoard, RichBoard, Row

# A disk that takes a quarter of a second, and that it is over.
BUSY = re.compile(r"the ledger (is away \(the ledger did not answer within|answers again;)")
pytestmark = pytest.mark.timeout(300)  # the demo takes ten seconds where nothing else runs

DEMO = [sys.executable, "-m", "paygent.cli", "demo"]


@pytest.fixture(scope="module")
def told():
    """One run of the demo: its output and exit status."""
    return subprocess.run(
        DEMO, capture_output=True, text=True, timeout=250, check=False, stdin=subprocess.DEVNULL
    )


def test_it_ends_well_by_itself(told):
    """The demo ends with exit status 0, and has nothing to complain of but a machine that is too busy."""
    complaints = [line for line in told.stderr.splitlines() if not BUSY.match(line)]
    assert (told.returncode, complaints) == (0, [])


def test_it_shows_every_user_as_the_numbers_change(told):
    """Rows of all three users come with growing calls, tokens and costs, up to a spent plan."""
    rows = re.findall(
        r"^  (\w+) +(free|pro) +(\d+) +([\d,]+) +\$([\d.]+) +(\d+)%  (.+)$", told.stdout, re.MULTILINE
    )
    assert {row[0] for row in rows} == {"ada", "ben", "cleo"}
    adas = [row for row in rows if row[0] == "ada" and row[1] == "free"]
    assert [int(row[2]) for row in adas] == sorted(int(row[2]) for row in adas)
    assert adas[0][6] == "ok"
    assert adas[-1][6] == "blocked"
    assert all(row[6] == "ok" for row in rows if row[0] == "cleo")


def test_it_shows_the_soft_gate(told):
    """The warning at 80 % names the user and the amounts."""
    assert re.search(r"soft gate: ada: Approaching the limit: \$[\d.]+ of \$0\.01 used", told.stdout)


def test_it_shows_the_429_and_its_payload(told):
    """The refusal is shown as it came over HTTP."""
    out = told.stdout
    assert "HTTP 429 Too Many Requests" in out
    assert "x-should-retry: false" in out
    assert '"code": "period_spend"' in out
    assert '"label": "Upgrade to Pro"' in out


def test_it_shows_plain_sdk_calls_models_and_a_log_line(told):
    """Direct calls of both SDKs, the usage per model, the upgrade and a log line are there."""
    out = told.stdout
    assert re.search(r"ben +OpenAI\(\) +metered", out)
    assert re.search(r"ada +Anthropic\(\) +PaygentLimitExceeded: Limit reached", out)
    assert re.search(r"cleo +gpt-5-mini +[\d,]+ tokens +\$0\.0", out)
    assert "her next question passes at once" in out
    assert re.search(r"INFO chat user=ada model=\S+ \d+\+\d+ tokens cost=\$0\.", out)


def test_it_takes_nothing_back_in_a_pipe(told):
    """Without a terminal there are no control characters."""
    assert "\x1b" not in told.stdout


def test_it_leaves_nothing_behind(tmp_path):
    """The served app stops at a signal, with exit status 0, and its temporary ledger is gone."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([*DEMO, "--serve"], stdout=subprocess.PIPE, env=environment, text=True) as process:
        url = next(line.split()[-1] for line in process.stdout if "http" in line)
        assert "Who is chatting?" in httpx.get(url, trust_env=False).text
        assert list(tmp_path.iterdir()) != []
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_live_needs_a_key(capsys):
    """Without a provider's key ``--live`` says what is missing."""
    assert cli.main(["demo", "--live"]) == 2
    assert "OPENAI_API_KEY or ANTHROPIC_API_KEY" in capsys.readouterr().err


def test_a_missing_extra_is_named(capsys, monkeypatch):
    """Where the demo's needs are not installed, the command says how to install them."""
    monkeypatch.setattr(cli, "DEMO_NEEDS", ("paygent", "not_there"))
    assert cli.main(["demo"]) == 2
    assert "needs not_there" in capsys.readouterr().err


def test_a_taken_port_is_a_clear_error(capsys):
    """A port that is in use is reported in one line."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert cli.main(["demo", "--port", str(taken.getsockname()[1])]) == 2
    assert "could not start" in capsys.readouterr().err


# --- the boards -------------------------------------------------------------------------------------------

ROW = Row("ada", "free", 3, 1234, 0.00123, 0.123, "ok")


def test_a_row_is_printed_when_it_changes(capsys):
    """In a pipe an unchanged row is not repeated."""
    board = LinesBoard(sys.stdout)
    board.show([ROW])
    board.show([ROW])
    board.show([ROW._replace(calls=4, gate="soft_gate")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["ada", "free", "3", "1,234", "$0.00123", "12%", "ok"]
    assert lines[2].endswith("near the limit")


def test_a_plain_terminal_is_redrawn(capsys):
    """On a terminal without rich the table is drawn over itself, and notes stay above it."""
    board = PlainBoard(sys.stdout)
    board.show([ROW])
    board.note("careful", "Title")
    board.show([ROW])
    board.close()
    out = capsys.readouterr().out
    assert out.count("\x1b[2F\x1b[J") == 2
    assert out.index("Title\ncareful") < out.rindex("ada")


def test_rich_shows_the_same(capsys):
    """With rich the same cells are shown, with a bar for the share of the plan."""
    from rich.console import Console

    board = RichBoard(Console(file=sys.stdout, width=100))
    board.show([ROW._replace(share=1.2, gate="hard_gate")])
    board.note("careful", "Title")
    board.close()
    out = capsys.readouterr().out
    assert "blocked" in out
    assert "█" * 16 in out
    assert "120%" in out
    assert "careful" in out
