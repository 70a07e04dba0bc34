"""What proves who sent a webhook, and what does not."""

import pytest

from paygent.wire.signing import sign, verify

SECRET, BODY, NOW_S = "whsec_1", b'{"type": "test"}', 1_775_211_630


def test_what_was_signed_is_believed():
    """A header made with the secret fits its body and time."""
    assert verify(SECRET, sign(SECRET, BODY, NOW_S), BODY, NOW_S + 10)


@pytest.mark.parametrize("given", ["\xe9", "\udc80", "💥", "a" * 63 + "é", "?" * 64])
def test_a_signature_that_is_not_ascii_is_wrong_and_no_fault(given):
    """Whatever stranger writes into the header, a receiver is told no and does not fail."""
    assert verify(SECRET, f"t={NOW_S},v1={given}", BODY, NOW_S) is False


def test_what_follows_a_signature_is_part_of_it():
    """The right signature with a sign behind it that is not ASCII is another one."""
    assert verify(SECRET, sign(SECRET, BODY, NOW_S) + "é", BODY, NOW_S) is False
