"""How much memory a process takes that archives many partitions which all receive records at the same time.

`make scale` does it with 2,000 partitions, which takes some minutes. What is measured is VmHWM: the most memory that
the process has ever had, gateway and all.
"""

import contextlib
import os
import random
import re
import sys
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from tests.integration.test_archivers import metric
from tests.kit import admin
from tests.kit.kafka import Cluster
from tests.kit.processes import wait_for
from tests.kit.proxy import Proxy

PARTITIONS = int(os.environ.get("PARTITIONS", "100"))
TOPICS = max(1, PARTITIONS // 100)
RECORD = 20_000
RECORDS = 70 if PARTITIONS <= 200 else 15
"""Of each partition: more than there is room for in memory, all together."""
MOST_MIB = 512 if PARTITIONS > 200 else 280
PATIENCE = 200 if PARTITIONS <= 200 else 1800


def peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) // 1024


def known(bootstrap: str, partitions: int) -> bool:
    """Whether the broker has heard of all that the controller has made."""
    with contextlib.suppress(KafkaException):
        return all(len(admin.latest(bootstrap, f"scale.{topic}", partitions)) for topic in range(TOPICS))
    return False


def fill(bootstrap: str, partitions: int) -> int:
    """Random bytes, which no compression makes smaller, into every partition in turns. Returns how many."""
    patient: dict[str, str | int] = {"linger.ms": 1000, "message.timeout.ms": 0, "queue.buffering.max.kbytes": 131_072}
    producer, chance = Producer({"bootstrap.servers": bootstrap, "log_level": 2, **patient}), random.Random(1)
    for _ in range(RECORDS):
        for topic in range(TOPICS):
            for partition in range(partitions):
                while True:
                    try:
                        producer.produce(f"scale.{topic}", chance.randbytes(RECORD), partition=partition)
                        break
                    except BufferError:
                        producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(PATIENCE) == 0
    return RECORDS * TOPICS * partitions * RECORD


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is Linux's")
@pytest.mark.timeout(3 * PATIENCE)
def test_memory_is_bounded_whatever_the_number_of_partitions(tmp_path: Path) -> None:
    each = PARTITIONS // TOPICS
    policy = {
        "match": "scale.*",
        "archive": "local",
        "segment": {"bytes": "128MiB", "age": "20s" if PARTITIONS <= 200 else "3m"},
        "keep_on_broker": {"bytes": "0B"},
    }
    with Cluster(tmp_path / "kafka", jvm=("-Xmx2g",)) as kafka:
        for topic in range(TOPICS):
            admin.create_topic(kafka.bootstrap, f"scale.{topic}", each, retention_ms=-1)
        wait_for(lambda: known(kafka.bootstrap, each), seconds=PATIENCE, what="topics", pause=1)
        with Proxy(tmp_path / "proxy", kafka.bootstrap, [policy]) as proxy:
            process = proxy.process
            assert process is not None
            at_rest = peak_mib(process.pid)
            size = fill(kafka.bootstrap, each)
            process.wait_until(
                lambda: metric(proxy, "archiver_read_bytes_total") >= size, seconds=PATIENCE, what="all read"
            )
            copied = peak_mib(process.pid)
            process.wait_until(
                lambda: metric(proxy, "archived_bytes_total") >= size, seconds=PATIENCE, what="all archived"
            )
            peak = peak_mib(process.pid)
            sys.stdout.write(
                f"{PARTITIONS} partitions with {size >> 20} MiB: {at_rest} MiB of memory at the start, "
                f"{copied} when all was read, {peak} at most\n"
            )
            assert peak < MOST_MIB
