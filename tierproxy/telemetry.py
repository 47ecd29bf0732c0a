"""What tierproxy says about itself: log lines for people, counters for Prometheus.

One line per change of state, never one per request: a condition that lasts (a broker that can't be reached)
is said once when it begins and once when it ends, by `OncePerChange`. Metrics live here in one table, so
that a dashboard has one place to look, and their labels are bounded: nothing a client sends becomes one.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, TextIO

from prometheus_client import Counter, Gauge, disable_created_metrics

# Each counter would be shown twice, the second time as the moment it was made.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library forgot the annotation


def _gauge(name: str, about: str, labels: Sequence[str] = ()) -> Gauge:
    """With several workers, what is shown is the sum over those that live."""
    return Gauge(name, about, labels, multiprocess_mode="livesum")


# ---- metrics: the gateway ------------------------------------------------------------------------------------

CLIENT_CONNECTIONS = _gauge("tierproxy_client_connections", "Client connections that are open")
CONNECTIONS_REFUSED = Counter(
    "tierproxy_connections_refused", "Client connections refused because limits.connections are open"
)
CONNECTIONS_CLOSED = Counter(
    "tierproxy_connections_closed",
    "Client connections that were closed for what the client or its broker sent, or no longer sent",
)
TLS_HANDSHAKES_FAILED = Counter("tierproxy_tls_handshakes_failed", "TLS handshakes with clients that failed")
BYTES_TO_CLIENTS = Counter("tierproxy_bytes_to_clients", "Bytes sent to clients, hot and cold")
BYTES_TO_BROKERS = Counter("tierproxy_bytes_to_brokers", "Bytes sent to brokers for clients")
COLD_FETCHES = Counter("tierproxy_cold_fetches", "Fetch requests that asked for archived records")
COLD_THROTTLED = Counter(
    "tierproxy_cold_throttled",
    "Fetches whose archived records were held up by a cold_read_rate, by whose it is: client, user, policy or process",
    ["limit"],
)
COLD_THROTTLE_SECONDS = Counter(
    "tierproxy_cold_throttle_seconds",
    "Seconds for which they were, or which clients were told to wait (throttle_time_ms), by whose limit it is",
    ["limit"],
)
HOLES_MET = Counter("tierproxy_holes_met", "Times a reader met a range that was lost before it was archived")
STORE_READS = Counter("tierproxy_store_reads", "Ranges read from archives for clients")
STORE_READ_BYTES = Counter("tierproxy_store_read_bytes", "Bytes read from archives for clients")

DISK_CACHE_READS = Counter(
    "tierproxy_disk_cache_reads",
    "Ranges asked of the disk cache, by outcome: hit, miss, off (it is left alone for a while)",
    ["outcome"],
)
DISK_CACHE_READ_BYTES = Counter("tierproxy_disk_cache_read_bytes", "Bytes that came from the disk cache")
DISK_CACHE_WRITTEN_BYTES = Counter("tierproxy_disk_cache_written_bytes", "Bytes put into the disk cache")
DISK_CACHE_DECLINED = Counter("tierproxy_disk_cache_declined", "Ranges not put there: the disk was too slow, or off")
DISK_CACHE_EVICTED_BYTES = Counter("tierproxy_disk_cache_evicted_bytes", "Bytes removed there to make room")
DISK_CACHE_DAMAGED = Counter("tierproxy_disk_cache_damaged", "Files removed there because they were damaged")
DISK_CACHE_ERRORS = Counter(
    "tierproxy_disk_cache_errors", "Failures of the disk cache's disk, by kind: read, write, late (no answer)", ["kind"]
)
DISK_CACHE_BYTES = Gauge("tierproxy_disk_cache_bytes", "Bytes in the disk cache, of all processes that share it")

# ---- metrics: the archiver -----------------------------------------------------------------------------------

PARTITIONS_ARCHIVED = _gauge("tierproxy_partitions_archived", "Partitions that this process archives")
PARTITIONS_STOPPED = _gauge(
    "tierproxy_partitions_stopped", "Partitions that are not archived any further until a person has looked"
)
PARTITIONS_ASSIGNED = _gauge(
    "tierproxy_group_partitions_assigned", "Partitions that the archivers' group last gave to this process"
)
REBALANCES = Counter("tierproxy_group_rebalances", "Times the archivers' group gave this process its share")
SEGMENTS_ARCHIVED = Counter("tierproxy_segments_archived", "Segments stored, read back and committed")
ARCHIVED_BYTES = Counter("tierproxy_archived_bytes", "Bytes of log in committed segments")
ARCHIVED_STORED_BYTES = Counter("tierproxy_archived_stored_bytes", "Bytes that committed segments take in archives")
TRIMS = Counter("tierproxy_trims", "Times a broker was told to delete records that are archived")
ARCHIVE_LAG = _gauge(
    "tierproxy_archive_lag_seconds", "How long the oldest record has waited that is not archived, by topic", ["topic"]
)
ARCHIVE_LAG_OFFSETS = _gauge("tierproxy_archive_lag_offsets", "Offsets that are not archived yet, by topic", ["topic"])
RETENTION_LEFT = _gauge(
    "tierproxy_retention_left_ratio",
    "Part of the brokers' retention that is left before they delete what is not archived, by topic; 0: too late",
    ["topic"],
)
TRANSACTION_STALL = _gauge(
    "tierproxy_transaction_stall_seconds",
    "How long an open transaction has held the archive back, by topic; 0 if none does",
    ["topic"],
)
PARTITIONS_AT_RISK = _gauge(
    "tierproxy_partitions_at_risk", "Partitions of which the brokers will soon delete what is not archived"
)
ARCHIVER_READ_BYTES = Counter("tierproxy_archiver_read_bytes", "Bytes of log read from brokers to be archived")
ARCHIVER_WRITTEN_BYTES = Counter("tierproxy_archiver_written_bytes", "Bytes that were written to archives")
RATE_WAITS = Counter(
    "tierproxy_archiver_rate_wait_seconds", "Seconds for which archiver.read_rate or write_rate held work up", ["what"]
)
GAPS = Counter("tierproxy_gaps", "Ranges of offsets that were lost before they were archived")
HISTORIES_REWRITTEN = Counter(
    "tierproxy_histories_rewritten", "Times brokers disowned what was archived, which was quarantined then"
)
BATCHES_DAMAGED = Counter("tierproxy_batches_damaged", "Batches from brokers that did not match their checksum")
SEGMENTS_DAMAGED = Counter("tierproxy_segments_damaged", "Segments that a store gave back otherwise than written")
SEGMENTS_EXPIRED = Counter("tierproxy_segments_expired", "Segments that keep_in_archive no longer keeps")
EXPIRED_BYTES = Counter("tierproxy_expired_bytes", "Bytes of log in expired segments")
SEGMENTS_MERGED = Counter("tierproxy_segments_merged", "Small segments that were merged into larger ones")
MERGED_BYTES = Counter("tierproxy_merged_bytes", "Bytes of log in segments written by merging")
GARBAGE_FOUND = Counter(
    "tierproxy_garbage_found", "Objects in archives that nothing needed when garbage was looked for"
)
GARBAGE_REMOVED = Counter("tierproxy_garbage_removed", "Of those, objects that were removed")
GARBAGE_REMOVED_BYTES = Counter("tierproxy_garbage_removed_bytes", "Stored bytes of removed objects")

# ---- metrics: stores -----------------------------------------------------------------------------------------

STORE_REQUESTS = Counter("tierproxy_store_requests", "Requests to stores, each try, by operation", ["operation"])
STORE_ERRORS = Counter(
    "tierproxy_store_errors", "Requests to stores that failed, by operation and kind", ["operation", "kind"]
)
STORE_RETRIES = Counter("tierproxy_store_retries", "Requests to stores that were tried again at once")
STORE_BULK_READS = Counter(
    "tierproxy_store_bulk_reads",
    "Ranges asked of S3 over connections of our own: done, failed, or declined, so that aiobotocore had to ask",
    ["end"],
)
DAMAGED_READS = Counter(
    "tierproxy_damaged_reads", "Bytes from stores that did not match their checksum, by what they were", ["what"]
)

# ---- metrics: the configuration ------------------------------------------------------------------------------

# With several workers these are the supervisor's. All have labels: what has none is shown, as 0, by workers as well.

CONFIG_READS = Counter(
    "tierproxy_config_reads",
    "Times the configuration file was read, the first included, by what came of it: applied, unchanged, refused",
    ["result"],
)
CONFIG_READ_AT = _gauge(
    "tierproxy_config_read_timestamp_seconds", "When that was the case last, in seconds since 1970", ["result"]
)
CONFIG_REFUSED = _gauge(
    "tierproxy_config_refused",
    "1 while the file is another than what is in force, by why it was refused: faults, restart (it needs one)",
    ["why"],
)
CONFIG_METRICS = (CONFIG_READS, CONFIG_READ_AT, CONFIG_REFUSED)

# ---- metrics: all parts --------------------------------------------------------------------------------------

TROUBLES = Counter("tierproxy_troubles", "Lasting conditions that began, by part; each has a log line", ["part"])
TROUBLES_OPEN = _gauge("tierproxy_troubles_open", "Lasting conditions that have not ended, by part", ["part"])


class OncePerChange:
    """Says that a condition began, and that it ended, once each, however often it is met in between.

    Conditions are told apart by a key of the caller's (an address, a topic). The log line's words come from
    the caller; the metrics count by part, which is the last word of the logger's name.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._part = log.name.rpartition(".")[2]
        self._open: set[str] = set()

    def began(self, key: str, message: str, level: int = logging.WARNING) -> bool:
        """Note that `key` holds. Logs and returns True if it did not hold before."""
        if key in self._open:
            self._log.debug("%s (still)", message)
            return False
        self._open.add(key)
        TROUBLES.labels(self._part).inc()
        TROUBLES_OPEN.labels(self._part).inc()
        self._log.log(level, "%s", message)
        return True

    def ended(self, key: str, message: str) -> bool:
        """Note that `key` does not hold. Logs and returns True if it did before."""
        if key not in self._open:
            return False
        self._open.discard(key)
        TROUBLES_OPEN.labels(self._part).dec()
        self._log.info("%s", message)
        return True

    def forget(self, prefix: str) -> None:
        """End, without a word, the conditions whose keys begin so: what they were about is gone."""
        for key in [key for key in self._open if key.startswith(prefix)]:
            self._open.discard(key)
            TROUBLES_OPEN.labels(self._part).dec()


