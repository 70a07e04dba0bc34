"""Sessions that the caller names: what a process remembers of them is bounded, and still capped."""

import pytest
from engine_values import call, plan

from paygent import PaygentLimitExceeded
from paygent.meter.wallet import SESSIONS_MAX


def test_a_user_of_many_sessions_keeps_the_latest(init):
    """Past the bound the oldest session leaves memory, not all of them."""
    pg = init()
    pg.configure_plan("default", plan(1000))
    names = [f"chat-{number}" for number in range(SESSIONS_MAX + 3)]
    for name in names:
        call(pg, session_id=name)
    assert list(pg._meter.wallets["ada"].sessions) == names[3:]


def test_a_session_that_left_memory_is_still_capped(init):
    """A session forgotten here is known to the ledger: coming back to it, the user finds it spent."""
    pg = init()
    pg.configure_plan("default", plan(1000, max_spend_per_session=0.02 + 1e-9))
    for number in (0, 0, *range(1, SESSIONS_MAX + 3)):
        call(pg, session_id=f"chat-{number}")
    with pytest.raises(PaygentLimitExceeded) as refused:
        call(pg, session_id="chat-0")
    result = refused.value.guard_result
    assert (result.gate_reason, round(result.current_value, 9)) == ("session_spend", 0.02)


def test_a_spent_session_leaves_another_its_room(init):
    """What is remembered of a refusal in one session refuses nobody in the next one."""
    pg = init()
    pg.configure_plan("default", plan(1000, max_spend_per_session=0.03 + 1e-9))
    call(pg, session_id="chat-0")
    call(pg, session_id="chat-1")
    for _ in range(2):
        call(pg, session_id="chat-0")
    pg.flush(give_back=True)
    with pytest.raises(PaygentLimitExceeded):
        call(pg, session_id="chat-0")
    for _ in range(2):
        call(pg, session_id="chat-1")
