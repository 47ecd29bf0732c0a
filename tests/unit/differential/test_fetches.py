"""The comparison of fetch answers fails on planted differences, and on nothing that ALLOWED.md allows."""

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol.fetch_response import FetchedPartition, FetchResponse, encode_fetch_response
from protocol.fetch_stream import UNKNOWN_TAG
from protocol.wire import put_compact_string, put_uvarint
from tests.differential.asks import FetchAsk, FetchPlace
from tests.differential.fetches import compare_fetch
from tests.differential.findings import Allowed, Findings
from tests.differential.wire import Reply
from tests.differential.world import ARC, REF, Side
from tests.unit.differential.small_world import (
    ABORTED,
    BATCHES,
    COMMITTED,
    SEAM,
    ask,
    blob,
    part,
    reply,
    world,
)

Change = Callable[[FetchedPartition], FetchedPartition]
OUT_OF_RANGE: dict[str, Any] = {
    "error": 1,
    "high_watermark": -1,
    "last_stable_offset": -1,
    "log_start": -1,
    "aborted": None,
}


def _found(asked: FetchAsk, ref: Reply, arc: Reply) -> Findings:
    return compare_fetch(asked, ref, arc, world())


def test_equal_answers_are_equal() -> None:
    found = _found(ask(), reply(REF, part(blob(0, 7))), reply(ARC, part(blob(0, 7))))
    assert found == Findings()


def _changed(**fields: Any) -> Change:
    return lambda said: replace(said, **fields)


def _with_records(records: bytes) -> Change:
    return _changed(records=memoryview(records))


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


