import zoneinfo
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paygent.core.windows import billing_period, calendar_month, from_us, session_window, to_us

UTC = timezone.utc
DAY_US = 86_400 * 1_000_000
MOMENTS = st.integers(to_us(datetime(1971, 1, 1, tzinfo=UTC)), to_us(datetime(2200, 1, 1, tzinfo=UTC))).map(
    from_us
)


@pytest.mark.parametrize(
    "now, start, end",
    [
        ("2026-01-01T00:00:00", "2026-01-01", "2026-02-01"),
        ("2026-01-31T23:59:59.999999", "2026-01-01", "2026-02-01"),
        ("2026-02-28T12:00:00", "2026-02-01", "2026-03-01"),
        ("2024-02-29T23:59:59", "2024-02-01", "2024-03-01"),
        ("2000-02-29T00:00:00", "2000-02-01", "2000-03-01"),
        ("2100-02-28T23:59:59", "2100-02-01", "2100-03-01"),
        ("2026-04-30T23:00:00", "2026-04-01", "2026-05-01"),
        ("2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
    ],
)
def test_without_an_assigned_period_it_is_the_month_in_utc(now, start, end):
    """The calendar month in UTC holds its first microsecond and not that of the next month."""
    window = calendar_month(to_us(datetime.fromisoformat(now)))
    assert from_us(window.start_us) == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert from_us(window.end_us) == datetime.fromisoformat(end).replace(tzinfo=UTC)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-11-01", "2026-04-05"])
def test_summer_time_changes_nothing(zone, day):
    """An hour that exists twice or not at all on some clock is an hour like any other here."""
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    local = start.astimezone(zoneinfo.ZoneInfo(zone))
    assert [to_us(local.astimezone(UTC) + timedelta(hours=n)) - to_us(local) for n in range(25)] == [
        n * 3_600_000_000 for n in range(25)
    ]
    assert calendar_month(to_us(local)) == calendar_month(to_us(start))


@pytest.mark.parametrize("rolled", [0, 1, 2, 24, -1, -3])
def test_a_period_rolls_on_by_its_own_length(rolled):
    """Before and after an assigned period lie periods of the same length, without a gap."""
    start, length = to_us(datetime(2026, 1, 31, 9, 30, tzinfo=UTC)), 28 * DAY_US
    first = start + rolled * length
    for now in (first, first + length - 1):
        window = billing_period((start, start + length), now)
        assert (window.start_us, window.end_us) == (first, first + length)
    assert billing_period((start, start + length), first + length).start_us == first + length


def test_extending_a_period_keeps_its_key():
    """A period is named by its start: one whose end is moved is the same one, renewed it is another."""
    start, now = 10 * DAY_US, 11 * DAY_US
    assert billing_period((start, 20 * DAY_US), now).key == billing_period((start, 40 * DAY_US), now).key
    assert billing_period((start + 1, 20 * DAY_US), now).key != billing_period((start, 20 * DAY_US), now).key


@given(now=MOMENTS, start=MOMENTS, length_us=st.integers(1, 400 * DAY_US))
def test_every_moment_lies_in_exactly_one_period(now, start, length_us):
    """The billing period holds the moment, and ends where the next one begins."""
    assigned = (to_us(start), to_us(start) + length_us)
    window = billing_period(assigned, to_us(now))
    assert window.start_us <= to_us(now) < window.end_us
    assert window.end_us - window.start_us == length_us
    assert billing_period(assigned, window.end_us).start_us == window.end_us


@given(now=MOMENTS)
def test_months_follow_each_other(now):
    """The calendar month holds the moment, and the next one begins where it ends, on a first at midnight."""
    window = calendar_month(to_us(now))
    assert window.start_us <= to_us(now) < window.end_us
    assert calendar_month(window.end_us).start_us == window.end_us
    assert from_us(window.end_us).strftime("%d %H:%M:%S.%f") == "01 00:00:00.000000"


@given(now=MOMENTS, offset=st.integers(-23, 23))
def test_moments_survive_the_conversion(now, offset):
    """A moment in any zone is the same moment again, to the microsecond."""
    zoned = now.astimezone(timezone(timedelta(hours=offset)))
    assert from_us(to_us(zoned)) == now


def test_a_naive_moment_is_utc():
    """A moment without a zone is read as UTC."""
    naive = datetime.fromisoformat("2026-01-01")
    assert to_us(naive) == to_us(datetime(2026, 1, 1, tzinfo=UTC))


def test_a_session_ends_by_its_start():
    """A session's window is its timeout long, and its key holds its start and its name."""
    window = session_window("chat", 1_000_000, 90.5)
    assert (window.key, window.start_us, window.end_us) == ("s1000000:chat", 1_000_000, 91_500_000)
