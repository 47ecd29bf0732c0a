"""The configuration changes while tierproxy runs, on a real Kafka: other policies, a broken file, a restart needed.

With one process and with two workers beside an archiver.
"""

import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.processes import wait_for
from tests.kit.producing import produce
from tests.kit.proxy import Proxy
from tests.kit.records import assert_same, drafts

RECORDS = 500
QUICK: dict[str, Any] = {"archive": "local", "segment": {"bytes": "64KiB", "age": "200ms"}}


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def proxy(stage: Stage, proxied: Proxy, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """It archives nothing at first. Its file is a link to a link, as a ConfigMap's."""
    proxy = Proxy(
        tmp_path / "proxy",
        stage.broker,
        [{"match": "*", "archive": "none"}],
        cluster="reload",
        settings={"workers": request.param},
    )
    volume = proxy.directory / "volume"
    volume.mkdir()
    put(volume, proxy.config)
    proxy.config_file = volume / "tierproxy.yaml"
    proxy.config_file.symlink_to("..data/tierproxy.yaml")
    with proxy:
        yield proxy


def put(volume: Path, config: Mapping[str, Any]) -> None:
    """As Kubernetes puts a changed ConfigMap: a new folder, and the link to it replaced."""
    folder = volume / f"..{len([*volume.iterdir()])}"
    folder.mkdir()
    (folder / "tierproxy.yaml").write_text(yaml.safe_dump(dict(config)))
    (volume / "..new").symlink_to(folder.name)
    (volume / "..new").rename(volume / "..data")


def reads(proxy: Proxy, result: str) -> float:
    found = re.findall(rf'^tierproxy_config_reads_total\{{result="{result}"\}} (\S+)$', proxy.get("/metrics")[1], re.M)
    return float(found[0]) if found else 0.0


def refused(proxy: Proxy, why: str) -> list[str]:
    return re.findall(rf'^tierproxy_config_refused\{{why="{why}"\}} (\S+)$', proxy.get("/metrics")[1], re.M)


def test_policies_change_while_it_runs(stage: Stage, proxy: Proxy) -> None:
    volume = proxy.config_file.parent
    topic = stage.topic(f"reload.{proxy.config['workers']}")
    log = produce(stage.broker, topic, drafts(RECORDS, partition=0, seed=5))
    assert_same(log, READERS["librdkafka"](proxy.bootstrap, topic, log))

    broken = {**proxy.config, "topics": [{"match": "reload.*", "archive": "lokal"}], "limits": {"connections": 0}}
    put(volume, broken)
    wait_for(lambda: refused(proxy, "faults") == ["1.0"], seconds=60, what="word of a broken file")
    assert "what was in force stays" in proxy.log()
    assert "topics[0].archive (line" in proxy.log()
    assert "limits.connections (line" in proxy.log()
    assert proxy.get("/ready")[0] == 200

    put(volume, {**proxy.config, "topics": [{"match": "/reload\\.[0-9]+/", **QUICK}]})
    wait_for(lambda: proxy.manifests(topic).get(0, {}).get("end_offset") == RECORDS, seconds=90, what="archive")
    assert (refused(proxy, "faults"), reads(proxy, "applied")) == (["0.0"], 2.0)
    assert "configuration: topics[/reload" in proxy.log()

    # What the broker no longer has comes from the archive, also for clients who knew the topic before.
    client = AdminClient({"bootstrap.servers": stage.broker, "log_level": 2})
    for done in client.delete_records([TopicPartition(topic, 0, RECORDS - 10)]).values():
        done.result(60)
    assert admin.earliest(stage.broker, topic, 1) == {0: RECORDS - 10}
    for reader in ("librdkafka", "kafka-python"):
        assert_same(log, READERS[reader](proxy.bootstrap, topic, log))

    # In place, and SIGHUP.
    policy = {"match": "/reload\\.[0-9]+/", **QUICK, "cold_read_rate": "100MiB/s"}
    proxy.config_file.write_text(yaml.safe_dump({**proxy.config, "topics": [policy], "log": {"level": "debug"}}))
    assert proxy.process is not None
    os.kill(proxy.process.pid, signal.SIGHUP)
    wait_for(lambda: reads(proxy, "applied") == 3, seconds=60, what="another configuration")
    assert "].cold_read_rate: none → 100MiB/s" in proxy.log()
    produce(stage.broker, stage.topic(f"{topic}0"), drafts(1, partition=0, seed=6))
    moved = re.compile(rf" DEBUG .*: {re.escape(topic)}0-0: COPY -> UPLOAD")
    wait_for(lambda: moved.search(proxy.log()), seconds=60, what="other log level")
    assert_same(log, READERS["librdkafka"](proxy.bootstrap, topic, log))

    put(volume, {**proxy.config, "topics": [], "cache": {"memory": "64MiB"}})
    wait_for(lambda: refused(proxy, "restart") == ["1.0"], seconds=60, what="word of a restart")
    assert "configuration: cache.memory: 256MiB → 64MiB needs a restart" in proxy.log()
    assert_same(log, READERS["librdkafka"](proxy.bootstrap, topic, log))

    put(volume, {**proxy.config, "topics": []})
    wait_for(
        lambda: "just proxied from now on: reload." in proxy.log(), seconds=60, what="end of the archive's service"
    )
    assert refused(proxy, "restart") == ["0.0"]
    assert "Traceback" not in proxy.log()
