"""Where the log goes, how a line looks, and how many there may be."""

import json
import logging
import re
import sys
import time
from typing import Final, Literal, TextIO

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Level = Literal["debug", "info", "warning", "error"]


def setup_logging(
    level: Level = "info",
    format: Literal["text", "json"] = "text",
    stream: TextIO | None = None,
    process: str | None = None,
) -> None:
    """Send the log to `stream` (standard error by default), replacing what was set up before.

    `process` is said in each line: which of several that share the stream.

    `level` is for tierproxy's own lines; libraries say warnings and worse only, because at debug level some
    of them write requests with their credentials.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(FloodGuard())
    handler.setFormatter(JsonLines(process) if format == "json" else TextLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: Level) -> None:
    """From now on, of tierproxy's own lines."""
    logging.getLogger("tierproxy").setLevel(level.upper())


class FloodGuard(logging.Filter):
    """At most `MOST` lines in `EVERY` seconds that the same place in the code says: ten thousand partitions that are
    archived, or a fault that clients can bring about, don't fill a disk. What is left out is counted, and said."""

    MOST = 100
    EVERY = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[str, str, int], tuple[float, int]] = {}  # by place: since when, how many

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return True  # whoever wants these wants them all
        place = (record.name, record.pathname, record.lineno)
        since, count = self._counts.get(place, (record.created, 0))
        if not 0 <= record.created - since < self.EVERY:
            if count > self.MOST:
                self._add(record, f"and {count - self.MOST} more like the ones before, which were left out")
            since, count = record.created, 0
        self._counts[place] = (since, count + 1)
        if count + 1 == self.MOST:
            self._add(record, f"more like it are left out for up to {self.EVERY:g} s")
        return count < self.MOST

    @staticmethod
    def _add(record: logging.LogRecord, text: str) -> None:
        record.msg, record.args = f"{record.getMessage()} ({text})", ()


def _utc(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.123Z WARNING upstream: broker kafka-1:9092 can't be reached`.

    A message stays one line whatever it quotes; only a traceback of our own adds lines. Of several processes, each
    says its name before the part's: `gateway-1 upstream: …`.
    """

    def __init__(self, process: str | None = None) -> None:
        super().__init__()
        self._process = "" if process is None else f"{process} "

    def format(self, record: logging.LogRecord) -> str:
        message = _CONTROL.sub(lambda match: repr(match.group())[1:-1], record.getMessage())
        part = record.name.removeprefix("tierproxy.")
        line = f"{_utc(record)} {record.levelname:<7} {self._process}{part}: {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message; process and exception where there is one."""

    def __init__(self, process: str | None = None) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._process is not None:
            entry["process"] = self._process
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
