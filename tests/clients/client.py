"""What the matrix asks of a client, whatever library and language it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.kit.records import Log, Record

CLASSIC = "classic"
NEXT = "consumer"
"""Group protocols by Kafka's names: the one all clients have, and KIP-848's."""

Found = tuple[int, int | None] | None
"""The offset and time of a record found by time; the time is None where a library keeps it to itself."""


class Unavailable(Exception):
    """This client can't be had on this machine; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class At:
    """What a client reads, and how. `committed` = read_committed; `protocol` is the group protocol's name."""

    bootstrap: str
    topic: str
    committed: bool = False
    protocol: str = CLASSIC


class Client(Protocol):
    """One library. Calls return when all is read, or raise; nothing is filtered or sorted here."""

    def version(self) -> str:
        """The version that runs, by its own account."""

    def read(self, at: At, last: Mapping[int, int], starts: Mapping[int, int] | None = None) -> Log:
        """Each partition up to its `last` offset, from `starts` or, by a reset to earliest, from the beginning."""

    def group(self, at: At, group: str, count: int) -> list[Record]:
        """`count` records as the only member of `group`, from its committed offsets, which are moved on by these."""

    def times(self, at: At, partition: int, times: Sequence[int]) -> list[Found]:
        """Per time the first record that is not older."""

    def bounds(self, at: At, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Per partition its earliest and its latest offset."""

    def close(self) -> None:
        """Ends whatever runs for it."""
