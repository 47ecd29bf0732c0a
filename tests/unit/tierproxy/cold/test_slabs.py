import pytest

from tierproxy.cold import slabs as module
from tierproxy.cold.slabs import LEAST, SLAB, Slabs, new_slab


def taken(slabs: Slabs, size: int = LEAST) -> bytearray:
    """As who unpacks a chunk does it."""
    slab = slabs.take(size)
    if slab is None:
        slab = new_slab(size)
        slabs.keep(slab)
    return slab


def test_a_slab_is_used_again_once_the_last_view_of_it_has_gone() -> None:
    slabs = Slabs(2 * SLAB)
    slab = taken(slabs)
    known = id(slab)
    part = memoryview(slab)[5:10][1:]
    del slab
    assert id(taken(slabs)) != known, "a view of a view keeps it"
    part.release()
    del part
    both = [taken(slabs), taken(slabs)]
    assert known in map(id, both)


def test_no_more_are_kept_than_fit() -> None:
    slabs = Slabs(2 * SLAB)
    held = [taken(slabs) for _ in range(5)]
    assert len({id(slab) for slab in held}) == 5
    kept = {id(slab) for slab in held[:2]}
    del held
    assert {id(slab) for slab in [taken(slabs), taken(slabs)]} == kept


def test_with_many_in_use_a_free_one_is_found_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKS", 4)
    slabs = Slabs(16 * SLAB)
    held = [taken(slabs) for _ in range(16)]
    for number in (14, 5):
        free = id(held[number])
        held[number] = bytearray()
        found = [slabs.take(LEAST) for _ in range(4)]  # none of these is kept: each look may find it again
        assert free in map(id, found)
        held[number] = next(slab for slab in found if slab is not None)
        del found
    assert [slabs.take(LEAST) for _ in range(8)] == [None] * 8


def test_a_large_one_is_given_and_not_kept() -> None:
    slabs = Slabs(2 * SLAB)
    assert len(taken(slabs, SLAB + 1)) == SLAB + 1
    assert slabs.take(SLAB + 1) is None
    assert slabs.take(SLAB) is None


def test_a_slab_that_is_looked_at_is_nobody_elses_however_references_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_UNUSED", module._UNUSED + 1)  # as under a debugger that had looked at `_unused`
    slabs = Slabs(2 * SLAB)
    view = memoryview(taken(slabs))[7:]
    assert slabs.take(LEAST) is None
    del view
    slab = taken(slabs)
    assert len(slab) == SLAB


def test_a_small_chunk_takes_memory_of_its_size_and_no_slab() -> None:
    slabs = Slabs(2 * SLAB)
    held = [taken(slabs, 1000) for _ in range(100)]
    assert sum(map(len, held)) == 100_000
    assert slabs.take(LEAST) is None, "none of them is kept"
