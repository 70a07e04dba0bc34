import re
import xml.etree.ElementTree as ET
from datetime import date

import pytest

from paygent import charts

DAYS = ["1 Nov", "2 Nov", "3 Nov"]
USD = 10**9


def parsed(markup):
    """The markup as XML: what is well-formed there is well-formed in HTML too."""
    return ET.fromstring(f"<div>{markup}</div>")


def texts(markup):
    return " ".join(" ".join(parsed(markup).itertext()).split())


def shares(markup, kind):
    """The widths of the bars of one kind, in per cent."""
    found = [one for one in parsed(markup).iter("rect") if kind in one.get("class", "").split()]
    return [float(one.get("width").rstrip("%")) for one in found]


EVERY = {
    "bars": lambda word: charts.bars([word] * 3, [1, 2, 3], title=word, name=word),
    "stacked": lambda word: charts.stacked_bars(
        DAYS, [charts.Series(word, (1, 2, 3)), charts.Series("b", (3, 2, 1))], title=word
    ),
    "ranking": lambda word: charts.ranking([charts.Rank(word, 3, href=f"/?u={word}", note=word)], title=word),
    "meter": lambda word: charts.meter(3, 9, title=word, soft_at=0.8),
    "sparkline": lambda word: charts.sparkline([1, 3, 2], title=word),
}


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("word", ["<script>alert(1)</script>", '" onload="x', "org/42?x=#é 💥", "a & b"])
def test_texts_stay_texts(kind, word):
    """Whatever a name holds, a chart shows it as text and gains no element or attribute by it."""
    plain, odd = parsed(EVERY[kind]("plain")), parsed(EVERY[kind](word))
    assert [(one.tag, sorted(one.attrib)) for one in plain.iter()] == [
        (one.tag, sorted(one.attrib)) for one in odd.iter()
    ]
    assert any(word == (one.text or "") for one in odd.iter())


