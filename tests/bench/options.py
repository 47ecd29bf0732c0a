"""What a run is asked for, and which corpora that takes."""

from dataclasses import dataclass

from tests.bench.corpus import Corpus

_SEGMENT_MB = 134.2
"""A segment of log (128 MiB)."""
_OVERHEAD = 0.985
"""Values per byte of log."""
MAIN = "json-3"
"""The corpus of most questions."""


@dataclass(frozen=True)
class Options:
    """`megabytes`: of the largest corpus; it is rounded to whole segments and a little more, so that archiving can be
    measured without waiting for the last segments' age. `only`: names of questions, empty is all of them."""

    megabytes: int = 800
    rounds: int = 3
    only: tuple[str, ...] = ()
    quick: bool = False

    def corpora(self) -> list[Corpus]:
        """The main one, and the others unless it must be quick."""
        segments = 1 if self.quick else max(1, round(self.megabytes / 3 / _SEGMENT_MB))
        main = Corpus(MAIN, 3, round(3 * _SEGMENT_MB * segments * 1.02 * _OVERHEAD))
        if self.quick:
            return [main]
        part = max(10, self.megabytes // 3)
        return [
            main,
            Corpus("json-1", 1, max(part, round(_SEGMENT_MB * 1.02 * _OVERHEAD))),
            Corpus("json-50", 50, part),
            # Some hundred MB of log, too: below that a reading is mostly its beginning.
            Corpus("lz4-3", 3, 4 * part, "lz4"),
            Corpus("zstd-3", 3, 6 * part, "zstd"),
        ]
