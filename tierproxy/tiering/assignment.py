"""Who of a group archives what: balanced, and with as little moved as that allows. Pure.

The group's leader computes it from what each member wants (the topics that its policies name; the same for all, but
for the time of a changed configuration) and from what each has. The result is the same whoever computes it.
"""

from bisect import insort
from collections.abc import Iterable, Mapping
from itertools import groupby

from protocol.consumer_protocol import Partitions, Subscription
from tierproxy.cluster_view import TopicPartition


def assign(
    members: Mapping[str, Subscription], partitions: Mapping[str, Iterable[int]]
) -> dict[str, frozenset[TopicPartition]]:
    """What each of `members` (by id) gets of the topics' `partitions`.

    Every partition of a topic that somebody wants is given to exactly one of those who want it. Where all want the
    same, shares differ by one at most, and no more partitions change hands than that takes.
    """
    wanting = {member: frozenset(each.topics) for member, each in members.items()}
    shares = _kept(members, wanting, partitions)
    fresh = {
        TopicPartition(topic, index)
        for topic in frozenset().union(*wanting.values())
        for index in partitions.get(topic, ())
    }.difference(*shares.values())
    for tp in sorted(fresh):
        able = [member for member in shares if tp.topic in wanting[member]]
        shares[min(able, key=lambda member: (len(shares[member]), member))].add(tp)
    # In the order in which they would be given away: what nobody has begun goes first, and of all topics the highest
    # numbers, so that no topic moves as a whole.
    queues = {member: sorted((tp in fresh, tp.partition, tp.topic) for tp in share) for member, share in shares.items()}
    while _level(queues, wanting):
        pass
    return {
        member: frozenset(TopicPartition(topic, index) for _, index, topic in queue) for member, queue in queues.items()
    }


def by_topic(partitions: Iterable[TopicPartition]) -> Partitions:
    """The same as Kafka's group protocol writes it."""
    return {
        topic: tuple(tp.partition for tp in each) for topic, each in groupby(sorted(partitions), lambda tp: tp.topic)
    }


def _kept(
    members: Mapping[str, Subscription],
    wanting: Mapping[str, frozenset[str]],
    partitions: Mapping[str, Iterable[int]],
) -> dict[str, set[TopicPartition]]:
    """What members have and may keep. Of two that claim the same, the one who got it later: the other was away."""
    there = {topic: frozenset(indexes) for topic, indexes in partitions.items()}
    shares: dict[str, set[TopicPartition]] = {member: set() for member in sorted(members)}
    taken: set[TopicPartition] = set()
    for member in sorted(members, key=lambda each: (-members[each].generation, each)):
        for topic, indexes in members[member].owned.items():
            if topic in wanting[member]:
                mine = {TopicPartition(topic, i) for i in indexes if i in there.get(topic, ())} - taken
                shares[member] |= mine
                taken |= mine
    return shares


def _level(queues: dict[str, list[tuple[bool, int, str]]], wanting: Mapping[str, frozenset[str]]) -> bool:
    """Move one partition from who has much to who has little; False if that would level nothing any more."""
    by_size = sorted(queues, key=lambda member: (len(queues[member]), member))
    for little in by_size:
        for much in reversed(by_size):
            queue = queues[much]
            if len(queue) - len(queues[little]) < 2:
                break
            for at in reversed(range(len(queue))):
                if queue[at][2] in wanting[little]:
                    insort(queues[little], queue.pop(at))
                    return True
    return False
