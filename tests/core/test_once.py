"""Saying things once."""

from paygent._once import Once


def test_a_thing_is_new_once():
    """What was said is not new any more, other things are."""
    once = Once()
    assert [once.is_new(what) for what in ("a", "a", "b")] == [True, False, True]


def test_what_is_remembered_is_bounded():
    """Past the bound nothing is new: names that users choose fill neither memory nor log."""
    once = Once(2)
    assert [once.is_new(what) for what in ("a", "b", "c", "a")] == [True, True, False, False]


def test_what_was_said_can_be_forgotten():
    """After forgetting, everything is new."""
    once = Once()
    once.is_new("a")
    once.forget()
    assert once.is_new("a")
