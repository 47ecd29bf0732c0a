"""New topics and partitions, and topics deleted and created again, are noticed without a restart."""

import pytest

from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.processes import wait_for
from tests.kit.producing import merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import assert_same, drafts, ends


def test_a_new_topic_and_new_partitions(stage: Stage, proxied: Proxy) -> None:
    topic = stage.topic("cold.growing")
    before = produce(stage.broker, topic, drafts(300, partition=0, seed=8))
    admin.wait_trimmed(stage.broker, topic, {0: ends(before)[0] + 1})
    assert_same(before, READERS["librdkafka"](stage.gateway, topic, before))

    admin.grow_topic(stage.broker, topic, 3)
    new = merged(*(produce(stage.broker, topic, drafts(300, partition=p, seed=8)) for p in (1, 2)))
    admin.wait_trimmed(stage.broker, topic, {p: last + 1 for p, last in ends(new).items()})
    whole = merged(before, new)
    for client in ("librdkafka", "kafka-python"):
        assert_same(whole, READERS[client](stage.gateway, topic, whole))


BY_NAME = ["kafka-python", "aiokafka"]
"""Their fetches name topics, not topic ids."""


@pytest.mark.parametrize("client", ["librdkafka", "java", *BY_NAME])
def test_a_recreated_topic_never_shows_its_namesakes_records(stage: Stage, proxied: Proxy, client: str) -> None:
    topic = stage.topic(f"cold.reborn.{client}")
    old = produce(stage.broker, topic, drafts(300, partition=0, seed=9))
    admin.wait_trimmed(stage.broker, topic, {0: ends(old)[0] + 1})
    assert_same(old, READERS[client](stage.gateway, topic, old))  # the gateway knows all of the old topic now
    admin.delete_topic(stage.broker, topic)
    folders = proxied.archive / proxied.cluster / topic
    assert len(list(folders.iterdir())) == 1

    wait_for(lambda: _created(stage, topic), seconds=90, what="the topic once more", pause=0.1)
    new = produce(stage.broker, topic, drafts(200, partition=0, seed=10))
    admin.wait_trimmed(stage.broker, topic, {0: ends(new)[0] + 1})
    assert_same(new, READERS[client](stage.gateway, topic, new))
    assert len(list(folders.iterdir())) == 2, "the old archive stays, under its own topic id"


@pytest.mark.parametrize("client", BY_NAME)
def test_a_position_in_a_deleted_topic_is_out_of_range_in_its_namesake(stage: Stage, client: str) -> None:
    """These two fetch by name. Their position is one that the old archive holds, and beyond the new topic's end:
    the broker refuses it, and no fact about the old topic may turn that into old records.
    """
    topic = stage.topic(f"cold.namesake.{client}")
    old = produce(stage.broker, topic, drafts(300, partition=0, seed=17))
    if stage.proxy is not None:
        admin.wait_trimmed(stage.broker, topic, {0: ends(old)[0] + 1})
    assert_same(old, READERS[client](stage.gateway, topic, old))  # the gateway knows all of the old topic now
    admin.delete_topic(stage.broker, topic)
    wait_for(lambda: _created(stage, topic), seconds=90, what="the topic once more", pause=0.1)
    new = produce(stage.broker, topic, drafts(50, partition=0, seed=18))
    assert_same(new, READERS[client](stage.gateway, topic, new, starts={0: 100}))


def _created(stage: Stage, topic: str) -> bool:
    """Creates it; False while the broker still knows the deleted one."""
    try:
        stage.topic(topic)
    except Exception as error:
        if "TOPIC_ALREADY_EXISTS" not in str(error):
            raise
        return False
    return True


def test_a_producer_writes_while_consumers_read(stage: Stage) -> None:
    """The seam moves on under the readers: what is hot when they start is cold before they get there."""
    topic = stage.topic("cold.moving", partitions=2)
    logs = []
    for round_ in range(4):
        for p in (0, 1):
            logs.append(produce(stage.gateway, topic, drafts(250, partition=p, seed=20 + round_)))
        log = merged(*logs)
        for client in ("librdkafka", "aiokafka"):
            assert_same(log, READERS[client](stage.gateway, topic, log))
