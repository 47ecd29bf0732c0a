"""`tierproxy archive move`, run as a person runs it, between two directories."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.tierproxy.cli.archives import PID, Archive, batch
from tierproxy.archive.names import topic_id_text
from tierproxy.cli import main


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path).add(batch(0, [b"a", b"b"])).add(batch(2, [b"c"])).save()
    text = archive.config.read_text()
    archive.config.write_text(
        text.replace("archives: {", f"archives: {{far: {{url: '{(tmp_path / 'far').as_uri()}'}}, ")
    )
    return archive


def run(archive: Archive, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["archive", *arguments, "--config", str(archive.config)])


def listed(archive: Archive, *arguments: str) -> list[tuple[str, int]]:
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in run(archive, "ls", "--json", *arguments).stdout.splitlines()
    ]
    return [(row["archive"], row["end_offset"]) for row in rows]


def test_move(archive: Archive) -> None:
    moved = run(archive, "move", "fli*", "--from", "local", "--to", "far")
    assert moved.exit_code == 0, moved.output
    assert "flights-0: offsets 0 to 3 are in far" in moved.stdout
    assert "Write 'archive: far' into the policy" in moved.stdout
    assert listed(archive) == [("far", 3)]
    assert listed(archive, "--archive", "local") == []
    assert run(archive, "verify").exit_code == 0
    assert run(archive, "cat", "flights").stdout.count("\n") == 3
    again = run(archive, "move", "flights", "--from", "local", "--to", "far", "--json")
    assert json.loads(again.stdout) == {
        "ok": True,
        "partitions": [
            {
                "topic": "flights",
                "topic_id": topic_id_text(PID.topic_id),
                "partition": 0,
                "ok": True,
                "start_offset": 0,
                "end_offset": 3,
                "problem": "",
            }
        ],
    }


def test_what_can_not_be_moved_is_told(archive: Archive) -> None:
    archive.segment_file(1).write_bytes(b"x" * archive.manifest.segments[1].stored_size)
    moved = run(archive, "move", "flights", "--from", "local", "--to", "far")
    assert moved.exit_code == 1
    assert "in archive 'local' is damaged; nothing was changed" in moved.stderr
    assert listed(archive) == [("local", 3)]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["flights", "--from", "local", "--to", "fra"], 2, "'fra' is not in the configuration; known: far, local"),
        (["flights", "--from", "local", "--to", "local"], 2, "are the same archive"),
        (["trains", "--from", "local", "--to", "far"], 1, "trains"),
        (["flights", "--from", "far", "--to", "local"], 1, "flights"),
    ],
)
def test_what_is_asked_wrongly_is_told(archive: Archive, arguments: list[str], status: int, words: str) -> None:
    moved = run(archive, "move", *arguments)
    assert moved.exit_code == status
    assert words in moved.stderr
