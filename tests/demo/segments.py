"""A segment of the archive, without tierproxy: `zstd -d` makes it a plain Kafka log, which Kafka's tool checks."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import zstandard

from tests.kit.kafka import dump_log


@dataclass(frozen=True)
class Checked:
    """What Kafka's own tool found in a decompressed segment."""

    command: str  # how it was decompressed, as one would type it
    stored_bytes: int
    plain_bytes: int
    first_offset: int
    last_offset: int
    batches: int
    records: int
    all_valid: bool


def check(segment: Path, directory: Path) -> Checked:
    """Decompresses `segment` into `directory` and has kafka-dump-log read every batch and record of it."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / f"{segment.name[:20]}.log"  # the tool wants Kafka's name: the first offset, 20 digits
    command = decompress(segment, log)
    said = dump_log(log, "--deep-iteration")
    batches = re.findall(
        r"^baseOffset: (\d+) lastOffset: (\d+) count: (\d+) .*isvalid: (true|false)", said, re.MULTILINE
    )
    return Checked(
        command=command,
        stored_bytes=segment.stat().st_size,
        plain_bytes=log.stat().st_size,
        first_offset=int(batches[0][0]),
        last_offset=int(batches[-1][1]),
        batches=len(batches),
        records=sum(int(count) for _, _, count, _ in batches),
        all_valid=bool(batches) and all(valid == "true" for *_, valid in batches),
    )


def decompress(segment: Path, log: Path) -> str:
    """`zstd -d`, by the command if there is one here, else by the library. Returns which it was."""
    tool = shutil.which("zstd")
    if tool is not None:
        subprocess.run([tool, "-d", "-q", "-f", str(segment), "-o", str(log)], check=True)
        return "zstd -d"
    with segment.open("rb") as stored, log.open("wb") as plain:
        zstandard.ZstdDecompressor().copy_stream(stored, plain)
    return "the zstandard library (there is no zstd command here)"
