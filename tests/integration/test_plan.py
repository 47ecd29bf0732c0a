"""`tierproxy plan` at a real Kafka: it changes nothing, and what it says comes true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.kit import admin
from tests.kit.kafka import Cluster
from tests.kit.producing import produce
from tests.kit.proxy import Proxy
from tests.kit.records import drafts
from tierproxy.clock import SystemClock

TOPIC = "plan.true"
PARTITIONS = 2
RECORDS = 1500
DAY_MS = 86_400_000
POLICY: dict[str, Any] = {"match": TOPIC, "archive": "local", "segment": {"bytes": "256KiB", "age": "1s"}}


def plan(proxy: Proxy, *arguments: str, status: int = 0) -> dict[str, Any]:
    done = proxy.cli("plan", "--json", "--partitions", *arguments, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def partitions(answer: dict[str, Any]) -> list[dict[str, Any]]:
    (topic,) = answer["policies"][0]["topics"]
    found: list[dict[str, Any]] = topic["partitions"]
    return found


def state(kafka: Cluster, proxy: Proxy) -> tuple[object, ...]:
    """All that a plan might change."""
    files = {file: file.read_bytes() for file in proxy.archive.rglob("*") if file.is_file()}
    logs = admin.earliest(kafka.bootstrap, TOPIC, PARTITIONS), admin.latest(kafka.bootstrap, TOPIC, PARTITIONS)
    return files, proxy.archive.exists(), logs


def asked_of_the_store(proxy: Proxy) -> dict[str, float]:
    found = re.findall(r'^tierproxy_store_requests_total\{operation="(\w+)"\} (\S+)$', proxy.get("/metrics")[1], re.M)
    return {operation: float(count) for operation, count in found}


def test_what_is_planned_comes_true(kafka: Cluster, tmp_path: Path) -> None:
    """First nothing is archived: sizes are measured, a sample says how well it compresses, and how far a policy by time
    would trim depends on segments that are still to be made. Then all of it is, and the effect of another
    `keep_on_broker` is told to the offset, before anybody loads it."""
    admin.create_topic(kafka.bootstrap, TOPIC, PARTITIONS, retention_ms=-1, segment_bytes=1 << 20)
    now_ms = SystemClock().now_ms()
    for age in (20, 2):  # days; nothing grows as old as 10 days while this runs
        for partition in range(PARTITIONS):
            start_ms = now_ms - age * DAY_MS
            produce(kafka.bootstrap, TOPIC, drafts(RECORDS, partition=partition, seed=age, start_ms=start_ms))
    proxy = Proxy(tmp_path, kafka.bootstrap, [{**POLICY, "keep_on_broker": {"time": "10d"}}])
    before = state(kafka, proxy)
    answer = plan(proxy)
    assert state(kafka, proxy) == before
    assert before[0] == {}
    planned = answer["total"]
    assert (planned["backlog_offsets"], planned["unknown"], planned["unpressed"]) == (2 * RECORDS * PARTITIONS, 0, 0)
    assert {(part["offset_bytes"]["source"], part["exact"]) for part in partitions(answer)} == {("measured", False)}

    with proxy:
        assert proxy.process is not None
        proxy.process.wait_until(lambda: archived_whole(proxy), seconds=60, what="all of it archived")
        old = {number: behind_old_segments(found, now_ms) for number, found in proxy.manifests(TOPIC).items()}
        starts = admin.wait_trimmed(kafka.bootstrap, TOPIC, old)
        asked = asked_of_the_store(proxy)
    made = [each for found in proxy.manifests(TOPIC).values() for each in found["segments"]]
    assert planned["backlog_bytes"] == pytest.approx(sum(each["plain_size"] for each in made), rel=0.02)
    assert planned["backlog_stored"] == pytest.approx(sum(each["stored_size"] for each in made), rel=0.15)
    assert planned["backlog_objects"] == pytest.approx(len(made), abs=PARTITIONS)
    a_segment = 2 * RECORDS * PARTITIONS / len(made)
    for part in partitions(answer):
        assert part["trim_to"] == pytest.approx(starts[part["partition"]], abs=a_segment)
    once = planned["once"]
    assert once["puts"] == pytest.approx(asked["put"] + asked["put_if"], rel=0.25)
    assert once["gets"] == pytest.approx(asked["get"] + asked["size"] + asked["get_range"], rel=0.35)
    assert once["lists"] == asked["list"]

    proxy.write_config({**proxy.config, "topics": [{**POLICY, "keep_on_broker": {"bytes": "300KiB"}}]})
    before = state(kafka, proxy)
    answer = plan(proxy)
    assert state(kafka, proxy) == before
    will = {part["partition"]: part["trim_to"] for part in partitions(answer)}
    assert {part["exact"] for part in partitions(answer)} == {True}
    assert (answer["total"]["backlog_offsets"], answer["total"]["archived_objects"]) == (0, len(made))
    assert all(will[number] > starts[number] for number in will)
    refused = proxy.cli("plan", "plan.false", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no topic that is to be archived is called plan.false" in refused.stderr
    with proxy:
        assert admin.wait_trimmed(kafka.bootstrap, TOPIC, will) == will


def archived_whole(proxy: Proxy) -> bool:
    found = proxy.manifests(TOPIC)
    return len(found) == PARTITIONS and all(each["end_offset"] == 2 * RECORDS for each in found.values())


def behind_old_segments(manifest: dict[str, Any], now_ms: int) -> int:
    """Where the log begins when all segments older than ten days are trimmed."""
    ends: list[int] = [
        each["last_offset"] + 1 for each in manifest["segments"] if each["max_timestamp"] < now_ms - 10 * DAY_MS
    ]
    return max(ends)
