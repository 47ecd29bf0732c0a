"""How far a restore has come, in a file: one for each topic and target, in JSON.

It is written after the broker has acknowledged what it tells of, so it may be behind, and never ahead. What it does not
know yet lies in the target behind `target_offset`, and is found there by whoever goes on (lane.py).
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tierproxy.durable import written_whole
from tierproxy.errors import TierproxyError

FORMAT = "tierproxy-restore"
VERSION = 1


@dataclass(slots=True)
class Progress:
    """Of one partition: [first, stop) are the offsets to restore, `next` is the first that isn't acknowledged yet.

    `target_offset` is where that record goes in the target, `sequence` the producer's number of it; `records` and
    `bytes` are what was sent, `bytes` of batches.
    """

    first: int
    stop: int
    next: int
    target_offset: int
    sequence: int = 0
    records: int = 0
    bytes: int = 0

    @property
    def done(self) -> bool:
        return self.next >= self.stop


@dataclass(slots=True)
class State:
    """What is restored from where to where, by which producer, how far. `asked` are the options, as text."""

    topic: str
    topic_id: str
    asked: list[str | None]
    target_cluster: str
    target_topic: str
    target_topic_id: str
    producer_id: int
    producer_epoch: int
    partitions: dict[int, Progress] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return all(progress.done for progress in self.partitions.values())


def state_file(folder: Path, what: str, target_topic: str, target_cluster: str) -> Path:
    return folder / f"restore-{what}-to-{target_topic}-at-{target_cluster}.json"


def save(file: Path, state: State) -> None:
    """Raises CantWrite."""
    about = {"format": FORMAT, "version": VERSION, **asdict(state)}
    with written_whole(file) as out:
        out.write(json.dumps(about, indent=2).encode() + b"\n")


def load(file: Path) -> State | None:
    """None if there is none. TierproxyError if it can't be understood."""
    try:
        about = json.loads(file.read_bytes())
        if about.pop("format") != FORMAT or about.pop("version") != VERSION:
            raise ValueError("another format")
        partitions = {int(number): Progress(**each) for number, each in about.pop("partitions").items()}
        return State(**about, partitions=partitions)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TierproxyError(f"{file} can't be read as the state of a restore: {error}") from error
