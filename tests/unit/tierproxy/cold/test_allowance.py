from hypothesis import given
from hypothesis import strategies as st

from tierproxy.cold.allowance import CHUNK, AnswerMemory

MIB = 1 << 20


def test_an_answer_gets_what_it_wishes_or_half_of_what_is_left_and_never_nothing() -> None:
    memory = AnswerMemory(64 * MIB)
    sizes = []
    for who, wish in enumerate((10, 16, 100, 100)):
        memory.grant(wish * MIB, who)
        sizes.append(memory.held // MIB)
    assert sizes == [10, 26, 42, 53]
    for _ in range(20):
        memory.grant(100 * MIB)
    assert memory.held <= 64 * MIB + 20 * CHUNK
    held = memory.held
    memory.grant(0)
    assert memory.held == held + CHUNK


def test_the_first_partition_always_has_room_and_the_others_as_far_as_it_goes() -> None:
    room = AnswerMemory(16 * MIB).grant(3 * MIB)
    assert room.admits("a", 8 * MIB)
    assert not room.admits("b", 1)
    assert room.admits("a", 8 * MIB), "it has its part already"
    assert (room.part("a"), room.part("b")) == (3 * MIB, 0), "and no more than there is"
    room.without("a")
    assert [room.admits(each, 1) for each in "bcde"] == [True, True, True, False]
    room.without("x")
    room.without("c")
    assert room.admits("e", 1)


@given(st.lists(st.tuples(st.integers(0, 100 * MIB), st.integers(0, 10 * MIB), st.booleans()), max_size=50))
def test_what_is_held_is_what_answers_that_are_not_gone_hold(answers: list[tuple[int, int, bool]]) -> None:
    memory = AnswerMemory(32 * MIB)
    held = 0
    for wish, kept, gone in answers:
        room = memory.grant(wish)
        room.keep(kept)
        if gone:
            room.end()
            room.end()
        else:
            held += kept
        assert memory.held == held


def test_one_client_leaves_others_their_part() -> None:
    memory = AnswerMemory(64 * MIB)
    greedy = [memory.grant(100 * MIB, "greedy") for _ in range(8)]
    assert memory.held <= 32 * MIB + 8 * CHUNK
    before = memory.held
    memory.grant(100 * MIB, "other")
    assert memory.held - before >= 12 * MIB
    before = memory.held
    memory.grant(100 * MIB, "greedy")
    assert memory.held - before == CHUNK
    for each in greedy:
        each.end()
    before = memory.held
    memory.grant(8 * MIB, "greedy")
    assert memory.held - before == 8 * MIB


def test_many_partitions_have_equal_parts_rather_than_some_none() -> None:
    room = AnswerMemory(16 * MIB).grant(8 * MIB)
    room.divide(4)
    assert all(room.admits(partition, 8 * MIB) for partition in range(4))
    assert [room.part(partition) for partition in range(4)] == [2 * MIB] * 4
    assert not room.admits(4, 1)