PLANTED: dict[str, tuple[Change, str]] = {
    "an error": (_changed(error=6), "error: the broker said 0, tierproxy 6"),
    "an error that comes and goes": (_changed(error=56, records=memoryview(b"")), "tierproxy 56"),
    "a later high watermark": (_changed(high_watermark=99), "high_watermark"),
    "another last stable offset": (_changed(last_stable_offset=99), "last_stable"),
    "the broker's log start": (_changed(log_start=SEAM), "log start"),
    "a preferred replica": (_changed(preferred_replica=1), "preferred"),
    "null for the aborted transactions": (_changed(aborted=None), "null aborted"),
    "no aborted transaction": (_changed(aborted=[]), "aborted transactions up to"),
    "another aborted transaction": (_changed(aborted=[(ABORTED, 5), (COMMITTED, 16)]), "no reader meets"),
    "another partition": (_changed(index=1), "partitions"),
    "another topic": (_changed(topic="b"), "partitions"),
    "null records": (_changed(records=None), "null records"),
    "another byte in a record": (_with_records(_flipped(blob(0, 7), 70)), "came another batch"),
    "another leader epoch": (_with_records(_flipped(blob(0, 7), 15)), "came another batch"),
    "a batch left out": (_with_records(blob(0, 2) + blob(3, 7)), "in place of the one at 10"),
    "a batch twice": (_with_records(blob(0, 2) + blob(1, 7)), "in place of the one at 10"),
    "the first batch left out": (_with_records(blob(1, 7)), "in place of the one at 0"),
    "batches out of order": (_with_records(blob(1, 2) + blob(0, 1)), "in place of the one at 0"),
    "a part of a batch": (_with_records(blob(0, 7)[:-5]), "a partial batch out of the archive"),
    "rubbish behind": (_with_records(blob(0, 7) + bytes(61)), "records that can't be read"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_differences_are_found(planted: str) -> None:
    change, told = PLANTED[planted]
    found = _found(ask(), reply(REF, part(blob(0, 7))), reply(ARC, change(part(blob(0, 7)))))
    assert any(told in line for line in found.differences), found


def test_a_stale_aborted_transaction_is_found() -> None:
    """Its marker lies before the fetch offset: every client would drop records for it."""
    said = part(blob(4, 7), aborted=[])
    found = _found(ask(16), reply(REF, said), reply(ARC, replace(said, aborted=[(ABORTED, 5)])))
    assert any("no reader meets there" in line for line in found.differences)


def test_a_transaction_listed_later_than_it_began_is_found() -> None:
    found = _found(ask(), reply(REF, part(blob(0, 7))), reply(ARC, part(blob(0, 7), aborted=[(ABORTED, 6)])))
    assert any("aborted transactions up to" in line for line in found.differences)


def test_aborted_transactions_beyond_the_records_may_be_left_out() -> None:
    found = _found(ask(), reply(REF, part(blob(0, 1))), reply(ARC, part(blob(0, 1), aborted=[])))
    assert found.differences == []
    assert found.allowed[Allowed.ABORTED_BEYOND] == 1


def test_the_archive_may_end_elsewhere() -> None:
    for records in (blob(0, 2), blob(0, 7)):
        found = _found(ask(), reply(REF, part(blob(0, 4))), reply(ARC, part(records)))
        assert found.differences == []
        assert found.allowed[Allowed.OTHER_END] == 1


def test_the_broker_may_end_in_a_partial_batch() -> None:
    found = _found(ask(), reply(REF, part(blob(0, 3)[:-1])), reply(ARC, part(blob(0, 2))))
    assert found.differences == []
    assert found.allowed[Allowed.WHOLE_BATCHES] == 1


def test_where_nothing_is_archived_the_end_is_the_same() -> None:
    asked = ask(16)
    found = _found(asked, reply(REF, part(blob(4, 7), aborted=[])), reply(ARC, part(blob(4, 6), aborted=[])))
    assert "nothing here is archived only" in found.differences[0]
    found = _found(asked, reply(REF, part(blob(4, 7), aborted=[])), reply(ARC, part(b"", aborted=[])))
    assert "no records through tierproxy" in found.differences[0]


def test_what_is_not_there_yet_may_come() -> None:
    found = _found(ask(), reply(REF, part(blob(0, 7))), reply(ARC, part(b"")))
    assert found.differences == []
    assert [why for why, _ in found.again] == [Allowed.NOT_YET]


def test_bounds_may_come_later_for_what_is_archived_only() -> None:
    said = part(blob(0, 7))
    for changes, why in (
        ({"high_watermark": 20}, Allowed.BOUNDS_LATER),
        ({"last_stable_offset": 20}, Allowed.BOUNDS_LATER),
        ({"log_start": -1}, Allowed.START_LATER),
    ):
        found = _found(ask(), reply(REF, said), reply(ARC, _changed(**changes)(said)))
        assert (found.differences, [reason for reason, _ in found.again]) == ([], [why])
    hot = part(blob(4, 7), aborted=[])
    found = _found(ask(16), reply(REF, hot), reply(ARC, replace(hot, high_watermark=20)))
    assert "high_watermark" in found.differences[0]


def test_out_of_range_may_come_later_but_must_come() -> None:
    refused = part(b"", **OUT_OF_RANGE)
    empty = part(b"", high_watermark=-1, last_stable_offset=-1, log_start=-1, aborted=None)
    found = _found(ask(99), reply(REF, refused), reply(ARC, empty))
    assert [why for why, _ in found.again] == [Allowed.OUT_OF_RANGE_LATER]
    assert _found(ask(99), reply(REF, refused), reply(ARC, refused)) == Findings()


def test_a_false_out_of_range_is_found() -> None:
    found = _found(ask(), reply(REF, part(blob(0, 7))), reply(ARC, part(b"", **OUT_OF_RANGE)))
    assert "tierproxy 1" in found.differences[0]


def _two(max_bytes: int, limit: int = 1 << 20) -> FetchAsk:
    return ask(max_bytes=max_bytes, places=(FetchPlace("a", 0, 0, limit), FetchPlace("b", 0, 0, 1 << 20)))


def test_max_bytes_may_leave_nothing_for_another_partition() -> None:
    first, second = len(blob(0, 1)), BATCHES[0].size
    asked = _two(first + second - 1)
    a, b = part(blob(0, 1)), part(b"", topic="b")
    found = _found(asked, reply(REF, a, b), reply(ARC, part(b""), part(blob(0, 1), topic="b")))
    assert found.differences == []
    assert found.allowed[Allowed.BUDGET] == 2


def test_more_than_max_bytes_is_found() -> None:
    asked = _two(len(blob(0, 1)))
    both = part(blob(0, 1)), part(blob(0, 2), topic="b")
    found = _found(asked, reply(REF, *both), reply(ARC, *both))
    assert "were asked for" in found.differences[0]
    found = _found(ask(max_bytes=10), reply(REF, part(blob(0, 1))), reply(ARC, part(blob(0, 2))))
    assert "were asked for" in found.differences[0]


def test_an_archived_batch_before_all_hot_ones_may_be_one_more() -> None:
    one, other = part(blob(0, 1)), part(blob(0, 1), topic="b")
    asked = _two(len(blob(0, 1)))
    found = _found(asked, reply(REF, one, part(b"", topic="b")), reply(ARC, one, other))
    assert (found.differences, found.allowed[Allowed.TWO_FIRSTS]) == ([], 1)
    asked = replace(asked, places=asked.places[::-1])
    found = _found(asked, reply(REF, other, part(b"")), reply(ARC, other, one))
    assert "were asked for" in found.differences[0]


def test_more_than_a_partitions_max_bytes_is_found() -> None:
    asked = ask(places=(FetchPlace("a", 0, 0, 10),))
    assert _found(asked, reply(REF, part(blob(0, 1))), reply(ARC, part(blob(0, 1)))) == Findings()
    found = _found(asked, reply(REF, part(blob(0, 1))), reply(ARC, part(blob(0, 2))))
    assert "more than the partition's max_bytes" in found.differences[0]


def test_partitions_in_another_order_are_found() -> None:
    asked = _two(1 << 20)
    both = [part(blob(0, 7)), part(blob(0, 7), topic="b")]
    found = _found(asked, reply(REF, *both), reply(ARC, *reversed(both)))
    assert found.differences[0].startswith("partitions")


@pytest.mark.parametrize(("nodes", "replica", "allowed"), [(1, -1, False), (300, -1, True), (1, 7, True)])
def test_addresses_may_be_left_out_of_large_answers_and_for_replicas(nodes: int, replica: int, allowed: bool) -> None:
    """`nodes` brokers are named, as the last thing in the answer."""
    here = world()

    def told(side: Side, tag: int, data: bytes) -> Reply:
        moved = replace(part(b"", **{**OUT_OF_RANGE, "error": 6}), topic=None, topic_id=side.ids["a"])
        tags = b"\x01" + bytes((tag,)) + put_uvarint(len(data)) + data
        return Reply(b"".join(encode_fetch_response(FetchResponse(16, 7, 0, 0, 0, [moved], tags))), 0.0)

    node = struct.pack(">i", 1) + put_compact_string("kafka-1") + struct.pack(">i", 9092) + b"\x00\x00"
    endpoints = put_uvarint(nodes + 1) + node * nodes
    ref, arc = told(here.ref, 0, endpoints), told(here.arc, UNKNOWN_TAG, bytes(len(endpoints)))
    found = compare_fetch(ask(version=16, replica=replica), ref, arc, here)
    assert (found.allowed, bool(found.differences)) == (({Allowed.NO_ADDRESS: 1}, False) if allowed else ({}, True))


def test_a_session_may_be_granted_by_the_broker_only() -> None:
    said = part(blob(0, 7))
    found = _found(ask(), reply(REF, said, session=5), reply(ARC, said))
    assert (found.differences, found.allowed[Allowed.SESSION]) == ([], 1)
    assert _found(ask(), reply(REF, said), reply(ARC, said, session=5)).differences


@pytest.mark.parametrize(("session", "allowed"), [((0, 0), True), ((0, -1), False)])
def test_the_zero_id_may_fail_with_the_session_that_it_opens(session: tuple[int, int], allowed: bool) -> None:
    asked = ask(session=session, places=(FetchPlace("?zero", 0, 0, 1 << 20),))
    found = _found(asked, reply(REF, error=-1), reply(ARC))
    assert (found.allowed, bool(found.differences)) == (({Allowed.ZERO_ID: 1}, False) if allowed else ({}, True))


@pytest.mark.parametrize("error", [76, 6])
def test_a_refused_compression_may_use_up_the_brokers_limits(error: int) -> None:
    asked = ask(max_bytes=100, places=(FetchPlace("b", 0, 0, 1 << 20), FetchPlace("a", 0, 0, 1 << 20)))
    refused = part(b"", "b", **{**OUT_OF_RANGE, "error": error})
    ref, arc = reply(REF, refused, part(b"")), reply(ARC, refused, part(blob(0, 1)))
    found = compare_fetch(asked, ref, arc, replace(world(), zstd_refused=True))
    assert bool(found.differences) == (error != 76), found
    assert (Allowed.ZSTD in found.allowed) == (error == 76)


def test_another_error_of_the_whole_answer_is_found() -> None:
    found = _found(ask(), reply(REF, error=70), reply(ARC, error=71))
    assert found.differences == ["error: the broker said 70, tierproxy 71"]


def test_a_closed_connection_is_found() -> None:
    said = reply(REF, part(blob(0, 7)))
    assert _found(ask(), said, Reply(None, 0)).differences
    assert _found(ask(), Reply(None, 0), Reply(None, 0)) == Findings()
    assert _found(ask(version=3), said, Reply(None, 0)).allowed[Allowed.OLD_FETCH] == 1


def test_bytes_left_over_are_found() -> None:
    said = part(blob(0, 7))
    arc = reply(ARC, said)
    assert arc.payload is not None
    found = _found(ask(), reply(REF, said), Reply(arc.payload + b"\x00", 0))
    assert "isn't what kafka-python makes of it" in found.differences[0]


def test_an_empty_answer_too_early_is_found() -> None:
    """A client that gets it asks again at once, and again."""
    asked, nothing = ask(31, max_wait_ms=500), part(b"", aborted=[])
    found = _found(asked, reply(REF, nothing, seconds=0.5), reply(ARC, nothing, seconds=0.01))
    assert "the broker waited" in found.differences[0]
    assert _found(asked, reply(REF, nothing, seconds=0.5), reply(ARC, nothing, seconds=0.49)) == Findings()


def test_the_last_fetched_epoch_is_not_held_against_archived_records() -> None:
    def asked(offset: int) -> FetchAsk:
        return ask(offset, places=(FetchPlace("a", 0, offset, 1 << 20, last_epoch=9),))

    refused = part(b"", **OUT_OF_RANGE)
    found = _found(asked(0), reply(REF, refused), reply(ARC, part(blob(0, 7))))
    assert (found.differences, found.allowed[Allowed.LAST_EPOCH]) == ([], 1)
    found = _found(asked(0), reply(REF, refused), reply(ARC, part(blob(1, 7))))
    assert "in place of the one at 0" in found.differences[0]
    found = _found(asked(16), reply(REF, refused), reply(ARC, part(blob(4, 7), aborted=[])))
    assert "error" in found.differences[0]
