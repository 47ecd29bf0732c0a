from collections.abc import Iterator

from protocol.errors import ErrorCode
from protocol.fetch import FetchPartition, FetchRequest
from tests.unit.tierproxy.talk import TOPIC_ID, archived, catalog
from tierproxy.routing.stream import StreamPatch


class Counted(list[FetchPartition]):
    """Partitions of a request that know how often they were gone through."""

    times = 0

    def __iter__(self) -> Iterator[FetchPartition]:
        self.times += 1
        return super().__iter__()


def test_a_request_is_gone_through_once_however_many_of_its_partitions_are_refused() -> None:
    """Thousands of partitions that were trimmed a moment ago must not take seconds that all other clients wait."""
    known = catalog(manifest=archived(100, 500), broker_start=100)
    asked = Counted(FetchPartition(None, TOPIC_ID, index, -1, 150 + index, -1, 1 << 20) for index in range(3))
    patch = StreamPatch(known, FetchRequest(17, -1, 500, 1, 1 << 20, 0, 0, -1, None, asked, ""))
    for index in range(3):
        assert patch.decide(TOPIC_ID, index, ErrorCode.OFFSET_OUT_OF_RANGE, -1) == (ErrorCode.NONE, -1)
        tier = known.find(TOPIC_ID, index)
        assert tier is not None
        assert tier.doubts == {150 + index}
    assert asked.times == 1
