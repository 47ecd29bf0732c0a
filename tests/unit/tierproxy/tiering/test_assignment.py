"""tierproxy.tiering.assignment: every partition to one member, in equal shares, and as few moved as can be."""

from collections.abc import Mapping
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from protocol.consumer_protocol import Subscription
from tierproxy.cluster_view import TopicPartition
from tierproxy.tiering.assignment import assign, by_topic

Counts = Mapping[str, int]
Shares = Mapping[str, frozenset[TopicPartition]]

counts: st.SearchStrategy[Counts] = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 9), max_size=5)
ids = st.sampled_from([f"m{n}" for n in range(6)])


def every(topics: Counts) -> set[TopicPartition]:
    return {TopicPartition(topic, index) for topic, count in topics.items() for index in range(count)}


def shared(members: Mapping[str, Subscription], topics: Counts) -> Shares:
    return assign(members, {topic: range(count) for topic, count in topics.items()})


@st.composite
def groups(draw: st.DrawFn, alike: bool = True) -> tuple[dict[str, Subscription], Counts]:
    """Members who say that they have anything: also what others have, what is gone, what they don't want any more."""
    topics = draw(counts)
    named = sorted({*topics, "gone"})
    some = st.lists(st.sampled_from(named), unique=True).map(tuple)
    owned = st.dictionaries(
        st.sampled_from(named), st.lists(st.integers(0, 11), max_size=9, unique=True).map(tuple), max_size=5
    )
    members = {
        member: Subscription(tuple(named) if alike else draw(some), draw(owned), draw(st.integers(-1, 3)))
        for member in draw(st.lists(ids, min_size=1, max_size=6, unique=True))
    }
    return members, topics


def held(members: Mapping[str, Subscription], topics: Counts) -> dict[str, set[TopicPartition]]:
    """What each has that is there, each partition once: the later claim counts."""
    found: dict[str, set[TopicPartition]] = {member: set() for member in members}
    left = every(topics)
    for member in sorted(members, key=lambda each: (-members[each].generation, each)):
        mine = {TopicPartition(topic, index) for topic, all_of in members[member].owned.items() for index in all_of}
        found[member] = mine & left
        left -= mine
    return found


@given(groups())
def test_shares_are_equal_and_as_little_moves_as_can(group: tuple[dict[str, Subscription], Counts]) -> None:
    members, topics = group
    shares = shared(members, topics)
    assert shares.keys() == members.keys()
    assert sum(len(share) for share in shares.values()) == len(every(topics))
    assert set().union(*shares.values()) == every(topics)
    sizes = sorted(len(share) for share in shares.values())
    assert sizes[-1] - sizes[0] <= 1

    before = held(members, topics)
    least, extra = divmod(len(every(topics)), len(members))
    most_first = sorted((len(each) for each in before.values()), reverse=True)
    keepable = sum(min(had, least + (rank < extra)) for rank, had in enumerate(most_first))
    assert sum(len(shares[member] & before[member]) for member in members) == keepable


@given(groups(alike=False))
def test_nobody_gets_what_they_do_not_want(group: tuple[dict[str, Subscription], Counts]) -> None:
    members, topics = group
    shares = shared(members, topics)
    wanted = {tp for tp in every(topics) if any(tp.topic in each.topics for each in members.values())}
    assert sorted(tp for share in shares.values() for tp in share) == sorted(wanted)
    for member, share in shares.items():
        assert {tp.topic for tp in share} <= set(members[member].topics)
        for other, larger in shares.items():  # nothing could go from one to another and make them more equal
            if len(larger) - len(share) >= 2:
                assert not any(tp.topic in members[member].topics for tp in larger), (member, other)


@given(groups(alike=False), st.randoms())
def test_the_order_of_what_is_known_makes_no_difference(
    group: tuple[dict[str, Subscription], Counts], random: Random
) -> None:
    members, topics = group
    shuffled = list(members.items())
    random.shuffle(shuffled)
    turned = dict(reversed(list(topics.items())))
    assert shared(dict(shuffled), turned) == shared(members, topics)


@given(groups(alike=False))
def test_once_shared_nothing_moves_without_a_reason(group: tuple[dict[str, Subscription], Counts]) -> None:
    members, topics = group
    shares = shared(members, topics)
    again = {m: Subscription(each.topics, by_topic(shares[m]), 9) for m, each in members.items()}
    assert shared(again, topics) == shares


def test_a_topic_is_spread_over_the_members() -> None:
    """Its partitions often have the same load, and other topics another."""
    nothing = Subscription(("a", "b"), {})
    shares = shared({"m": nothing, "n": nothing}, {"a": 4, "b": 4})
    assert all(by_topic(share).keys() == {"a", "b"} for share in shares.values())
    joined = {"m": Subscription(("a", "b"), {"a": (0, 1, 2, 3), "b": (0, 1, 2, 3)}, 1), "n": nothing}
    shares = shared(joined, {"a": 4, "b": 4})
    assert by_topic(shares["m"]) == {"a": (0, 1), "b": (0, 1)}
    assert by_topic(shares["n"]) == {"a": (2, 3), "b": (2, 3)}


def test_of_two_who_claim_the_same_the_later_one_keeps_it() -> None:
    old = Subscription(("a",), {"a": (0, 1, 2, 3)}, 4)
    new = Subscription(("a",), {"a": (0, 1)}, 5)
    assert by_topic(shared({"a zombie": old, "b": new}, {"a": 4})["b"]) == {"a": (0, 1)}


def test_many_partitions_are_shared() -> None:
    """As when two members join one that has everything. A search through all for each that moves takes minutes here."""
    topics = {f"t{n}": 20 for n in range(500)}
    alone = Subscription(tuple(topics), {topic: tuple(range(count)) for topic, count in topics.items()}, 1)
    shares = shared({"m": alone, "n": Subscription(tuple(topics), {}), "o": Subscription(tuple(topics), {})}, topics)
    assert sorted(len(share) for share in shares.values()) == [3333, 3333, 3334]
