"""What a comparison found. All it may excuse has a name here and a line in ALLOWED.md; a test compares the two."""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum


class Allowed(Enum):
    """Why two answers may differ; the values are the names used in ALLOWED.md."""

    SESSION = "session"
    OLD_FETCH = "old-fetch"
    WHOLE_BATCHES = "whole-batches"
    OTHER_END = "other-end"
    BUDGET = "budget"
    SHARE = "share"
    TWO_FIRSTS = "two-firsts"
    ABORTED_BEYOND = "aborted-beyond"
    ABORTED_ORDER = "aborted-order"
    LAST_EPOCH = "last-epoch"
    ZSTD = "zstd"
    EARLIEST_LOCAL = "earliest-local"
    LOST_TIME = "lost-time"
    START_EPOCH = "start-epoch"
    EPOCH_ENDS = "epoch-ends"
    ADDRESS = "address"
    NO_ADDRESS = "no-address"
    ZERO_ID = "zero-id"
    NOT_YET = "not-yet"
    OUT_OF_RANGE_LATER = "out-of-range-later"
    BOUNDS_LATER = "bounds-later"
    START_LATER = "start-later"


@dataclass
class Findings:
    """`differences` are faults. `again` are allowed only if they are gone when the same is asked again."""

    differences: list[str] = field(default_factory=list)
    again: list[tuple[Allowed, str]] = field(default_factory=list)
    allowed: Counter[Allowed] = field(default_factory=Counter)

    def differ(self, what: str) -> None:
        self.differences.append(what)

    def allow(self, why: Allowed) -> None:
        self.allowed[why] += 1

    def later(self, why: Allowed, what: str) -> None:
        self.again.append((why, what))

    def same(self, what: str, ref: object, arc: object) -> bool:
        """Notes a difference if there is one."""
        if ref == arc:
            return True
        self.differ(f"{what}: the broker said {shown(ref)}, tierproxy {shown(arc)}")
        return False


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:160]}… ({len(text)} characters)"
