import pytest

from paygent import GuardResult, PaygentLimitExceeded
from paygent.web.limit_response import find_refusal

LIMIT = PaygentLimitExceeded(GuardResult(status="hard_gate"))


def raised(how):
    """The error that comes of *how*, with everything that Python links to it."""
    try:
        how()
    except Exception as error:  # noqa: BLE001  # whatever it is
        return error
    return None


def caused():
    raise RuntimeError("the response had started") from LIMIT


def failed_while_handling():
    try:
        raise LIMIT
    except PaygentLimitExceeded:
        raise KeyError("a bug of the app's fallback")  # noqa: B904  # the link that Python makes by itself


def test_what_is_made_from_a_refusal_is_one():
    """A framework that raises its own error from ours is answered with the refusal."""
    assert find_refusal(raised(caused)) is LIMIT


def test_a_bug_while_a_refusal_is_handled_is_a_bug():
    """An error in the app's own fallback is not hidden behind a 429."""
    assert find_refusal(raised(failed_while_handling)) is None


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("y")])
def test_other_errors_are_none(error):
    """What has nothing to do with a refusal is left alone."""
    assert find_refusal(error) is None
