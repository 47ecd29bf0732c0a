"""The roots of tierproxy's own errors: what a person is told, and nothing else.

Every error that we raise on purpose is a `TierproxyError` whose text is a sentence for the person who
runs tierproxy: it says what is wrong and, where one exists, what to do. The command line prints that
sentence without a traceback; anything that is *not* a `TierproxyError` is a defect of ours and keeps its
traceback. Errors that belong to one part (a store, an upstream connection) are defined in that part and
derive from this one. Bytes that break the protocol are `protocol.errors.MalformedError`, which is not one
of ours: `protocol` imports nothing from here.
"""

from collections.abc import Iterable
from dataclasses import dataclass


class TierproxyError(Exception):
    """Something that tierproxy knows how to explain; `str(error)` is the explanation."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a configuration.

    `path` is where, as a person would write it (`topics[2].keep_on_broker.time`), or "" when the whole
    file is meant; `line` counts from 1, where it is known. `problem` is one sentence without a full stop.
    It never holds the value of a secret.
    """

    path: str
    problem: str
    line: int | None = None

    def __str__(self) -> str:
        where = [self.path] if self.path else []
        if self.line is not None:
            where.append(f"(line {self.line})" if where else f"line {self.line}")
        return f"{' '.join(where)}: {self.problem}" if where else self.problem


class ConfigError(TierproxyError):
    """A configuration that can't be used. Holds every fault that was found, not only the first."""

    def __init__(self, source: str, faults: Iterable[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        count = len(self.faults)
        head = f"{source}: {count} fault{'' if count == 1 else 's'}"
        super().__init__("\n".join([head, *(f"  {fault}" for fault in self.faults)]))
