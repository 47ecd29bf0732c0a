"""A broker or a store that is away: said once, retried, and no harm to what does not need it."""

from collections import Counter
from pathlib import Path
from typing import Any

from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.kafka import Cluster
from tests.kit.producing import merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import assert_same, drafts, ends
from tests.kit.s3 import S3Server

EVERYTHING: dict[str, Any] = {
    "match": "*",
    "archive": "local",
    "segment": {"bytes": "64KiB", "age": "200ms"},
    "keep_on_broker": {"bytes": "0B"},
}


def test_broker_that_goes_and_comes_back(tmp_path: Path, proxied: Proxy) -> None:
    own = Cluster(tmp_path / "kafka")
    with own as kafka, Proxy(tmp_path / "proxy", kafka.bootstrap, [EVERYTHING]) as proxy:
        admin.create_topic(kafka.bootstrap, "coming", 1, retention_ms=-1)
        first = produce(kafka.bootstrap, "coming", drafts(400, partition=0, seed=14))
        admin.wait_trimmed(kafka.bootstrap, "coming", {0: ends(first)[0] + 1})
        kafka.nodes[0].stop()
        process = proxy.process
        assert process is not None
        process.wait_until(
            lambda: "no broker can be reached" in proxy.log(), seconds=90, what="word that no broker answers"
        )
        assert proxy.get("/live")[0] == 200
        kafka.nodes[0].restart()
        proxy.wait_ready()
        second = produce(proxy.bootstrap, "coming", drafts(400, partition=0, seed=15))
        log = merged(first, second)
        admin.wait_trimmed(kafka.bootstrap, "coming", {0: ends(log)[0] + 1})
        assert_same(log, READERS["librdkafka"](proxy.bootstrap, "coming", log))
        said = [line.split(" ", 1)[1] for line in proxy.log().splitlines() if " WARNING " in line]
        # Gateway and archiver each have a view of their own, and a broker that starts may refuse once more; but
        # it was away for dozens of retries.
        assert max(Counter(said).values()) <= 3, "retries were logged again:\n" + "\n".join(said)


def test_store_that_is_away_at_first(stage: Stage, proxied: Proxy, tmp_path: Path) -> None:
    """Hot traffic does not notice; nothing is trimmed; when the store is there, the archive catches up.

    The hot reader names its offset: where a topic begins can't be said as long as the archive can't be asked.
    """
    store = S3Server(tmp_path)
    policy = {**EVERYTHING, "match": "away.*", "archive": "cloud"}
    topic = stage.topic("away.first")
    behind = Proxy(
        *(tmp_path / "proxy", stage.broker, [policy, {"match": "*", "archive": "none"}]),
        archives={"cloud": store.archive("late")},
        cluster="late",
        wait=False,
    )
    with behind as proxy:
        assert proxy.process is not None
        proxy.process.wait_until(lambda: proxy.get("/live")[0] == 200, seconds=90, what="life")
        log = produce(proxy.bootstrap, topic, drafts(500, partition=0, seed=16))
        assert_same(log, READERS["librdkafka"](proxy.bootstrap, topic, log, starts={0: 0}))
        assert admin.earliest(stage.broker, topic, 1) == {0: 0}
        with store:
            store.make_bucket("late")
            admin.wait_trimmed(stage.broker, topic, {0: ends(log)[0] + 1})
            assert_same(log, READERS["librdkafka"](proxy.bootstrap, topic, log))
