"""Every stock consumer reads a topic from offset 0, out of the archive and on into the broker's log."""

import pytest

from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.producing import CODECS, merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import Log, assert_same, drafts

RECORDS = 2500


@pytest.fixture(scope="module")
def codecs(stage: Stage) -> tuple[str, Log]:
    """A topic whose partition n was produced with codec n; the first part of each is in the archive alone."""
    topic = stage.topic("seam.codecs", partitions=len(CODECS))
    logs = [
        produce(stage.broker, topic, drafts(RECORDS, partition=p, seed=1), compression_type=codec)
        for p, codec in enumerate(CODECS)
    ]
    log = merged(*logs)
    stage.wait_trimmed(topic, log)
    return topic, log


@pytest.mark.parametrize("client", READERS)
def test_reads_all_codecs_across_the_seam(stage: Stage, codecs: tuple[str, Log], client: str) -> None:
    topic, log = codecs
    assert_same(log, READERS[client](stage.gateway, topic, log))


def test_the_broker_alone_no_longer_has_it(stage: Stage, proxied: Proxy, codecs: tuple[str, Log]) -> None:
    topic, log = codecs
    on_broker = admin.earliest(stage.broker, topic, len(CODECS))
    assert all(0 < on_broker[p] < len(log[p]) for p in log), on_broker
    assert admin.earliest(stage.gateway, topic, len(CODECS)) == dict.fromkeys(log, 0)
    assert admin.latest(stage.gateway, topic, len(CODECS)) == admin.latest(stage.broker, topic, len(CODECS))
