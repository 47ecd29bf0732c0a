from tierproxy.cold.slabs import SLAB, Slabs


def test_a_slab_is_used_again_once_the_last_view_of_it_has_gone() -> None:
    slabs = Slabs(2 * SLAB)
    slab = slabs.take(10)
    known = id(slab)
    part = memoryview(slab)[5:10][1:]
    del slab
    assert id(slabs.take(10)) != known, "a view of a view keeps it"
    part.release()
    del part
    taken = [slabs.take(10), slabs.take(10)]
    assert known in map(id, taken)


def test_no_more_are_kept_than_fit() -> None:
    slabs = Slabs(2 * SLAB)
    held = [slabs.take(10) for _ in range(5)]
    assert len({id(slab) for slab in held}) == 5
    kept = {id(slab) for slab in held[:2]}
    del held
    assert {id(slab) for slab in [slabs.take(1), slabs.take(1)]} == kept


def test_a_large_one_is_given_and_not_kept() -> None:
    slabs = Slabs(2 * SLAB)
    assert len(slabs.take(SLAB + 1)) == SLAB + 1
    assert len(slabs.take(SLAB)) == SLAB
