from dataclasses import dataclass, replace

import pytest

from protocol.errors import ErrorCode
from protocol.fetch import FetchPartition, FetchRequest
from protocol.fetch_response import FetchResponse
from tests.unit.tierproxy.talk import OTHER_ID, TOPIC_ID, archived, catalog, fetched
from tierproxy.archive.manifest import Gap
from tierproxy.archive.names import PartitionId
from tierproxy.catalog import Tier
from tierproxy.routing.fetch import ColdRecords, Facts, Refused, Verdict, fill, judge, reserve_for_cold, show_log_starts

COLD, BEYOND, HOLE, AGAIN, UNKNOWN = Verdict.COLD, Verdict.BEYOND, Verdict.HOLE, Verdict.AGAIN, Verdict.UNKNOWN


def tier(**facts: object) -> Tier:
    made = Tier(PartitionId("flights", TOPIC_ID, 0), "main", "skip", archived(100, 500), True, broker_start=400)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


HOLEY = archived(100, 500).with_gap(Gap(500, 700, 1, "retention"))


@pytest.mark.parametrize(
    ("known", "offset", "stale", "broker_fresh", "both_fresh"),
    [
        ({}, 100, COLD, COLD, COLD),
        ({}, 399, COLD, COLD, COLD),
        ({}, 99, UNKNOWN, UNKNOWN, BEYOND),  # below the archive: perhaps the manifest is old
        ({}, 400, UNKNOWN, AGAIN, AGAIN),  # refused, though the leader has it: by a follower that lags, say
        ({}, 900, UNKNOWN, AGAIN, AGAIN),
        ({}, 901, UNKNOWN, BEYOND, BEYOND),
        ({"log_start": 0, "high_watermark": 120}, 150, UNKNOWN, BEYOND, BEYOND),  # archived, but the broker disowns it
        ({"log_start": 900}, 600, UNKNOWN, UNKNOWN, HOLE),
        ({"log_start": -1}, 150, UNKNOWN, UNKNOWN, UNKNOWN),
        ({"manifest_known": False, "manifest": None}, 150, UNKNOWN, UNKNOWN, BEYOND),
        ({"manifest": None}, 150, UNKNOWN, UNKNOWN, BEYOND),  # nothing archived at all
        ({"manifest": HOLEY, "log_start": 700}, 600, UNKNOWN, UNKNOWN, HOLE),
    ],
)
def test_what_a_refusal_means(
    known: dict[str, object], offset: int, stale: Verdict, broker_fresh: Verdict, both_fresh: Verdict
) -> None:
    facts = replace(Facts(400, 900, archived(100, 500), True), **known)  # type: ignore[arg-type]  # cases above
    assert judge(facts, offset) is stale
    assert judge(replace(facts, broker_fresh=True), offset) is broker_fresh
    assert judge(replace(facts, broker_fresh=True, manifest_fresh=True), offset) is both_fresh


def test_a_request_with_an_epoch_may_be_refused_for_that_at_an_offset_the_leader_has() -> None:
    assert judge(Facts(400, 900, archived(100, 500), True, broker_fresh=True), 450, last_fetched_epoch=3) is BEYOND


@dataclass
class Batches:
    """Records in memory: batches of the given sizes, offsets 100, 101, …"""

    sizes: list[int]

    def take(self, limit: int, at_least_one: bool) -> ColdRecords | None:
        taken = 0
        for number, size in enumerate(self.sizes, 1):
            if taken + size > limit and not (number == 1 and at_least_one):
                break
            taken += size
        else:
            number += 1
        if taken == 0:
            return None
        return ColdRecords([memoryview(bytes(taken))], 100 + number - 2, [(7, 90)])


def answered(
    hot: int, cold: list[object], *, max_bytes: int = 1000, partition_max: int = 1000, isolation: int = 0
) -> FetchResponse:
    """An answer whose first partition has `hot` bytes from the broker and whose others get `cold` from the archive."""
    request = FetchRequest(17, -1, 500, 1, max_bytes, isolation, 0, -1, None, [], "")
    refused = [fetched(n, ErrorCode.OFFSET_OUT_OF_RANGE) for n in range(1, len(cold) + 1)]
    response = FetchResponse(17, 1, 0, 0, 0, [fetched(0, records=bytes(hot)), *refused], b"")
    about = tier(high_watermark=900, last_stable=800)
    questions = [Refused(n, TOPIC_ID, n, about, 100, partition_max) for n in range(1, len(cold) + 1)]
    fill(response, request, list(zip(questions, cold, strict=True)))  # type: ignore[arg-type]  # cases below
    return response


def sizes(response: FetchResponse) -> list[int]:
    return [len(p.records or b"") + sum(map(len, p.more)) for p in response.partitions]


@pytest.mark.parametrize(
    ("hot", "cold", "limits", "expected"),
    [
        (0, [Batches([300, 300])], {}, [0, 600]),
        (500, [Batches([300, 300])], {}, [500, 300]),
        (900, [Batches([300, 300])], {}, [900, 0]),
        (0, [Batches([300, 300])], {"partition_max": 400}, [0, 300]),
        (0, [Batches([300, 300])], {"partition_max": 10}, [0, 300]),  # the first batch of the answer, however large
        (0, [Batches([5000])], {}, [0, 5000]),
        (0, [Batches([5000]), Batches([300])], {}, [0, 5000, 0]),
        (0, [Batches([300]), Batches([5000])], {}, [0, 300, 0]),
        (0, [ErrorCode.NONE, Batches([5000])], {}, [0, 0, 5000]),  # an empty place does not use up that right
        (1, [Batches([5000])], {}, [1, 0]),
        (0, [Batches([300])], {"max_bytes": 0}, [0, 300]),
    ],
)
def test_limits_hold_over_both_tiers(hot: int, cold: list[object], limits: dict[str, int], expected: list[int]) -> None:
    assert sizes(answered(hot, cold, **limits)) == expected


