"""What tierproxy says about itself: log lines for people (`logs`, `conditions`), numbers for Prometheus.

Metrics live here in one table, so that a dashboard has one place to look, and their labels are bounded: nothing a
client sends becomes one, and of topics only so many have a name (`kinds.TopicLabels`). docs/metrics.md is made from it.
"""

from prometheus_client import Counter

from tierproxy.telemetry.conditions import OncePerChange as OncePerChange
from tierproxy.telemetry.conditions import Seldom as Seldom
from tierproxy.telemetry.kinds import QUICK, SLOW, Tally, gauge
from tierproxy.telemetry.logs import set_level as set_level
from tierproxy.telemetry.logs import setup_logging as setup_logging

# ---- metrics: the gateway ------------------------------------------------------------------------------------

BUILD = gauge("tierproxy_build_info", "1, with the version as a label", ["version"], workers="livemax")
READY = gauge(
    "tierproxy_ready", "1 where a part does its job, 0 where it does not; /ready says why", ["part"], workers="livemin"
)
CLIENT_CONNECTIONS = gauge("tierproxy_client_connections", "Client connections that are open")
CONNECTIONS_LIMIT = gauge("tierproxy_client_connections_limit", "Client connections that limits.connections allows")
CONNECTIONS_ACCEPTED = Counter("tierproxy_connections_accepted", "Client connections, those refused at once included")
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
COLD_FETCH_SECONDS = Tally(
    "tierproxy_cold_fetch_seconds",
    "From when the broker had refused archived offsets until the answer was complete, by what came of it: records, "
    "empty (none were ready in the client's max_wait), out_of_range (neither tier has the offset), or error",
    ["outcome"],
    buckets=QUICK,
)
COLD_READS = Counter(
    "tierproxy_cold_reads",
    "Reads of archived bytes, by what answered them: memory (a reader found its chunk there), worker (another worker "
    "had it), disk (the disk cache), store. What is read ahead counts when it comes, and when its reader finds it",
    ["source"],
)
COLD_READ_BYTES = Counter(
    "tierproxy_cold_read_bytes", "Bytes that those reads gave, as they are stored (compressed)", ["source"]
)
COLD_WAITS = Counter("tierproxy_cold_waits", "Times that a reader's archived records were not in memory, and it waited")
COLD_ANSWERS_HELD = gauge(
    "tierproxy_cold_answers_held_bytes", "Memory of archived records in answers (limits.cold_answers)"
)
COLD_IN_FLIGHT = gauge("tierproxy_cold_in_flight_bytes", "Bytes being read from archives (limits.cold_in_flight)")
GATHERED = gauge("tierproxy_gathered_bytes", "Memory of messages that must be read whole (limits.gathered)")
LIMIT_WAITS = Counter(
    "tierproxy_limit_waits",
    "Times that work waited for a limit, by limit: cold_in_flight, cold_answers, gathered",
    ["limit"],
)
LIMIT_REFUSALS = Counter(
    "tierproxy_limit_refusals",
    "Times that too much waited for a limit already, so that a client was told to come again, by limit",
    ["limit"],
)
MEMORY_CACHE_READS = Counter(
    "tierproxy_memory_cache_reads",
    "Questions to the caches in memory, by cache (plain and stored chunks, indexes) and outcome: hit, miss",
    ["cache", "outcome"],
)
MEMORY_CACHE_BYTES = gauge("tierproxy_memory_cache_bytes", "Bytes in the caches in memory, by cache", ["cache"])
MEMORY_CACHE_LIMIT = gauge("tierproxy_memory_cache_limit_bytes", "Bytes that they may have, by cache", ["cache"])
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
DISK_CACHE_BYTES = gauge(
    "tierproxy_disk_cache_bytes", "Bytes in the disk cache, of all processes that share it", workers="livemax"
)
DISK_CACHE_LIMIT = gauge(
    "tierproxy_disk_cache_limit_bytes", "Bytes that it may have (cache.disk.size)", workers="livemax"
)

# ---- metrics: the archiver -----------------------------------------------------------------------------------

