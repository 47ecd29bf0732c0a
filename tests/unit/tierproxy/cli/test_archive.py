"""`tierproxy archive ls|verify|cat`, run as a person runs them, on archives in a directory."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.tierproxy.cli.archives import PID, TIME, Archive, abort_marker, batch
from tierproxy.archive.names import PartitionId, topic_id_text
from tierproxy.archive.rewound import rewound
from tierproxy.cli import main

GAP = {"start": 6, "end": 10, "at_ms": TIME + 60_000, "cause": "expired on the broker", "accepted_ms": None}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Offsets 0-5 in two segments, 6-9 lost, 10-11 in a third."""
    archive = Archive(tmp_path)
    archive.add(batch(0, [b"a", b"b"]), batch(2, [b"c"]))
    archive.add(batch(3, [b"d", None, b"f"], epoch=2, codec=1))
    archive.gap(6, 10).add(batch(10, [b"g", b"h\xff\n"], epoch=2))
    return archive.save()


def run(archive: Archive, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["archive", *arguments, "--config", str(archive.config)])


def run_json(archive: Archive, *arguments: str) -> Any:
    return json.loads(run(archive, *arguments, "--json").stdout)


def run_lines(archive: Archive, *arguments: str) -> list[Any]:
    return [json.loads(line) for line in run(archive, *arguments, "--json").stdout.splitlines()]


# ---- ls ------------------------------------------------------------------------------------------------------


def test_ls_counts_what_is_there(archive: Archive) -> None:
    (row,) = run_lines(archive, "ls")
    manifest = archive.manifest
    assert row == {
        "archive": "local",
        "topic": "flights",
        "topic_id": topic_id_text(PID.topic_id),
        "partition": 0,
        "start_offset": 0,
        "end_offset": 12,
        "segments": 3,
        "records": 8,
        "plain_bytes": manifest.sums.plain_size,
        "stored_bytes": manifest.sums.stored_size,
        "ratio": round(manifest.sums.plain_size / manifest.sums.stored_size, 2),
        "first_timestamp": TIME,
        "last_timestamp": TIME + 11,
        "gaps": [GAP],
        "quarantined": [],
    }


def test_ls_is_a_table_for_people(archive: Archive) -> None:
    result = run(archive, "ls")
    assert result.exit_code == 0
    head, row, total = (line for line in result.stdout.splitlines() if line.strip())
    assert head.split()[:3] == ["archive", "topic", "partition"]
    assert row.split()[:7] == ["local", "flights", "0", "0", "12", "8", "3"]
    assert "2023-11-14T22:13:20.000Z" in row
    assert "[6, 10) expired on the broker" in row
    assert total.startswith("total")


def test_ls_takes_patterns_and_says_when_nothing_matches(archive: Archive) -> None:
    assert [row["topic"] for row in run_lines(archive, "ls", "fl*")] == ["flights"]
    result = run(archive, "ls", "other*")
    assert result.exit_code == 1
    assert "nothing of other* is archived" in result.stderr


def test_ls_names_a_manifest_that_can_not_be_read(archive: Archive) -> None:
    (archive.folder / "manifest.json").write_text("{")
    result = run(archive, "ls")
    assert result.exit_code == 1
    assert "manifest.json" in result.stdout


def test_an_archive_that_is_not_configured_is_a_wrong_question(archive: Archive) -> None:
    result = run(archive, "ls", "--archive", "other")
    assert result.exit_code == 2
    assert "'other' is not in the configuration; known: local" in result.stderr


# ---- cat -----------------------------------------------------------------------------------------------------


def offsets(archive: Archive, *arguments: str) -> list[int]:
    lines = run(archive, "cat", "flights", *arguments, "--json").stdout.splitlines()
    return [json.loads(line)["offset"] for line in lines]


def test_cat_prints_records_as_json_lines(archive: Archive) -> None:
    lines = [json.loads(line) for line in run(archive, "cat", "flights", "--json").stdout.splitlines()]
    assert [line["offset"] for line in lines] == [0, 1, 2, 3, 4, 5, 10, 11]
    assert lines[0] == {
        "topic": "flights",
        "partition": 0,
        "offset": 0,
        "timestamp": TIME,
        "key": "k0",
        "value": "a",
        "headers": [{"name": "h", "value": "\x00"}],
    }
    assert lines[4]["value"] is None
    assert lines[7]["value_base64"] == "aP8K"
    assert "value" not in lines[7]


def test_cat_prints_a_line_a_record_for_people(archive: Archive) -> None:
    result = run(archive, "cat", "flights", "--offset", "11")
    assert result.stdout == "0:11\t2023-11-14T22:13:20.011Z\tk11\th\\xff\\n\n"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--offset", "1", "--count", "3"], [1, 2, 3]),
        (["--offset", "4"], [4, 5, 10, 11]),
        (["--offset", "7"], [10, 11]),
        (["--offset", "12"], []),
        (["--count", "0"], []),
        (["--partition", "0", "--offset", "11"], [11]),
    ],
)
def test_cat_begins_and_ends_where_it_is_told(archive: Archive, arguments: list[str], shown: list[int]) -> None:
    assert offsets(archive, *arguments) == shown


