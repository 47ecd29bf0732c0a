"""tierproxy.cluster_view: how answers to Metadata change what is known."""

from protocol.errors import ErrorCode
from protocol.messages import Metadata, MetadataPartition, MetadataTopic
from tierproxy.cluster_view import NOBODY, ClusterView, PartitionView, TopicPartition, merge_metadata

ID = b"i" * 16


def topic(name: str, error: int = 0, topic_id: bytes = ID, leader: int = 1) -> MetadataTopic:
    return MetadataTopic(error, name, topic_id, False, (MetadataPartition(0, 0, leader, 5),))


def answer(*topics: MetadataTopic, cluster_id: str | None = "c") -> Metadata:
    return Metadata(cluster_id, 1, {1: ("h", 9092)}, topics)


FULL = merge_metadata(ClusterView.unknown(), answer(topic("a"), topic("b")), None)


def test_before_anything_was_asked() -> None:
    assert ClusterView.unknown().leader(TopicPartition("a", 0)) == NOBODY


def test_a_full_answer_replaces_all_topics() -> None:
    view = merge_metadata(FULL, answer(topic("b"), topic("c")), None)
    assert sorted(view.topics) == ["b", "c"]
    assert view.topics["c"].partitions == {0: PartitionView(1, 5)}


def test_an_answer_about_some_topics_keeps_the_others() -> None:
    view = merge_metadata(FULL, answer(topic("b", leader=2)), ["b"])
    assert (view.leader(TopicPartition("a", 0)), view.leader(TopicPartition("b", 0))) == (1, 2)


def test_a_topic_that_does_not_exist_is_dropped() -> None:
    view = merge_metadata(FULL, answer(topic("b", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)), ["b"])
    assert sorted(view.topics) == ["a"]


def test_a_topic_that_cannot_be_described_right_now_stays() -> None:
    refused = topic("b", ErrorCode.TOPIC_AUTHORIZATION_FAILED, topic_id=bytes(16))
    for asked in (["b"], None):
        assert merge_metadata(FULL, answer(topic("a"), refused), asked).topics["b"] == FULL.topics["b"]
    unseen = topic("new", ErrorCode.LEADER_NOT_AVAILABLE)
    assert "new" not in merge_metadata(FULL, answer(unseen), ["new"]).topics


def test_a_recreated_topic_shows_its_new_id() -> None:
    view = merge_metadata(FULL, answer(topic("a", topic_id=b"j" * 16)), ["a"])
    assert view.topics["a"].topic_id == b"j" * 16


def test_an_answer_without_brokers_does_not_lose_them() -> None:
    view = merge_metadata(FULL, Metadata(None, -1, {}, ()), [])
    assert (view.cluster_id, view.brokers) == ("c", {1: ("h", 9092)})


def test_leaders_of_unknown_partitions() -> None:
    assert FULL.leader(TopicPartition("a", 0)) == 1
    assert FULL.leader(TopicPartition("a", 9)) == NOBODY
    assert FULL.leader(TopicPartition("z", 0)) == NOBODY