def test_a_batch_above_every_limit_comes_if_it_stands_before_all_hot_records() -> None:
    request = FetchRequest(17, -1, 500, 1, 1000, 0, 0, -1, None, [], "")
    partitions = [fetched(0, ErrorCode.OFFSET_OUT_OF_RANGE), fetched(1, records=b"hot")]
    response = FetchResponse(17, 1, 0, 0, 0, partitions, b"")
    fill(response, request, [(Refused(0, TOPIC_ID, 0, tier(), 100, 10), Batches([5000]))])
    assert sizes(response) == [5000, 3]


def test_a_partition_filled_from_the_archive_looks_like_a_brokers() -> None:
    partition = answered(0, [Batches([300])], isolation=1).partitions[1]
    assert (partition.error, partition.high_watermark, partition.last_stable_offset) == (0, 900, 800)
    assert (partition.log_start, partition.preferred_replica, partition.aborted) == (100, -1, [(7, 90)])


def test_read_uncommitted_hears_of_no_aborted_transactions() -> None:
    assert answered(0, [Batches([300])]).partitions[1].aborted is None


def test_the_high_watermark_is_above_what_is_served_even_if_ours_is_old() -> None:
    request = FetchRequest(17, -1, 500, 1, 1000, 0, 0, -1, None, [], "")
    response = FetchResponse(17, 1, 0, 0, 0, [fetched(0, ErrorCode.OFFSET_OUT_OF_RANGE)], b"")
    fill(response, request, [(Refused(0, TOPIC_ID, 0, tier(), 100, 1000), Batches([5] * 3))])
    assert (response.partitions[0].high_watermark, response.partitions[0].last_stable_offset) == (103, 103)


def test_come_again_a_retriable_error_and_a_refusal_that_stands() -> None:
    response = answered(0, [ErrorCode.NONE, ErrorCode.KAFKA_STORAGE_ERROR, None])
    assert [p.error for p in response.partitions[1:]] == [0, 56, 1]
    assert [bytes(p.records or b"") for p in response.partitions[1:]] == [b"", b"", b""]


def test_hot_partitions_of_a_held_answer_show_the_archives_start_and_errors_are_left_alone() -> None:
    known = catalog(manifest=archived(100, 500), broker_start=400)
    response = FetchResponse(17, 1, 0, 0, 0, [fetched(0, log_start=400), fetched(0, 6, log_start=-1)], b"")
    show_log_starts(response, known)
    assert [p.log_start for p in response.partitions] == [100, -1]


def test_an_offset_not_known_to_be_archived_shows_no_bounds() -> None:
    """It may be any number: one more than the largest is none."""
    request = FetchRequest(17, -1, 500, 1, 1000, 0, 0, -1, None, [], "")
    response = FetchResponse(17, 1, 0, 0, 0, [fetched(0, ErrorCode.OFFSET_OUT_OF_RANGE)], b"")
    fill(response, request, [(Refused(0, TOPIC_ID, 0, tier(), (1 << 63) - 1, 1000), ErrorCode.NONE)])
    said = response.partitions[0]
    assert (said.error, said.high_watermark, said.last_stable_offset) == (0, -1, -1)


@pytest.mark.parametrize(("max_bytes", "aborted"), [(1001, []), (1010, None)])
def test_no_room_for_a_batch_looks_like_a_brokers_answer(max_bytes: int, aborted: list[object] | None) -> None:
    response = answered(1001, [Batches([300])], max_bytes=max_bytes, isolation=1)
    assert (sizes(response), response.partitions[1].aborted) == ([1001, 0], aborted)


def test_read_committed_hears_a_list_even_if_nothing_is_ready() -> None:
    assert answered(0, [ErrorCode.NONE], isolation=1).partitions[1].aborted == []


def test_archived_partitions_get_a_share_and_one_that_is_named_twice_counts_once() -> None:
    known = catalog(manifest=archived(100, 500), broker_start=400)
    hot, cold = FetchPartition(None, OTHER_ID, 0, -1, 5, -1, 100), FetchPartition(None, TOPIC_ID, 0, -1, 150, -1, 100)
    above = replace(cold, fetch_offset=450)
    for partitions, share in (([hot, cold], 500), ([hot, cold, above], 1000), ([cold], 1000), ([hot], 1000)):
        request = FetchRequest(17, -1, 500, 1, 1000, 0, 0, -1, None, partitions, "")
        assert reserve_for_cold(request, known) == share


def test_nothing_is_not_shared() -> None:
    known = catalog(manifest=archived(100, 500), broker_start=400)
    places = [FetchPartition(None, key, 0, -1, 150, -1, 100) for key in (OTHER_ID, TOPIC_ID)]
    for max_bytes in (0, -1):
        assert reserve_for_cold(FetchRequest(17, -1, 500, 1, max_bytes, 0, 0, -1, None, places, ""), known) == max_bytes