def test_cat_of_what_is_not_there(archive: Archive) -> None:
    result = run(archive, "cat", "flights", "--partition", "3")
    assert result.exit_code == 1
    assert "nothing of flights, partition 3, is archived" in result.stderr


def test_cat_leaves_out_aborted_transactions_unless_told_otherwise(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.add(
        batch(0, [b"aborted"], producer=7),
        batch(1, [b"other"], producer=8),
        abort_marker(2, 7),
        batch(3, [b"committed"], producer=7),
        aborted=[(7, 0)],
    )
    archive.add(batch(4, [b"open beyond the segment"], producer=9), batch(5, [b"plain"]), aborted=[(9, 4)])
    archive.save()
    assert offsets(archive) == [1, 3, 5]
    assert offsets(archive, "--offset", "3") == [3, 5]
    assert offsets(archive, "--isolation", "read_uncommitted") == [0, 1, 3, 4, 5]


def test_a_recreated_topic_is_two_and_cat_shows_the_newer(tmp_path: Path) -> None:
    Archive(tmp_path, PartitionId("flights", b"\xff" * 16, 0)).add(batch(0, [b"old"])).save()
    newer = Archive(tmp_path)
    newer.add(batch(0, [b"new"]))
    entry = replace(newer.manifest.segments[0], created_ms=TIME * 2)
    newer.save(replace(newer.manifest, segments=(entry,)))
    result = run(newer, "cat", "flights")
    assert result.stdout.split("\t")[3] == "new"
    assert topic_id_text(PID.topic_id) in result.stderr
    shown = run(newer, "ls").stdout
    assert f"({topic_id_text(PID.topic_id)})" in shown
    assert len(run_lines(newer, "ls")) == 2


# ---- verify --------------------------------------------------------------------------------------------------


def problems(archive: Archive, *arguments: str) -> list[str]:
    result = run(archive, "verify", *arguments, "--json")
    answer = json.loads(result.stdout)
    found = [each["problem"] for partition in answer["partitions"] for each in partition["problems"]]
    assert (result.exit_code, answer["ok"]) == ((1, False) if found else (0, True))
    return found


def test_verify_is_content_with_a_good_archive(archive: Archive) -> None:
    assert problems(archive) == []
    (partition,) = run_json(archive, "verify")["partitions"]
    assert (partition["segments"], partition["records"], partition["gaps"]) == (3, 8, [[6, 10]])
    assert partition["stored_bytes"] == sum(archive.segment_file(n).stat().st_size for n in range(3))
    result = run(archive, "verify")
    assert result.exit_code == 0
    assert result.stdout.startswith("local flights-0: ok, 3 segments, 8 records")


def test_verify_with_transactions_and_every_codec(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.add(*[batch(offset, [b"x" * 100] * 3, codec=offset // 3) for offset in range(0, 15, 3)], chunk_bytes=600)
    archive.add(batch(15, [b"a"], producer=1), abort_marker(16, 1), aborted=[(1, 15)])
    assert problems(archive.save()) == []


def test_verify_finds_every_single_changed_byte(archive: Archive) -> None:
    """The promise of the command: no byte of a segment can change without being told."""
    file = archive.segment_file(0)
    good = file.read_bytes()
    for at in range(0, len(good), 7):
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        assert problems(archive), f"byte {at} of {len(good)}"
    file.write_bytes(good)
    assert problems(archive) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda file: file.unlink(), "is not there"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "bytes, not"),
        (lambda file: file.write_bytes(file.read_bytes() + b"\x00"), "bytes, not"),
        (lambda file: file.write_bytes(bytes(file.stat().st_size)), "no trailer"),
    ],
)
def test_verify_names_objects_that_are_not_what_was_written(
    archive: Archive, change: Callable[[Path], None], told: str
) -> None:
    change(archive.segment_file(1))
    (problem,) = problems(archive)
    assert told in problem


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("records", 99, "records: the manifest says 99, the segment 3"),
        ("plain_size", 1, "plain bytes: the manifest says 1, the segment"),
        ("min_timestamp", 1, "lowest timestamp: the manifest says 1, the segment"),
        ("max_timestamp", 1, "highest timestamp: the manifest says 1, the segment"),
        ("index_size", 100, "the index has"),
        ("sha256", "0" * 64, "SHA-256 of the object is not what the manifest says"),
    ],
)
def test_verify_compares_the_manifest(archive: Archive, field: str, value: object, told: str) -> None:
    changed: dict[str, Any] = {field: value}
    entry = replace(archive.manifest.segments[0], **changed)
    archive.save(replace(archive.manifest, segments=(entry, *archive.manifest.segments[1:])))
    (problem,) = problems(archive)
    assert problem.startswith(told)


