import uuid

from paygent.meter import ids


def test_ids_are_uuids_that_sort_as_they_are_made():
    """Ids are UUIDs of version 7, each greater than the one before."""
    new_id = ids.event_ids()
    made = [new_id() for _ in range(1000)]
    assert made == sorted(set(made))
    assert {uuid.UUID(one).version for one in made} == {7}
    assert {uuid.UUID(one).variant for one in made} == {uuid.RFC_4122}


def test_a_prefix_that_is_used_up_is_followed_by_another(monkeypatch):
    """After as many ids as a counter holds a new prefix begins: ids keep their length and stay unique."""
    monkeypatch.setattr(ids, "_PER_PREFIX", 3)
    new_id = ids.event_ids()
    made = [new_id() for _ in range(10)]
    assert len(set(made)) == 10
    assert len({one[:28] for one in made}) == 4
    assert {len(one) for one in made} == {36}


def test_two_processes_make_different_ids():
    """Each maker has a prefix of its own."""
    one, other = ids.event_ids(), ids.event_ids()
    assert one()[:28] != other()[:28]
