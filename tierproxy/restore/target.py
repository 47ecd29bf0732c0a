"""The cluster that is restored into: what a producer asks of it, and the topic that it must have."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence

from protocol import producing
from protocol.apis import ApiKey
from protocol.errors import ErrorCode, MalformedError, error_name
from protocol.producing import Produced
from tierproxy.access import Access
from tierproxy.broker_connection import Address, BrokerConnection, Unreachable
from tierproxy.clock import Clock
from tierproxy.errors import TierproxyError
from tierproxy.upstream import NOBODY, Cluster, TopicPartition, TopicView

REQUEST_TIMEOUT_MS = 30_000

PATIENCE = 120.0
"""Seconds without progress after which we give up."""
PAUSES = (0.05, 2.0)
"""First and longest pause between two tries, in seconds; each is twice the one before."""

SETTINGS = {
    "message.timestamp.type": "CreateTime",  # or the times would be those of the restore
    "retention.ms": "-1",  # or what is older would be deleted as soon as it is there
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "compression.type": "producer",
}
"""Of a topic that is created here."""


class Target(Cluster):
    """A Kafka cluster that is written to."""

    def __init__(self, bootstrap: Sequence[Address], access: Access, client_id: str, clock: Clock) -> None:
        super().__init__(bootstrap, access, client_id, clock)
        self._clock = clock

    async def producer_id(self) -> tuple[int, int]:
        """A new producer's id and epoch. Raises Unreachable, TierproxyError where it isn't given one."""

        def encode(version: int) -> bytes:
            return producing.init_producer_id_request()

        for pause in pauses(self._clock):
            error, producer_id, epoch = await self.ask_any(
                ApiKey.INIT_PRODUCER_ID,
                encode,
                producing.read_init_producer_id_response,
                producing.INIT_PRODUCER_ID_VERSIONS,
            )
            if error == ErrorCode.NONE:
                return producer_id, epoch
            if error not in (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.COORDINATOR_NOT_AVAILABLE):
                break
            await asyncio.sleep(pause)
        raise TierproxyError(f"the target gives no producer id: {error_name(error)} (may the account WRITE there?)")

    async def create_topic(self, name: str, partitions: int, settings: Mapping[str, str]) -> None:
        """Wait until it is there, with leaders. Raises TierproxyError, with the broker's words."""

        def encode(version: int) -> bytes:
            return producing.create_topic_request(name, partitions, -1, settings, REQUEST_TIMEOUT_MS)

        error, words = await self.ask_any(
            ApiKey.CREATE_TOPICS, encode, producing.read_create_topic_response, producing.CREATE_TOPICS_VERSIONS
        )
        if error not in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS):
            said = f": {words}" if words else ""
            raise TierproxyError(
                f"topic {name} can't be created in the target: {error_name(error)}{said}; create it yourself with "
                f"{partitions} partitions, or say what it wants (--topic-config)"
            )
        for pause in pauses(self._clock):
            topic = (await self.refresh([name])).topics.get(name)
            if topic is not None and all(part.leader != NOBODY for part in topic.partitions.values()):
                return
            await asyncio.sleep(pause)
        raise TierproxyError(f"topic {name} was created in the target, but its partitions have no leaders")

    async def offsets(self, asked: Collection[TopicPartition], at: int) -> dict[TopicPartition, int]:
        """As `list_offsets`, until all partitions' leaders have answered. Raises TierproxyError."""
        for pause in pauses(self._clock):
            found = await self.list_offsets(dict.fromkeys(asked, at))
            failed = {tp: each.error for tp, each in found.items() if each.error != ErrorCode.NONE}
            if not failed:
                return {tp: each.offset for tp, each in found.items()}
            if ErrorCode.TOPIC_AUTHORIZATION_FAILED in failed.values():
                break
            await asyncio.sleep(pause)
        tp, error = next(iter(failed.items()))
        raise TierproxyError(f"{tp}: the target does not tell its offsets: {error_name(error)}")

    async def writer(self, tp: TopicPartition) -> BrokerConnection:
        """The connection to the partition's leader for its records, which no other partition's wait for."""
        leader = self.view.leader(tp)
        return await self._connections.to(self._address(leader), f"produce {tp}")

    async def produce(self, connection: BrokerConnection, tp: TopicPartition, batch: bytearray) -> Produced:
        """Send one batch, at once: what was sent before on this connection comes before. Raises Unreachable."""
        version = connection.version_of(ApiKey.PRODUCE, *producing.PRODUCE_VERSIONS)
        body = b"".join(producing.produce_request(tp.topic, tp.partition, batch, REQUEST_TIMEOUT_MS))
        payload = await connection.request(ApiKey.PRODUCE, version, body, 2 * REQUEST_TIMEOUT_MS / 1000)
        try:
            return producing.read_produce_response(payload, version)
        except MalformedError as error:
            connection.close()
            raise Unreachable(f"a broker of the target does not answer as Kafka: {error}") from error


def pauses(clock: Clock) -> Iterator[float]:
    """Pauses between tries, in seconds, until patience is at an end."""
    pause, longest = PAUSES
    until = clock.monotonic() + PATIENCE
    while clock.monotonic() < until:
        yield pause
        pause = min(longest, 2 * pause)


def faults_of(topic: TopicView, settings: Mapping[str, str], partitions: int, oldest_ms: int, now_ms: int) -> list[str]:
    """Why records must not be written into this topic; `settings` may be empty where they can't be seen."""
    faults = []
    if len(topic.partitions) < partitions:
        faults.append(f"it has {len(topic.partitions)} partitions, {partitions} are needed")
    if settings.get("message.timestamp.type", "CreateTime") != "CreateTime":
        faults.append("its message.timestamp.type is LogAppendTime: records would lose their time (set CreateTime)")
    retention = int(settings.get("retention.ms", -1))
    deletes = "delete" in settings.get("cleanup.policy", "delete")
    if deletes and retention >= 0 and 0 <= oldest_ms < now_ms - retention:
        faults.append(
            f"its retention.ms is {retention}: older records would be deleted at once (set -1 for the restore)"
        )
    return faults