PARTITIONS_ARCHIVED = gauge("tierproxy_partitions_archived", "Partitions that this process archives")
PARTITIONS_STOPPED = gauge(
    "tierproxy_partitions_stopped", "Partitions that are not archived any further until a person has looked"
)
PARTITIONS_ASSIGNED = gauge(
    "tierproxy_group_partitions_assigned", "Partitions that the archivers' group last gave to this process"
)
REBALANCES = Counter("tierproxy_group_rebalances", "Times the archivers' group gave this process its share")
SEGMENTS_ARCHIVED = Counter("tierproxy_segments_archived", "Segments stored, read back and committed")
ARCHIVED_BYTES = Counter("tierproxy_archived_bytes", "Bytes of log in committed segments")
ARCHIVED_STORED_BYTES = Counter("tierproxy_archived_stored_bytes", "Bytes that committed segments take in archives")
COMMIT_SECONDS = Tally(
    "tierproxy_commit_seconds",
    "From when a segment was full or old enough until it was stored, read back and committed",
    buckets=SLOW,
)
SEGMENTS_VERIFIED = Counter("tierproxy_segments_verified", "Segments that were read back and were as written")
TRIMS = Counter("tierproxy_trims", "Times a broker was told to delete records that are archived")
ARCHIVE_LAG = gauge(
    "tierproxy_archive_lag_seconds", "How long the oldest record has waited that is not archived, by topic", ["topic"]
)
ARCHIVE_LAG_OFFSETS = gauge("tierproxy_archive_lag_offsets", "Offsets that are not archived yet, by topic", ["topic"])
TRIM_LAG = gauge(
    "tierproxy_trim_lag_seconds",
    "How long the brokers have kept what keep_on_broker no longer keeps and is archived, by topic",
    ["topic"],
)
TRIM_LAG_OFFSETS = gauge(
    "tierproxy_trim_lag_offsets",
    "Offsets that the brokers have although keep_on_broker no longer keeps them and they are archived, by topic",
    ["topic"],
)
HOLES = gauge("tierproxy_holes", "Holes in the archive that nobody has accepted yet, by topic", ["topic"])
HOLE_OFFSETS = gauge(
    "tierproxy_hole_offsets", "Offsets that are lost in all holes, accepted or not, by topic", ["topic"]
)
RETENTION_LEFT = gauge(
    "tierproxy_retention_left_ratio",
    "Part of the brokers' retention that is left before they delete what is not archived, by topic; 0: too late",
    ["topic"],
)
TRANSACTION_STALL = gauge(
    "tierproxy_transaction_stall_seconds",
    "How long an open transaction has held the archive back, by topic; 0 if none does",
    ["topic"],
)
PARTITIONS_AT_RISK = gauge(
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
STORE_SECONDS = Tally(
    "tierproxy_store_request_seconds",
    "How long requests to stores took, each try, those that failed included, by operation",
    ["operation"],
    buckets=QUICK,
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
CONFIG_READ_AT = gauge(
    "tierproxy_config_read_timestamp_seconds", "When that was the case last, in seconds since 1970", ["result"]
)
CONFIG_REFUSED = gauge(
    "tierproxy_config_refused",
    "1 while the file is another than what is in force, by why it was refused: faults, restart (it needs one)",
    ["why"],
)
CONFIG_METRICS = (CONFIG_READS, CONFIG_READ_AT, CONFIG_REFUSED)

# ---- from the start ------------------------------------------------------------------------------------------

# A series that begins at 1 has not increased, as Prometheus sees it: the first failure would raise no alert.
for _metric, _values in (
    (COLD_FETCH_SECONDS, ("records", "empty", "out_of_range", "error")),
    (COLD_READS, ("memory", "worker", "disk", "store")),
    (COLD_READ_BYTES, ("memory", "worker", "disk", "store")),
    (DAMAGED_READS, ("index", "chunk", "document")),
    (DISK_CACHE_ERRORS, ("read", "write", "late")),
    (LIMIT_REFUSALS, ("cold_in_flight",)),
    (LIMIT_WAITS, ("cold_in_flight", "cold_answers", "gathered")),
):
    for _value in _values:
        _metric.labels(_value)