class Seldom:
    """Says what strangers can make happen as often as they like: each kind at most once in `every` seconds.

    The next line of a kind tells how many there were in between. Kinds are the caller's own words, so that there are
    few; beyond `KINDS`, in case they are not, the rest counts as one. `now` gives seconds that never go back.
    """

    KINDS = 50

    def __init__(self, log: logging.Logger, now: Callable[[], float], every: float = 60.0) -> None:
        self._log = log
        self._now = now
        self._every = every
        self._said: dict[str, tuple[float, int]] = {}  # kind → when last, and how many since

    def say(self, kind: str, message: str, level: int = logging.INFO) -> None:
        now = self._now()
        if kind not in self._said and len(self._said) >= self.KINDS:
            kind = "others"
        at, unsaid = self._said.get(kind, (now - self._every, 0))
        if now - at < self._every:
            self._said[kind] = (at, unsaid + 1)
            self._log.debug("%s", message)
            return
        self._said[kind] = (now, 0)
        self._log.log(level, "%s%s", message, f" (and {unsaid} more like it since the last line)" if unsaid else "")


# ---- logging -------------------------------------------------------------------------------------------------

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
    handler.setFormatter(JsonLines(process) if format == "json" else TextLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: Level) -> None:
    """From now on, of tierproxy's own lines."""
    logging.getLogger("tierproxy").setLevel(level.upper())


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
