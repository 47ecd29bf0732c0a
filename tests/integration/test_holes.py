"""The brokers' retention overtakes the archiver: what is lost is recorded, and readers skip it, or wait for a word."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.producing import merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import assert_same, drafts


@pytest.mark.parametrize("on_gap", ["skip", "halt"])
def test_retention_overtakes_the_archiver(stage: Stage, proxied: Proxy, tmp_path: Path, on_gap: str) -> None:
    topic = stage.topic(f"hole.{on_gap}")
    policy: dict[str, Any] = {
        "match": topic,
        "archive": "local",
        "segment": {"bytes": "64KiB", "age": "200ms"},
        "keep_on_broker": {"bytes": "0B"},
        "on_gap": on_gap,
    }
    proxy = Proxy(tmp_path, stage.broker, [policy, {"match": "*", "archive": "none"}])
    with proxy:
        before = produce(stage.broker, topic, drafts(200, partition=0, seed=71))
        admin.wait_trimmed(stage.broker, topic, {0: 200})
    produce(stage.broker, topic, drafts(150, partition=0, seed=72))
    admin.configure_topic(stage.broker, topic, retention_ms=1)
    admin.wait_trimmed(stage.broker, topic, {0: 350})
    admin.configure_topic(stage.broker, topic, retention_ms=-1)
    with proxy:
        after = produce(stage.broker, topic, drafts(100, partition=0, seed=73))
        admin.wait_trimmed(stage.broker, topic, {0: 450})
        (gap,) = proxy.manifests(topic)[0]["gaps"]
        assert (gap["start"], gap["end"]) == (200, 350)
        assert "offsets 200 to 349 are lost" in proxy.log()
        rest = merged(before, after)
        with ThreadPoolExecutor(1) as threads:
            reading = threads.submit(READERS["librdkafka"], proxy.bootstrap, topic, rest)
            if on_gap == "halt":
                process = proxy.process
                assert process is not None
                process.wait_until(lambda: "archive accept-gap" in proxy.log(), seconds=60, what="word of who waits")
                assert not reading.done()
                assert "accepted that 200 to 349 are lost" in proxy.cli("archive", "accept-gap", topic).stdout
            assert_same(rest, reading.result())