@pytest.mark.parametrize("kind", EVERY)
def test_charts_pass_the_strictest_policy(kind):
    """A chart has no style attribute, no style element, no script and no handler."""
    for one in parsed(EVERY[kind]("plain")).iter():
        assert one.tag not in {"style", "script", "image", "use"}
        assert not [name for name in one.attrib if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("kind", EVERY)
def test_every_class_is_in_the_stylesheet_or_only_a_name(kind):
    """The classes that colour a chart are those of the stylesheet."""
    used = {name for one in parsed(EVERY[kind]("x")).iter() for name in one.get("class", "").split()}
    styled = set(re.findall(r"\.(pgc[\w-]*)", charts.stylesheet()))
    assert used - styled <= {"pgc-col", "pgc-fill", "pgc-meter", "pgc-rank-bar", "pgc-spark"}


@pytest.mark.parametrize("kind", ["bars", "stacked", "meter", "sparkline"])
def test_pictures_have_a_name_and_a_description(kind):
    """Each picture is one image with a title and a description for screen readers."""
    pictures = [one for one in parsed(EVERY[kind]("Spend")).iter("svg") if one.get("role") == "img"]
    assert len(pictures) == 1
    assert (pictures[0].get("aria-label"), pictures[0][0].text) == ("Spend", "Spend")
    assert pictures[0][1].tag == "desc"
    assert pictures[0][1].text


def test_the_numbers_stand_beside_the_picture():
    """The table of a stacked chart holds every value and the sums, the newest first."""
    markup = charts.stacked_bars(
        DAYS, [charts.Series("a", (1, 0, 5)), charts.Series("b", (3, 2, 1))], title="Calls"
    )
    rows = [[cell.text for cell in row] for row in parsed(markup).iter("tr")]
    assert rows == [
        ["Day", "a", "b", "Total"],
        ["3 Nov", "5", "1", "6"],
        ["2 Nov", "0", "2", "2"],
        ["1 Nov", "1", "3", "4"],
    ]


def test_parts_stand_on_each_other_to_scale():
    """Heights are in proportion to values, and a part begins where the one below it ends."""
    markup = charts.stacked_bars(
        ["x"], [charts.Series("a", (30,)), charts.Series("b", (10,))], title="T", height=234
    )
    low, high = (
        next(
            one for one in parsed(markup).iter("rect") if one.get("class") == f"pgc-s{index}" and one.get("y")
        )
        for index in range(2)
    )
    assert float(low.get("height")) == pytest.approx(3 * float(high.get("height")), abs=0.02)
    assert float(high.get("y")) + float(high.get("height")) == pytest.approx(float(low.get("y")), abs=0.02)


def test_more_series_than_colours_are_added_up():
    """The ninth series and those after it are one part named other; nothing is left out of the sum."""
    series = [charts.Series(f"m{index}", (float(index), 1.0)) for index in range(1, 13)]
    kept = charts.top_series(series)
    assert [one.name for one in kept][:2] == ["m12", "m11"]
    assert (len(kept), kept[-1].name) == (8, "Other")
    assert sum(one.total for one in kept) == sum(one.total for one in series)


@pytest.mark.parametrize("highest", [0.0003, 0.07, 1, 3, 9.99, 10, 4e9, 1e15])
def test_the_axis_ends_above_the_highest_bar(highest):
    """Marks are round, three to six, start at zero and reach the highest value."""
    from paygent.charts.bars import ticks

    marks = ticks(highest)
    assert marks[0] == 0
    assert marks[-1] >= highest * (1 - 1e-9)
    assert 3 <= len(marks) <= 6


@pytest.mark.parametrize(
    ("highest", "marks"), [(1, [0, 1]), (3, [0, 1, 2, 3]), (9, [0, 5, 10]), (100, [0, 25, 50, 75, 100])]
)
def test_counts_have_whole_marks(highest, marks):
    """There is no half a call on an axis of calls."""
    from paygent.charts.bars import ticks

    assert ticks(highest, whole=True) == marks


def test_marks_have_as_many_decimals():
    """An axis shows $0.50 and $1.00, not $1; where marks have letters they stay as they are."""
    shown = {"title": "Spend", "name": "spend", "tick": charts.short_dollars}
    assert {"$0", "$0.50", "$1.00", "$1.50"} <= set(
        texts(charts.bars(DAYS, [0, USD, USD * 1.5], **shown)).split()
    )
    assert {"$500", "$1k", "$1.5k"} <= set(texts(charts.bars(DAYS, [0, USD, 1500 * USD], **shown)).split())


def test_nothing_to_draw_is_said():
    """Without any value above zero a sentence stands in place of the picture."""
    assert "Nothing here yet." in texts(charts.bars(DAYS, [0, 0, 0], title="Calls", name="calls"))
    assert "Nothing here yet." in texts(charts.bars([], [], title="Calls", name="calls"))
    assert "Nothing here yet." in texts(charts.ranking([], title="Users"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1])
def test_what_has_no_place_on_a_chart_is_refused(value):
    """A value that is negative or not finite raises, it is not drawn as something else."""
    with pytest.raises(ValueError, match=r"finite|zero or more"):
        charts.bars(["x"], [value], title="T", name="n")


def test_a_loss_goes_the_other_way():
    """Values below zero run from the common zero to the left, in the colour of a loss."""
    markup = charts.ranking([charts.Rank("a", 3), charts.Rank("b", -1)], title="Margin")
    assert shares(markup, "pgc-s0") == [75.0]
    assert shares(markup, "pgc-neg") == [25.0]
    assert "\u22121" in texts(markup)


@pytest.mark.parametrize(
    ("used", "limit", "width"),
    [(0, 10, []), (5, 10, [50.0]), (99, 10, [100.0]), (0, 0, [100.0]), (1, 10**9, [1.5])],
)
def test_a_meter_shows_the_used_share(used, limit, width):
    """The bar is as long as the share that is used, full at most, and visible once anything is used."""
    assert shares(charts.meter(used, limit, title="x"), "pgc-ok") == width


def test_a_meter_without_a_limit_is_open():
    """Without a limit there is no share to show: the track alone stands there, hatched."""
    markup = charts.meter(5, None, title="$5 used")
    assert "pgc-open" in markup
    assert "pgc-fill" not in markup


@pytest.mark.parametrize(
    ("nusd", "shown"),
    [
        (0, "$0.00"), (12_500_000_000, "$12.50"), (1_234_567 * USD, "$1,234,567.00"), (4_200_000, "$0.0042"),
        (-3 * USD, "\u2212$3.00"), (42, "<$0.000001"), (99_999_999, "$0.10"), (50_000_000, "$0.05"),
    ],
)  # fmt: skip
def test_dollars_keep_the_digits_that_matter(nusd, shown):
    """Amounts are in dollars and cents, small ones with up to six decimals, never zero when there is one."""
    assert charts.dollars(nusd) == shown


def test_other_numbers_are_short():
    """Axes and shares read as people write them; almost none is not none, almost all is not all."""
    assert [charts.short_dollars(n * USD) for n in (0, 5, 0.25, 1500, 2_000_000)] == [
        "$0", "$5", "$0.25", "$1.5k", "$2M",
    ]  # fmt: skip
    assert [charts.compact(n) for n in (7, 1234, 999_990, 2.5e9)] == ["7", "1.2k", "1M", "2.5B"]
    assert [charts.percent(n) for n in (0, 0.004, 0.5, 0.996, 1, 1.2)] == [
        "0%", "<1%", "50%", "99%", "100%", "120%",
    ]  # fmt: skip
    assert charts.day_label(date(2026, 11, 3)) == "3 Nov"
