"""What an operator does to a cluster: topics, partitions, offsets. By librdkafka's admin client."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from tests.kit.processes import wait_for

_TIMEOUT = 90.0


@contextmanager
def _admin(bootstrap: str) -> Iterator[AdminClient]:
    yield AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})


def create_topic(bootstrap: str, topic: str, partitions: int = 1, replicas: int = 1, **settings: str | int) -> None:
    """Creates it; waits for the broker's yes. Settings are Kafka's with `_` for `.`: `retention_ms=1000`."""
    config = {key.replace("_", "."): str(value) for key, value in settings.items()}
    with _admin(bootstrap) as admin:
        wanted = NewTopic(topic, num_partitions=partitions, replication_factor=replicas, config=config)
        admin.create_topics([wanted], operation_timeout=_TIMEOUT)[topic].result(_TIMEOUT)


def delete_topic(bootstrap: str, topic: str) -> None:
    with _admin(bootstrap) as admin:
        admin.delete_topics([topic], operation_timeout=_TIMEOUT)[topic].result(_TIMEOUT)


def grow_topic(bootstrap: str, topic: str, partitions: int) -> None:
    """Raises the number of partitions to `partitions`."""
    with _admin(bootstrap) as admin:
        admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(_TIMEOUT)


def configure_topic(bootstrap: str, topic: str, **settings: str | int) -> None:
    """Changes some of its settings, named as for `create_topic`."""
    entries = [
        ConfigEntry(key.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET)
        for key, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    with _admin(bootstrap) as admin:
        admin.incremental_alter_configs([resource])[resource].result(_TIMEOUT)


def earliest(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    """Per partition the log start offset, as `bootstrap` tells it."""
    return _offsets(bootstrap, topic, {p: OffsetSpec.earliest() for p in range(partitions)})


def latest(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    """Per partition the high watermark, as `bootstrap` tells it."""
    return _offsets(bootstrap, topic, {p: OffsetSpec.latest() for p in range(partitions)})


def wait_trimmed(bootstrap: str, topic: str, until: Mapping[int, int], *, seconds: float = 60) -> dict[int, int]:
    """Waits until every partition's log start is at or above its offset in `until`; returns the log starts."""
    specs = {p: OffsetSpec.earliest() for p in until}
    with _admin(bootstrap) as admin:

        def enough() -> dict[int, int] | None:
            starts = _ask(admin, topic, specs)
            return starts if all(starts[p] >= offset for p, offset in until.items()) else None

        return wait_for(enough, seconds=seconds, what=f"trimming of {topic} up to {dict(until)}", pause=0.1)


def _offsets(bootstrap: str, topic: str, specs: Mapping[int, OffsetSpec]) -> dict[int, int]:
    with _admin(bootstrap) as admin:
        return _ask(admin, topic, specs)


def _ask(admin: AdminClient, topic: str, specs: Mapping[int, OffsetSpec]) -> dict[int, int]:
    asked = {TopicPartition(topic, p): spec for p, spec in specs.items()}
    answers = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_TIMEOUT)
    return {tp.partition: future.result(_TIMEOUT).offset for tp, future in answers.items()}
