"""What happened, line by line: the moment, who, and what came in (<<) or went out (>>).

The same seed gives the same lines, byte for byte; so they say no object's identity and no real time.
"""

import logging
from collections.abc import Callable
from hashlib import sha256

from tests.simulation.loop import VirtualLoop, current_process

STOPPED = "is not archived any further"


class Trace:
    """`lines` grows; `digest` sums it up."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._notes: list[tuple[float, str, str]] = []

    def note(self, who: str, what: str) -> None:
        self._notes.append((self._loop.now, who, what))

    def lines(self, last: int = 0) -> list[str]:
        """All of them, or the `last` ones."""
        return [f"{at:10.3f}  {who:8} {what}" for at, who, what in self._notes[-last:]]

    def digest(self) -> str:
        return sha256("\n".join(self.lines()).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._notes)


class TraceLog(logging.Handler):
    """What tierproxy logs, in the trace of the play that is on. Dead processes say nothing more."""

    def __init__(self, trace: Trace, stopped: Callable[[str], None]) -> None:
        """`stopped` is told of each partition ("topic-0") that an archiver will not touch any more."""
        super().__init__(logging.INFO)
        self._trace = trace
        self._stopped = stopped
        self.crashes: list[str] = []
        """Lines of level ERROR that come from `Tasks`: defects."""

    def emit(self, record: logging.LogRecord) -> None:
        process = current_process()
        if process is not None and not process.alive:
            return
        text = record.getMessage()
        if record.exc_info is not None and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        if record.name == "tierproxy.tasks" and record.levelno >= logging.ERROR:
            self.crashes.append(text)
        self._trace.note(process.name if process is not None else "world", f"{record.levelname.lower()}: {text}")
        if STOPPED in text:
            self._stopped(text.split()[0])
