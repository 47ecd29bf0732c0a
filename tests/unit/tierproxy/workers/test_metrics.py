"""What several processes count is put together: sums of counters and histograms, gauges as each says."""

import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tierproxy.workers.metrics import WorkerMetrics

WORK = """
import os, sys
from prometheus_client import values
values.ValueClass = values.MultiProcessValue(lambda: sys.argv[1])
from tierproxy import telemetry
from tierproxy.telemetry.kinds import remove
from tierproxy.telemetry.traffic import TRAFFIC
connections, ready, disk = map(int, sys.argv[2:])
telemetry.CLIENT_CONNECTIONS.set(connections)
telemetry.READY.labels("cluster").set(ready)
telemetry.DISK_CACHE_BYTES.set(disk)
telemetry.HOLES.labels("gone").set(3)
remove(telemetry.HOLES, "gone", 0.0)
for _ in range(connections):
    TRAFFIC.asked(1, 100)
    TRAFFIC.answered(1, 1000, 0.5)
TRAFFIC.flush()
"""


def work(files: Path, seat: str, connections: int, ready: int, disk: int) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", WORK, seat, str(connections), str(ready), str(disk)],
        env={"PROMETHEUS_MULTIPROC_DIR": str(files), "PYTHONPATH": str(Path(__file__).parents[4])},
        check=True,
    )


def shown(metrics: WorkerMetrics) -> dict[str, float]:
    """By name and labels' values."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {" ".join([s.name, *s.labels.values()]): s.value for family in families for s in family.samples}


def test_what_workers_count_adds_up_and_a_dead_one_leaves_what_it_has_done(tmp_path: Path) -> None:
    metrics = WorkerMetrics(tmp_path, lambda: [])
    work(tmp_path, "gateway-1", connections=3, ready=1, disk=70)
    work(tmp_path, "gateway-2", connections=4, ready=0, disk=80)
    both = shown(metrics)
    assert both["tierproxy_client_connections"] == 7
    assert both["tierproxy_ready cluster"] == 0, "one of them is not"
    assert both["tierproxy_disk_cache_bytes"] == 80, "they share it"
    assert both["tierproxy_holes gone"] == 0, "what is gone is well"
    assert both["tierproxy_requests_total Fetch"] == 7
    assert both["tierproxy_answer_bytes_total Fetch hot"] == 7000
    assert both["tierproxy_request_seconds_count Fetch hot"] == 7
    assert both["tierproxy_request_seconds_sum Fetch hot"] == 3.5
    metrics.died("gateway-2")
    left = shown(metrics)
    assert (left["tierproxy_client_connections"], left["tierproxy_ready cluster"]) == (3, 1)
    assert left["tierproxy_requests_total Fetch"] == 7
