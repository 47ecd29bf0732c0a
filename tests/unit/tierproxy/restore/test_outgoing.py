"""Archived batches as they will be sent: what is left out, what stays as it was, what is written anew."""

from pathlib import Path

import pytest

from protocol.batches import read_batch_header
from protocol.records import decode_records
from tests.unit.batch_maker import make_batch
from tests.unit.tierproxy.cli.archives import TIME, Archive, abort_marker, batch
from tierproxy.archive.library import Library
from tierproxy.restore import outgoing as module
from tierproxy.restore.outgoing import Outgoing, Part, outgoing

F, G, H = b"f" * 300, b"g" * 300, b"h" * 300


def prepared(archive: Archive, part: Part) -> list[Outgoing]:
    async def run(library: Library) -> list[Outgoing]:
        return [each async for batches in outgoing(library, archive.manifest, part) for each in batches]

    return archive.do(run)


def values(sent: list[Outgoing]) -> list[list[bytes | None]]:
    return [[record.value for record in decode_records(bytes(each.batch))] for each in sent]


def spans(sent: list[Outgoing]) -> list[tuple[int, int, int]]:
    return [(each.first, each.next_offset, each.count) for each in sent]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """0-1 plain, 2 aborted, 3 its marker, 4 committed, 6-8 plain (5 is compacted away); then 9-11, compressed."""
    archive = Archive(tmp_path)
    archive.add(
        batch(0, [b"a", b"b"]),
        batch(2, [b"aborted"], producer=7),
        abort_marker(3, 7),
        batch(4, [b"committed"], producer=7),
        batch(6, [b"c", b"d", b"e"]),
        aborted=[(7, 2)],
        chunk_bytes=200,
    )
    archive.add(batch(9, [F, G, H], codec=4))
    return archive.save()


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch is small enough to be put together with others."""
    monkeypatch.setattr(module, "SMALL_BYTES", 0)


@pytest.mark.usefixtures("one_by_one")
def test_data_alone_is_sent_and_as_it_was(archive: Archive) -> None:
    sent = prepared(archive, Part(0, 12))
    assert values(sent) == [[b"a", b"b"], [b"committed"], [b"c", b"d", b"e"], [F, G, H]]
    assert spans(sent) == [(0, 2, 2), (4, 5, 1), (6, 9, 3), (9, 12, 3)]
    assert sent[0].batch[61:] == batch(0, [b"a", b"b"])[61:]
    assert sent[3].batch[61:] == batch(9, [F, G, H], codec=4)[61:]
    for each in sent:
        header = read_batch_header(each.batch)
        assert header is not None
        assert (header.is_transactional, header.producer_id) == (False, -1)


def test_small_batches_become_one(archive: Archive) -> None:
    sent = prepared(archive, Part(0, 12))
    assert values(sent) == [[b"a", b"b", b"committed", b"c", b"d", b"e"], [F, G, H]]  # those with another codec apart
    assert spans(sent) == [(0, 9, 6), (9, 12, 3)]
    assert sent[1].batch[61:] == batch(9, [F, G, H], codec=4)[61:], "alone, it stays as it was"
    assert [r.timestamp for r in decode_records(bytes(sent[0].batch))] == [TIME + n for n in (0, 1, 4, 6, 7, 8)]


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize(
    ("first", "stop", "expected"),
    [
        (1, 7, [[b"b"], [b"committed"], [b"c"]]),
        (10, 11, [[G]]),
        (2, 4, []),
        (5, 6, []),
    ],
)
def test_at_the_borders_of_a_range_batches_are_cut(
    archive: Archive, first: int, stop: int, expected: list[list[bytes]]
) -> None:
    assert values(prepared(archive, Part(first, stop))) == expected


@pytest.mark.parametrize("small", [0, 150, 8192])
@pytest.mark.parametrize("anew", [1, 12, 40, 700])
@pytest.mark.parametrize("header", [None, "was"])
def test_who_goes_on_anywhere_gets_the_same_batches(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, small: int, anew: int, header: str | None
) -> None:
    monkeypatch.setattr(module, "SMALL_BYTES", small)
    monkeypatch.setattr(module, "ANEW_BYTES", anew)
    everything = prepared(archive, Part(0, 12, header))
    sent = [value for each in values(everything) for value in each]
    assert sent == [b"a", b"b", b"committed", b"c", b"d", b"e", F, G, H]
    for number, each in enumerate(everything):
        rest = prepared(archive, Part(each.next_offset, 12, header))
        assert spans(rest) == spans(everything[number + 1 :])
        assert values(rest) == values(everything[number + 1 :])


def test_old_offsets_go_into_a_header(archive: Archive) -> None:
    sent = prepared(archive, Part(0, 12, "was"))
    records = [record for each in sent for record in decode_records(bytes(each.batch))]
    assert [dict(record.headers)["was"] for record in records] == [b"%d" % n for n in (0, 1, 4, 6, 7, 8, 9, 10, 11)]
    header = read_batch_header(sent[-1].batch)
    assert header is not None
    assert header.codec == 4


def test_what_compaction_thinned_out_is_closed_up(tmp_path: Path) -> None:
    thin = make_batch(0, [(1, TIME, b"k", b"one", ()), (5, TIME + 5, b"k", b"five", ())], last_offset_delta=7)
    archive = Archive(tmp_path).add(thin).save()
    (sent,) = prepared(archive, Part(0, 8))
    header = read_batch_header(sent.batch)
    assert header is not None
    assert (header.record_count, header.last_offset_delta, sent.first, sent.next_offset) == (2, 1, 1, 6)
    assert [record.timestamp for record in decode_records(bytes(sent.batch))] == [TIME, TIME + 5]


def test_the_brokers_time_becomes_the_records(tmp_path: Path) -> None:
    stamped = make_batch(0, [(0, 1, b"k", b"v", ()), (1, 2, b"k", b"w", ())], append_time=TIME)
    archive = Archive(tmp_path).add(stamped).save()
    (sent,) = prepared(archive, Part(0, 2))
    header = read_batch_header(sent.batch)
    assert header is not None
    assert not header.is_log_append_time
    assert [record.timestamp for record in decode_records(bytes(sent.batch))] == [TIME, TIME]
