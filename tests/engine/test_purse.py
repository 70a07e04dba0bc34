"""One purse by itself: what a close trims and tells, what the ledger teaches, and when nothing is left."""

import pytest

from paygent.core.plan import NO_LIMIT, Limit
from paygent.core.windows import Window
from paygent.meter.purse import ModelPurse, Purse

WINDOW = Window("p0", 0, 1_000)
LIMIT = Limit(cap=100, soft=80, hard=100)


def purse(limit=LIMIT, **fields):
    """A purse in a state of the test's own."""
    made = Purse("total_spend", WINDOW, limit)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def model_purse(limit=NO_LIMIT, **fields):
    """The same for a model."""
    made = ModelPurse("model_limit:m", WINDOW, limit)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_a_close_lets_go_of_what_others_leave_no_room_for():
    """After a post a lease is cut to the limit less what is used and what other processes lease."""
    one = purse(lease=60, held=30, others=50)
    one.close(30, 30)
    assert (one.lease, one.held, one.used) == (20, 0, 30)


def test_a_close_cuts_into_no_open_hold():
    """What other calls hold stays leased, even past the limit."""
    one = purse(lease=60, held=60, others=50)
    one.close(30, 30)
    assert (one.lease, one.held) == (30, 30)


@pytest.mark.parametrize(
    "posted, amount, crosses", [(70, 9, False), (70, 10, True), (79, 1, True), (80, 1, False), (80, 0, False)]
)
def test_the_soft_mark_is_crossed_once(posted, amount, crosses):
    """The post that reaches the soft mark says so; one below it or already past it does not."""
    assert purse(lease=20, held=10, posted=posted).close(10, amount) is crosses


@pytest.mark.parametrize("lease, low", [(160, 40), (159, 0), (1000, 250)])
def test_more_is_asked_for_at_a_quarter_of_a_slice_of_sixteen_calls(lease, low):
    """A slice is refilled once a quarter of it is left; one of fewer than sixteen calls is not."""
    one = purse(lease=lease + 5, held=5)
    one.refill_below(10)
    assert one.low == low


def test_what_was_sent_is_posted_once():
    """What is spent while an operation is under way stays unsettled; what it carried is posted."""
    one = purse(unsettled=7, posted=10)
    one.send()
    one.unsettled += 5
    one.arrive()
    assert (one.posted, one.unsettled, one.used) == (17, 5, 22)


def test_what_did_not_arrive_stays_unsettled():
    """After a failed operation nothing counts as sent, and what was held beyond the lease is not granted."""
    one = purse(lease=30, raised=10, unsettled=7)
    one.send()
    one.fail()
    one.arrive()
    assert (one.lease, one.raised, one.posted, one.unsettled) == (20, 0, 0, 7)


def test_a_model_learns_tokens_and_cost_from_the_ledger():
    """What the ledger says of a model's two buckets is taken over for each."""
    one = model_purse()
    one.hear({("model_limit:m", "p0"): 7, ("model_cost:m", "p0"): 9}.get)
    assert (one.posted, one.cost_posted) == (7, 9)


def test_what_the_ledger_does_not_speak_of_stays_as_it_was():
    """Silence about a bucket is no zero."""
    one = model_purse(posted=7, cost_posted=9)
    one.hear({}.get)
    assert (one.posted, one.cost_posted) == (7, 9)


def test_the_cost_of_a_model_is_posted_once():
    """The cost that an operation carried is posted when it arrives, and stays unsettled when it fails."""
    one = model_purse(cost_unsettled=7)
    one.send()
    one.fail()
    one.arrive()
    assert (one.cost_posted, one.cost_unsettled) == (0, 7)
    one.send()
    one.cost_unsettled += 2
    one.arrive()
    assert (one.cost_posted, one.cost_unsettled, one.cost_used) == (7, 2, 9)


@pytest.mark.parametrize(
    "limit, fields, blank",
    [
        (NO_LIMIT, {}, True),
        (LIMIT, {"lease": 0}, True),
        (LIMIT, {"lease": 1}, False),
        (NO_LIMIT, {"posted": 1}, False),
        (NO_LIMIT, {"held": 1}, False),
        (NO_LIMIT, {"unsettled": 1}, False),
        (NO_LIMIT, {"cost_posted": 1}, False),
        (NO_LIMIT, {"cost_unsettled": 1}, False),
    ],
)
def test_a_blank_purse_knows_nothing(limit, fields, blank):
    """A model's purse is blank if nothing is held, leased, posted or on its way, in tokens or in money."""
    assert model_purse(limit, **fields).is_blank is blank


@pytest.mark.parametrize("after", [NO_LIMIT, Limit(50, 40, 50)])
def test_a_purse_keeps_its_lease_as_long_as_it_is_limited(after):
    """A new limit leaves a lease as it is; without a limit there is none, and the next one starts at 0."""
    one = purse(lease=30)
    one.limited_by(after)
    one.limited_by(LIMIT)
    assert one.lease == (30 if after.hard == 50 else 0)