def test_verify_compares_leader_epochs(archive: Archive) -> None:
    archive.save(replace(archive.manifest, epochs=((0, 0), (1, 3))))
    assert "leader epoch at offset 3: the manifest says 1, not 2" in problems(archive)


def test_verify_finds_a_batch_whose_crc_was_wrong_from_the_start(tmp_path: Path) -> None:
    damaged = bytearray(batch(1, [b"payload"]))
    damaged[-3] ^= 1
    archive = Archive(tmp_path).add(batch(0, [b"a"]), bytes(damaged)).save()
    assert problems(archive) == ["batch at offset 1: its CRC-32C is wrong"]


def test_verify_finds_segments_of_somebody_else(tmp_path: Path) -> None:
    one = Archive(tmp_path).add(batch(0, [b"a"])).save()
    two = Archive(tmp_path, replace(PID, partition=1)).add(batch(0, [b"a"])).save()
    two.segment_file(0).write_bytes(one.segment_file(0).read_bytes())
    (problem,) = problems(two, "--partition", "1")
    assert problem.endswith("holds another segment: of flights-0, offsets 0 to 0")


def test_verify_finds_holes_inside_and_between_segments(tmp_path: Path) -> None:
    archive = Archive(tmp_path).add(batch(0, [b"a"]), batch(4, [b"b"])).add(batch(7, [b"c"]), after=5).save()
    found = problems(archive)
    assert [problem.split(" are in no batch")[0] for problem in found] == ["offsets 1 to 3", "offsets 5 to 6"]
    assert problems(archive, "--allow-holes") == []
    (partition,) = run_json(archive, "verify", "--allow-holes")["partitions"]
    assert partition["missing"] == [[1, 4], [5, 7]]


def test_verify_takes_a_batch_that_begins_in_a_gap_for_what_it_is(tmp_path: Path) -> None:
    """The broker's log may start in the middle of a batch, which is archived whole."""
    archive = Archive(tmp_path).add(batch(0, [b"a"])).gap(1, 5).add(batch(4, [b"b", b"c"]), after=5).save()
    assert problems(archive) == []


def test_verify_goes_on_after_a_problem(archive: Archive) -> None:
    archive.segment_file(0).unlink()
    archive.segment_file(2).unlink()
    assert len(problems(archive)) == 2
    result = run(archive, "verify")
    assert result.exit_code == 1
    assert "flights-0: 2 PROBLEMS" in result.stdout
    assert "1 with problems" in result.stdout


def test_verify_of_nothing_asked_for_is_wrong(archive: Archive) -> None:
    assert run(archive, "verify", "other").exit_code == 1


def test_cat_of_garbage_is_a_sentence(tmp_path: Path) -> None:
    damaged = bytearray(batch(0, [b"payload"]))
    damaged[61] = 0x7F  # the first record's length
    result = run(Archive(tmp_path).add(bytes(damaged)).save(), "cat", "flights")
    assert result.exit_code == 1
    assert result.stderr.startswith("tierproxy: what is archived, or what a broker said, is not Kafka's: ")


# ---- accept-gap ----------------------------------------------------------------------------------------------


def test_a_gap_is_accepted_once(archive: Archive) -> None:
    result = run(archive, "accept-gap", "flights", "--partition", "0")
    assert (result.exit_code, result.stdout) == (
        0,
        "local flights-0: accepted that 6 to 9 are lost: expired on the broker\n",
    )
    (row,) = run_lines(archive, "ls")
    assert row["gaps"][0]["accepted_ms"] > TIME
    assert "no gap waits" in run(archive, "accept-gap", "flights").stdout


def test_what_was_accepted_is_said_to_scripts(archive: Archive) -> None:
    (row,) = run_lines(archive, "accept-gap", "flights")
    assert (row["topic"], row["partition"], row["accepted"]) == ("flights", 0, [GAP])
    (row,) = run_lines(archive, "accept-gap", "flights")
    assert row["accepted"] == []


def test_what_is_quarantined_is_listed(archive: Archive) -> None:
    names = [entry.key_name for entry in archive.manifest.segments]
    last = archive.segment_file(2)
    archive.manifest = rewound(archive.manifest, 3, 0, TIME, "history was rewritten")
    archive.save()
    (row,) = run_lines(archive, "ls")
    (quarantined,) = row["quarantined"]
    assert (quarantined["start"], quarantined["end"], quarantined["segments"]) == (3, 12, names[1:])
    assert "quarantined [3, 12) history was rewritten" in run(archive, "ls").stdout
    assert run_json(archive, "verify")["ok"]
    last.unlink()
    (partition,) = run_json(archive, "verify")["partitions"]
    (problem,) = partition["problems"]
    assert problem["segment"] == names[2]
    assert problem["problem"].startswith("quarantined, and gone")
