"""Archived topics written into a Kafka again, compared with what was committed of them."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Stage
from tests.kit import PROJECT, admin
from tests.kit.clients import READERS
from tests.kit.kafka import Cluster
from tests.kit.processes import Process, wait_for
from tests.kit.producing import CODECS, Recorder, merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import Draft, Log, assert_same, count, drafts, ends, first_at

PARTITIONS = range(len(CODECS))
START = 1_357_000_000_000


def wait_archived(proxy: Proxy, topic: str, log: Log) -> None:
    def complete() -> bool:
        found = proxy.manifests(topic)
        return all(p in found and int(found[p]["end_offset"]) > end for p, end in ends(log).items())

    wait_for(complete, seconds=120, what=f"complete archive of {topic}", pause=0.1)


def renumbered(log: Log) -> Log:
    """As the target has them: nothing but these, from offset 0 on."""
    return {p: [replace(r, offset=at) for at, r in enumerate(records)] for p, records in log.items()}


@pytest.fixture(scope="module")
def archived(stage: Stage, proxied: Proxy) -> tuple[str, Log]:
    """Every codec, transactions with each of them, committed and aborted, one across segments; what is committed."""
    topic = stage.topic("kept.restore", partitions=len(CODECS))
    logs = []
    for p, codec in enumerate(CODECS):
        logs.append(produce(stage.broker, topic, drafts(500, partition=p, seed=51), compression_type=codec))
        long = Recorder(stage.broker, topic, transactional=True, compression_type=codec)
        short = Recorder(stage.broker, topic, transactional=True, compression_type=codec)
        long.begin()
        long.send(drafts(100, partition=p, seed=52))
        long.flush()
        for turn in range(5):
            short.begin()
            short.send(drafts(60, partition=p, seed=53 + turn))
            if turn % 2:
                short.abort()
            else:
                short.commit()
        if p % 2:
            long.commit()
        else:
            long.abort()
        logs += [short.log, long.log, produce(stage.broker, topic, drafts(10, partition=p, seed=60))]
    log = merged(*logs)
    wait_archived(proxied, topic, log)
    return topic, log


def restore(proxy: Proxy, topic: str, target: str, state: Path, *more: str, check: bool = True) -> dict[str, Any]:
    command = ("restore", topic, "--into", _broker(proxy), "--rename", f"{topic}={target}", "--state", str(state))
    done = proxy.cli(*command, "--json", *more, check=check)
    answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return {**answer, "status": done.returncode, "said": done.stderr}


def _broker(proxy: Proxy) -> str:
    return ",".join(proxy.config["cluster"]["bootstrap"])


@pytest.mark.parametrize("client", ["librdkafka", "java"])
def test_a_topic_comes_back_as_its_readers_saw_it(
    stage: Stage, proxied: Proxy, archived: tuple[str, Log], tmp_path: Path, client: str
) -> None:
    topic, log = archived
    target = f"restored.{client}"
    plan = restore(proxied, topic, target, tmp_path, "--dry-run")
    assert plan["ok"]
    assert sum(each["records_at_most"] for each in plan["topics"][0]["partitions"]) >= count(log)
    said = restore(proxied, topic, target, tmp_path)
    assert [each["records"] for each in said["partitions"]] == [len(log[p]) for p in PARTITIONS]
    expected = renumbered(log)
    assert_same(expected, READERS[client](stage.broker, target, expected))
    assert admin.latest(stage.broker, target, len(CODECS)) == {p: len(log[p]) for p in PARTITIONS}
    again = restore(proxied, topic, target, tmp_path, "--resume")
    assert again["partitions"] == said["partitions"]


def test_killed_again_and_again_it_leaves_no_gap_and_no_duplicate(
    stage: Stage, proxied: Proxy, archived: tuple[str, Log], tmp_path: Path
) -> None:
    topic, log = archived
    target = "restored.killed"
    command = [sys.executable, "-m", "tierproxy", "restore", topic, "--config", str(proxied.config_file)]
    command += ["--into", stage.broker, "--rename", f"{topic}={target}", "--state", str(tmp_path), "--resume"]
    kills = 0
    before = -1
    while True:
        slowly = [] if kills == 4 else ["--rate", "100KiB"]
        process = Process("restore", [*command, *slowly], log=tmp_path / "restore.log", cwd=PROJECT)
        if kills == 4:
            wait_for(lambda: not process.alive, seconds=120, what="end of the restore")  # noqa: B023  # called here
            assert process.returncode == 0, process.tail()
            break

        def further() -> bool:
            return _written(stage.broker, target) > before  # noqa: B023  # called here

        process.wait_until(further, seconds=60, what="records in the target")
        process.kill()
        kills += 1
        before = _written(stage.broker, target) + 100
        assert before < count(log), "it was killed in the middle"
    expected = renumbered(log)
    assert_same(expected, READERS["librdkafka"](stage.broker, target, expected))


def test_a_broker_that_is_killed_meanwhile_gets_the_rest_when_it_is_back(
    proxied: Proxy, archived: tuple[str, Log], tmp_path: Path
) -> None:
    topic, log = archived
    with Cluster(tmp_path / "kafka") as other:
        command = [sys.executable, "-m", "tierproxy", "restore", topic, "--config", str(proxied.config_file)]
        command += ["--into", other.bootstrap, "--state", str(tmp_path), "--rate", "100KiB"]
        process = Process("restore", command, log=tmp_path / "restore.log", cwd=PROJECT)
        process.wait_until(lambda: _written(other.bootstrap, topic) > 0, seconds=60, what="records in the target")
        other.nodes[0].kill()
        assert process.alive
        other.nodes[0].restart()
        wait_for(lambda: not process.alive, seconds=120, what="end of the restore")
        assert process.returncode == 0, process.tail()
        expected = renumbered(log)
        assert_same(expected, READERS["librdkafka"](other.bootstrap, topic, expected))


def _written(bootstrap: str, topic: str) -> int:
    try:
        return sum(admin.latest(bootstrap, topic, len(CODECS)).values())
    except Exception:  # noqa: BLE001  # it isn't there yet
        return -1


def test_a_time_range_and_old_offsets_as_headers(
    stage: Stage, proxied: Proxy, archived: tuple[str, Log], tmp_path: Path
) -> None:
    topic, log = archived
    first, last = START + 100_000, START + 200_000
    expected: Log = {}
    for p, records in log.items():
        bounds = first_at(records, first), first_at(records, last)
        assert bounds[0] is not None
        assert bounds[1] is not None
        expected[p] = [
            replace(r, headers=(*r.headers, ("was", str(r.offset).encode())))
            for r in records
            if bounds[0].offset <= r.offset < bounds[1].offset
        ]
    assert all(0 < len(expected[p]) < len(log[p]) for p in PARTITIONS)
    times = ("--from", "2013-01-01T00:28:20Z", "--to", "2013-01-01T00:30:00Z")
    restore(proxied, topic, "restored.times", tmp_path, *times, "--offset-header", "was")
    got = READERS["java"](stage.broker, "restored.times", renumbered(expected))
    assert_same(renumbered(expected), got)


def test_one_partition_into_a_topic_with_all_of_them(
    stage: Stage, proxied: Proxy, archived: tuple[str, Log], tmp_path: Path
) -> None:
    topic, log = archived
    restore(proxied, topic, "restored.one", tmp_path, "--partition", "3")
    assert admin.latest(stage.broker, "restored.one", len(CODECS)) == {p: len(log[3]) * (p == 3) for p in PARTITIONS}
    restore(proxied, topic, "restored.one", tmp_path, "--partition", "1")
    expected = renumbered({p: log[p] for p in (1, 3)})
    assert_same(expected, READERS["kafka-python"](stage.broker, "restored.one", expected))


def test_times_that_the_broker_set_stay(stage: Stage, proxied: Proxy, tmp_path: Path) -> None:
    topic = "kept.append-time"
    admin.create_topic(stage.broker, topic, 1, message_timestamp_type="LogAppendTime", internal_segment_bytes=65_536)
    log = produce(stage.broker, topic, drafts(300, partition=0, seed=71), compression_type="zstd")
    wait_archived(proxied, topic, log)
    source = READERS["librdkafka"](stage.broker, topic, log)
    assert source[0][0].timestamp > START * 1.1, "the time is the broker's"
    restore(proxied, topic, "restored.append-time", tmp_path)
    assert_same(renumbered(source), READERS["librdkafka"](stage.broker, "restored.append-time", source))


def test_what_stands_in_the_way_is_said(
    stage: Stage, proxied: Proxy, archived: tuple[str, Log], tmp_path: Path
) -> None:
    topic, _ = archived

    def refused(target: str, *more: str) -> str:
        said = restore(proxied, topic, target, tmp_path, *more, check=False)
        assert said["status"] == 1
        return str(said["said"])

    admin.create_topic(stage.broker, "target.small", 2, retention_ms=-1)
    assert "target.small: it has 2 partitions, 5 are needed" in refused("target.small")
    admin.create_topic(stage.broker, "target.append", 5, retention_ms=-1, message_timestamp_type="LogAppendTime")
    assert "records would lose their time" in refused("target.append")
    admin.create_topic(stage.broker, "target.week", 5)
    assert "older records would be deleted at once" in refused("target.week", "--dry-run")
    admin.create_topic(stage.broker, "target.full", 5, retention_ms=-1)
    produce(stage.broker, "target.full", drafts(1, partition=3, seed=1))
    assert "its partition 3 isn't empty" in refused("target.full")
    admin.create_topic(stage.broker, "target.tight", 5, retention_ms=-1, max_message_bytes=1000)
    said = refused("target.tight")
    assert "MESSAGE_TOO_LARGE" in said
    assert "max.message.bytes" in said
    assert "go on with --resume, or delete" in refused("target.tight")


def test_somebody_else_in_the_target_is_noticed(
    stage: Stage, proxied: Proxy, archived: tuple[str, Log], tmp_path: Path
) -> None:
    topic, _ = archived
    restore(proxied, topic, "restored.shared", tmp_path, "--to", "100")
    (file,) = tmp_path.glob("restore-*.json")
    state = json.loads(file.read_text())
    assert state["partitions"]["0"]["records"] == 100
    for progress in state["partitions"].values():
        progress["stop"] = 200  # as if it had been asked for more, and died there
    file.write_text(json.dumps(state))
    strange = Draft(0, b"strange", b"strange", (), START)
    produce(stage.broker, "restored.shared", [strange])
    said = restore(proxied, topic, "restored.shared", tmp_path, "--to", "100", "--resume", check=False)
    assert said["status"] == 1
    assert "holds something else at offset 100 of the target than what was restored" in said["said"]
