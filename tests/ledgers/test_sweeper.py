"""When a ledger forgets what nobody asks for any more."""

from paygent.ledgers._rows import SESSIONS_KEPT_US, SWEEP_EVERY_US, Sweeper

START_US = 1_767_225_600_000_000


class Rows:
    """Rows that note when they are swept, and up to which moments."""

    def __init__(self):
        self.moment_us = START_US
        self.swept = []

    def now_us(self):
        return self.moment_us

    def sweep(self, leases_before_us, sessions_before_us):
        self.swept.append((leases_before_us, sessions_before_us))


def test_a_ledger_is_swept_once_a_minute():
    """Operations within a minute of a sweep do not sweep again; the first one after it does."""
    rows, sweeper = Rows(), Sweeper()
    for passed_us in (0, 1, SWEEP_EVERY_US - 1, SWEEP_EVERY_US, SWEEP_EVERY_US + 1):
        rows.moment_us = START_US + passed_us
        sweeper.sweep(rows)
    assert [leases_us - START_US for leases_us, _ in rows.swept] == [0, SWEEP_EVERY_US]


def test_sessions_are_kept_for_a_day_after_their_end():
    """Leases that have expired go at once, sessions later."""
    rows = Rows()
    Sweeper().sweep(rows)
    assert rows.swept == [(START_US, START_US - SESSIONS_KEPT_US)]


def test_a_clock_that_is_set_back_does_not_end_the_sweeping():
    """After the clock went back by more than a minute the ledger is swept by the time that it tells now."""
    rows, sweeper = Rows(), Sweeper()
    sweeper.sweep(rows)
    rows.moment_us -= 3 * SWEEP_EVERY_US
    sweeper.sweep(rows)
    assert len(rows.swept) == 2
