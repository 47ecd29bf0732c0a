from tierproxy.archive.segment_index import Chunk
from tierproxy.cold.stored import StoredChunks

SIZES = (10, 20, 30, 40)
CHUNKS = tuple(Chunk(n * 10, n * 10 + 9, sum(SIZES[:n]), size, size, -1, -1) for n, size in enumerate(SIZES))
DATA = bytes(range(100))


def test_a_chunk_is_taken_out_of_what_came_with_it() -> None:
    stored = StoredChunks(100)
    stored.put("a", 1, CHUNKS[1:], DATA[10:])
    assert ("a", 0) not in stored
    assert stored.get(("a", 0)) is None
    assert [bytes(stored.get(("a", n)) or b"") for n in (1, 2, 3)] == [DATA[10:30], DATA[30:60], DATA[60:]]


def test_what_came_together_goes_together_the_longest_unused_first() -> None:
    stored = StoredChunks(100)
    stored.put("a", 0, CHUNKS[:2], DATA[:30])
    stored.put("b", 0, CHUNKS[:2], DATA[:30])
    stored.get(("a", 1))
    stored.put("c", 2, CHUNKS[2:], DATA[30:])
    assert stored.size == 100
    assert [key for key in "abc" for n in range(4) if (key, n) in stored] == ["a", "a", "c", "c"]


def test_a_chunk_that_came_twice_stays_until_both_have_gone() -> None:
    stored = StoredChunks(100)
    stored.put("a", 0, CHUNKS, DATA)
    stored.put("a", 2, CHUNKS[2:3], DATA[30:60])
    assert [n for n in range(4) if ("a", n) in stored] == [2], "the larger one went, as both are too much"
    assert stored.size == 30


def test_what_is_damaged_is_forgotten_with_all_that_came_with_it() -> None:
    stored = StoredChunks(200)
    stored.put("a", 0, CHUNKS, DATA)
    stored.put("b", 0, CHUNKS, DATA)
    stored.drop(("a", 3))
    stored.drop(("a", 3))
    assert [n for n in range(4) if ("a", n) in stored] == []
    assert stored.size == 100
