import json
import os
import sys

import pytest

from benchmarks.__main__ import main
from benchmarks._measure import Pair
from benchmarks._suite import BENCHMARKS, TINY, Row, Spread, rows_of
from benchmarks._table import COLUMNS, header, line

NAMES = [
    "call", "async", "wrap", "stream", "refusal", "guard", "threads", "processes", "memory", "import", "init",
    "ledger", "ledgers", "requests", "exactness", "admin", "backend",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_and_gives_its_rows(name):
    """Every benchmark runs at the smallest sizes; each of its rows has a figure and prints as one line."""
    rows = list(rows_of([name], TINY))
    assert rows
    for row in rows:
        assert row.benchmark == name
        assert isinstance(row.measured, (int, float))
        first = line(row).splitlines()[0]
        assert first.count(" | ") >= 2
        assert row.what in first


def test_every_benchmark_has_a_test():
    """The names above are all the benchmarks there are."""
    assert sorted(NAMES) == sorted(BENCHMARKS)


def test_the_command_prints_the_table_and_writes_json(capsys, tmp_path):
    """``python -m benchmarks NAME --json FILE`` prints machine, header and rows, and writes the same rows."""
    figures = tmp_path / "figures.json"
    assert main(["guard", "--tiny", "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert all(column in printed for column in COLUMNS)
    assert "python CPython" in printed or "python PyPy" in printed
    written = json.loads(figures.read_text(encoding="utf-8"))
    assert [row["benchmark"] for row in written["rows"]] == ["guard", "guard"]
    assert all(row["what"] in printed for row in written["rows"])


def test_an_unknown_benchmark_is_refused(capsys):
    """A name that does not exist ends with status 2 and the names that do."""
    with pytest.raises(SystemExit) as ended:
        main(["speed"])
    assert ended.value.code == 2
    assert "wrap" in capsys.readouterr().err


def test_the_bare_client_is_not_metered():
    """The bare side of a comparison leaves no event; the other side leaves one per call."""
    from benchmarks._setup import ANSWER, REQUEST, USER, Clients, paygent
    from paygent import paygent_context

    clients = Clients(ANSWER)
    with paygent() as pg, paygent_context(USER):
        clients.bare(**REQUEST)
        pg.flush()
        assert pg.get_usage(USER).period_tokens_total == 0
        clients.ours(**REQUEST)
        pg.flush()
        assert pg.get_usage(USER).period_tokens_total == 69


def test_a_metered_call_takes_few_steps_of_ours(monkeypatch):
    """One call of the SDK runs at most sixty functions of ours: in situ their number is what a call costs."""
    from benchmarks._setup import ANSWER, REQUEST, USER, Clients, paygent
    from paygent import paygent_context
    from paygent.instrumentation import keywords

    monkeypatch.setattr(keywords, "used", False)  # as in an app that never uses the per-call keywords
    seen = []

    def profile(frame, what, _arg):
        where = frame.f_code.co_filename
        if what == "call" and os.sep + "paygent" + os.sep in where and "testing" not in where:
            seen.append((where, frame.f_code.co_name))

    clients = Clients(ANSWER)
    with paygent(), paygent_context(USER):
        create = clients.ours
        fewest = None
        for _ in range(20):  # now and then a call asks for more in the background
            seen.clear()
            sys.setprofile(profile)
            create(**REQUEST)
            sys.setprofile(None)
            fewest = min(fewest or len(seen), len(seen))
    assert fewest <= 60, seen


def test_the_figure_of_a_pair_is_the_difference_of_the_medians():
    """One slow call moves neither median: what counts is the middle of each side."""
    row = Pair([1000, 2000, 900_000], [4000, 6000, 5000]).row("call", "added", None)
    assert row.measured == pytest.approx(3.0)
    assert row.bare is not None
    assert row.bare.p99 == pytest.approx(900.0)


def test_the_spread_of_an_even_count_has_its_middle_between():
    """The median of an even number of values lies between the two in the middle."""
    assert Spread.of([4.0, 1.0, 3.0, 2.0]) == Spread(2.5, 4.0, 2.5)


def test_the_table_keeps_its_columns():
    """Header and rows have the same columns, also where a row has no pair to show."""
    row = Row("memory", "per cached user", 1234.5, "B", "≤ 2 kB", note="a note")
    shown, note = line(row).splitlines()
    assert header().splitlines()[0].startswith("benchmark ")
    assert [cell.strip() for cell in shown.split(" | ")][:4] == [
        "memory",
        "per cached user",
        "1,234 B",
        "≤ 2 kB",
    ]
    assert note.strip() == "a note"
