"""What a real tierproxy shows at /metrics after real clients: all that the dashboard and the alerts ask for."""

import re

from protocol.fetch import FetchPartition
from tests.clients.raw import Raw
from tests.documents.promql import selectors
from tests.integration.conftest import Stage
from tests.kit.clients import READERS
from tests.kit.processes import wait_for
from tests.kit.producing import produce
from tests.kit.proxy import HOST, Proxy
from tests.kit.records import assert_same, drafts, ends
from tests.unit.documents.test_monitoring import RULES, queries

ELSEWHERE = {"tierproxy_workers", "tierproxy_worker_restarts_total"}
"""Shown where there are several workers: see test_workers.py."""
UNUSED = {
    "tierproxy_cold_throttle_seconds_total",
    "tierproxy_cold_throttled_total",
    "tierproxy_disk_cache_reads_total",
    "tierproxy_store_bulk_reads_total",
    "tierproxy_troubles_open",
}
"""Not without rates, a disk cache, S3 or trouble."""


def shown(proxy: Proxy) -> dict[str, float]:
    """By series, as Prometheus writes it."""
    text = proxy.get("/metrics")[1]
    return {name: float(value) for name, value in re.findall(r"^([a-z]\S*(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)}


def test_everything_that_is_watched_is_there(stage: Stage, proxied: Proxy) -> None:
    before = shown(proxied)
    topic = stage.topic("seam.metrics")
    log = produce(stage.broker, topic, drafts(2000, partition=0, seed=9))
    stage.wait_trimmed(topic, log)
    assert_same(log, READERS["librdkafka"](stage.gateway, topic, log))
    with Raw(f"{HOST}:{proxied.port + 2}") as client:
        assert client.fetch(12, [FetchPartition(topic, None, 0, -1, ends(log)[0], -1, 1 << 20)]).partitions[0].records

    def settled() -> dict[str, float] | None:
        """What is shown once it has come to rest: some of it is measured now and then."""
        found = shown(proxied)
        at_rest = found.get(f'tierproxy_trim_lag_offsets{{topic="{topic}"}}') == 0
        return found if at_rest and found.get('tierproxy_memory_cache_bytes{cache="stored"}') else None

    after = wait_for(settled, seconds=60, what="the metrics of all that")

    def more(series: str) -> float:
        return after.get(series, 0.0) - before.get(series, 0.0)

    for tier in ("hot", "cold"):
        assert more(f'tierproxy_request_seconds_count{{api="Fetch",tier="{tier}"}}') > 0
        assert more(f'tierproxy_answer_bytes_total{{api="Fetch",tier="{tier}"}}') > 0
    answered = more('tierproxy_request_seconds_count{api="Metadata",tier="hot"}')
    assert 0 < answered <= more('tierproxy_requests_total{api="Metadata"}')
    assert more('tierproxy_cold_fetch_seconds_count{outcome="records"}') > 0
    assert more('tierproxy_cold_fetch_seconds_count{outcome="error"}') == 0
    assert more('tierproxy_cold_read_bytes_total{source="store"}') > 0
    assert more('tierproxy_store_request_seconds_count{operation="get_range"}') > 0
    assert more("tierproxy_commit_seconds_count") == more("tierproxy_segments_archived_total") > 0
    assert more("tierproxy_segments_verified_total") > 0
    assert more("tierproxy_event_loop_lag_seconds_count") > 0
    assert after['tierproxy_ready{part="gateway"}'] == 1
    watched = {s.name for expr in [r["expr"] for r in RULES] + [q for _, q, _ in queries()] for s in selectors(expr)}
    there = {name.partition("{")[0] for name in after}
    assert watched - there <= ELSEWHERE | UNUSED
