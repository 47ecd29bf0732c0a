"""`tierproxy archive export`, run as a person runs it, on archives in a directory."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from protocol.batches import walk
from tests.unit.tierproxy.cli.archives import TIME, Archive, abort_marker, batch
from tierproxy.cli import main

BATCHES = [
    batch(0, [b"a", b"b"]),
    batch(2, [b"c"]),
    batch(3, [b"d", None, b"f"], epoch=2, codec=1),
    batch(10, [b"g", b"h\xff\n"], epoch=2),
]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Offsets 0-5 in two segments, 6-9 lost, 10-11 in a third."""
    archive = Archive(tmp_path)
    archive.add(*BATCHES[:2]).add(BATCHES[2]).gap(6, 10).add(BATCHES[3])
    return archive.save()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(archive: Archive, out: Path, *arguments: str) -> Result:
    command = ["archive", "export", "flights", "--output", str(out), *arguments, "--config", str(archive.config)]
    return CliRunner().invoke(main, command)


def summary(archive: Archive, out: Path, *arguments: str) -> dict[str, Any]:
    result = run(archive, out, *arguments, "--json")
    assert result.exit_code == 0, result.output
    (partition,) = json.loads(result.stdout)["partitions"]
    return {**partition, **{key: [Path(f).name for f in partition[key]] for key in ("written", "already_there")}}


def logs(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((out / "flights-0").iterdir())}


def test_log_files_are_the_segments_batches_byte_for_byte(archive: Archive, out: Path) -> None:
    assert run(archive, out).stdout == "flights-0: offsets 0 to 12, 3 files\n"
    assert logs(out) == {
        f"{0:020}.log": BATCHES[0] + BATCHES[1],
        f"{3:020}.log": BATCHES[2],
        f"{10:020}.log": BATCHES[3],
    }
    assert sorted(file.name for file in out.iterdir()) == ["flights-0", "flights.export.json"]


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["--from", "2"], {2: BATCHES[1], 3: BATCHES[2], 10: BATCHES[3]}),
        (["--from", "1", "--to", "2"], {0: BATCHES[0]}),
        (["--from", "4", "--to", "7"], {3: BATCHES[2]}),
        (["--to", "4"], {0: BATCHES[0] + BATCHES[1], 3: BATCHES[2]}),
        (["--from", "2023-11-14T22:13:20.002Z", "--to", "2023-11-14 22:13:20.003"], {2: BATCHES[1]}),
        (["--from", "7", "--to", "9"], {}),
        (["--from", "99"], {}),
    ],
)
def test_of_a_range_those_whole_batches_that_hold_a_record_of_it(
    archive: Archive, out: Path, arguments: list[str], files: dict[int, bytes]
) -> None:
    assert run(archive, out, *arguments).exit_code == 0
    assert (logs(out) if files else {}) == {f"{offset:020}.log": data for offset, data in files.items()}


def test_chunks_with_several_batches_are_cut_between_them(tmp_path: Path, out: Path) -> None:
    archive = Archive(tmp_path)
    archive.add(*(batch(offset, [b"x" * 50] * 2) for offset in range(0, 20, 2)), chunk_bytes=500)
    archive.save()
    assert run(archive, out, "--from", "5", "--to", "15").exit_code == 0
    ((name, data),) = logs(out).items()
    assert name == f"{4:020}.log"
    assert [header.base_offset for header, _ in walk(memoryview(data))] == [4, 6, 8, 10, 12, 14]


def test_what_is_finished_is_not_written_again_and_what_is_not_is(archive: Archive, out: Path) -> None:
    whole = run(archive, out)
    assert whole.exit_code == 0
    first, second, third = ((out / "flights-0") / f"{offset:020}.log" for offset in (0, 3, 10))
    before = first.stat().st_ino
    second.unlink()
    third.with_name(f".{third.name}.part").write_bytes(third.read_bytes()[:5])  # as kill -9 leaves it
    third.unlink()
    found = summary(archive, out)
    assert found["already_there"] == [first.name]
    assert found["written"] == [second.name, third.name]
    assert first.stat().st_ino == before
    assert logs(out)[third.name] == BATCHES[3]


def test_an_export_is_of_the_moment_it_began(archive: Archive, out: Path) -> None:
    assert summary(archive, out)["to"] == 12
    archive.add(batch(12, [b"later"], epoch=2)).save()
    found = summary(archive, out)
    assert (found["to"], found["written"], len(found["already_there"])) == (12, [], 3)


def test_a_directory_with_another_export_is_refused(archive: Archive, out: Path) -> None:
    assert run(archive, out, "--from", "2").exit_code == 0
    result = run(archive, out, "--from", "1")
    assert result.exit_code == 1
    assert "holds another export of flights: its asked is ['2', None, [0]], not ['1', None, [0]]" in result.stderr
    assert run(archive, out, "--format", "jsonl").exit_code == 1


def test_a_file_of_somebody_else_is_refused(archive: Archive, out: Path) -> None:
    (out / "flights-0").mkdir(parents=True)
    (out / "flights-0" / f"{1:020}.log").write_bytes(b"")
    result = run(archive, out)
    assert result.exit_code == 1
    assert "is not of this export" in result.stderr


def test_json_lines_are_those_of_cat(archive: Archive, out: Path) -> None:
    assert run(archive, out, "--format", "jsonl").exit_code == 0
    cat = CliRunner().invoke(main, ["archive", "cat", "flights", "--json", "--config", str(archive.config)])
    assert (out / "flights-0.jsonl").read_text() == cat.stdout
    assert summary(archive, out, "--format", "jsonl")["already_there"] == ["flights-0.jsonl"]


def test_json_lines_hold_the_range_and_committed_records_unless_told_otherwise(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.add(
        batch(0, [b"aborted"], producer=7),
        batch(1, [b"committed", b"too"], producer=8),
        abort_marker(3, 7),
        batch(4, [b"plain"]),
        aborted=[(7, 0)],
    )
    archive.save()

    def offsets(name: str, *arguments: str) -> list[int]:
        assert run(archive, tmp_path / name, "--format", "jsonl", *arguments).exit_code == 0
        return [json.loads(line)["offset"] for line in (tmp_path / name / "flights-0.jsonl").read_text().splitlines()]

    assert offsets("committed") == [1, 2, 4]
    assert offsets("all", "--isolation", "read_uncommitted") == [0, 1, 2, 4]
    assert offsets("part", "--from", "2", "--to", "4") == [2]
    assert offsets("time", "--from", "2023-11-14T22:13:20.002") == [2, 4]
    assert TIME == 1_700_000_000_000


def test_a_damaged_segment_is_told_and_leaves_no_file(archive: Archive, out: Path) -> None:
    file = archive.segment_file(1)
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    result = run(archive, out)
    assert result.exit_code == 1
    assert "damaged" in result.stderr
    assert list(logs(out)) == [f"{0:020}.log"]


@pytest.mark.parametrize("place", ["-1", "yesterday", "12x", "2026-13-01"])
def test_what_is_neither_offset_nor_time(archive: Archive, out: Path, place: str) -> None:
    result = run(archive, out, "--from", place)
    assert result.exit_code == 2
    assert "neither an offset nor a time such as 2026-01-31T12:00:00Z" in result.stderr
