"""What tierproxy itself asks the brokers: a small Kafka client with typed questions.

This is the *service* client: it has its own connections and the service account's rights, and serves the
archiver and the gateway's own needs (which brokers exist, where logs start). Nothing that a client asked
travels on it.

Questions that only a leader can answer are grouped by leader, sent to all of them at once, and asked once
more after a metadata refresh where the leader turned out to be another. What still fails is an error code in
the answer, each partition for itself, so that one dead broker spoils only its own partitions. Two codes are
ours rather than a broker's: NETWORK_EXCEPTION (the leader can't be reached) and LEADER_NOT_AVAILABLE (there
is none).

DeleteRecords alone is never repeated here: it goes by name, and the fresh metadata may show that the name means another
topic by now.

Fetches, DeleteRecords and the archivers' group have connections of their own, so that neither a long poll nor waiting
for followers or members holds up anything else.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from protocol import codec
from protocol.apis import ApiKey
from protocol.errors import ErrorCode, MalformedError
from protocol.fetch import FetchPartition, build_fetch_request
from protocol.fetch_response import FetchResponse, parse_fetch_response
from protocol.messages import NO_TOPIC_ID
from tierproxy.access import Access
from tierproxy.broker_connection import Address, BrokerConnection, Unreachable, UnsupportedBroker
from tierproxy.clock import Clock
from tierproxy.cluster_view import (
    NOBODY,
    ClusterView,
    DeletedRecords,
    EndOfEpoch,
    ListedOffset,
    LogSizes,
    PartitionView,
    Producers,
    TopicIdentity,
    TopicPartition,
    TopicView,
    merge_metadata,
)
from tierproxy.connections import Connections

__all__ = [
    "EARLIEST",
    "LATEST",
    "MAX_TIMESTAMP",
    "NOBODY",
    "READ_COMMITTED",
    "READ_UNCOMMITTED",
    "BrokerConnection",
    "Cluster",
    "ClusterView",
    "DeletedRecords",
    "EndOfEpoch",
    "ListedOffset",
    "LogSizes",
    "PartitionView",
    "Producers",
    "TopicIdentity",
    "TopicPartition",
    "TopicView",
    "Unreachable",
    "UnsupportedBroker",
]

READ_UNCOMMITTED = 0
READ_COMMITTED = 1
LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3

FETCH_VERSIONS = (4, 17)
LAST_FETCH_BY_NAME = 12

REQUEST_TIMEOUT = 30.0
CONFIGS_PER_REQUEST = 200

_TRY_AGAIN = frozenset(
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
    }
)
"""Answers that fresh metadata may cure."""

CONTROL = "control"
FETCH = "fetch"
TRIM = "trim"
GROUP = "group"


class HasError(Protocol):
    @property
    def error(self) -> int: ...


Question = TypeVar("Question")
Answer = TypeVar("Answer", bound=HasError)
Said = TypeVar("Said")


class Cluster:
    """All brokers of one Kafka cluster, seen by the service account."""

    def __init__(self, bootstrap: Sequence[Address], access: Access, client_id: str, clock: Clock) -> None:
        self.view = ClusterView.unknown()
        """What the last `refresh` said. Replaced, never changed."""
        self._bootstrap = tuple(bootstrap)
        self._client_id = client_id
        self._connections = Connections(access, client_id, clock)

    async def start(self) -> None:
        """Learn the brokers and topics. Raises Unreachable when no bootstrap address answers."""
        await self.refresh()

    async def close(self) -> None:
        """Close every connection; whoever waits for an answer gets Unreachable."""
        self._connections.close()

    # ---- questions that any broker answers -----------------------------------------------------------------

    async def refresh(self, topics: Iterable[str] | None = None) -> ClusterView:
        """Ask for the metadata of `topics` (None: all) and return the new `view`, with the others kept.

        Topics that do not exist are absent from it. Raises Unreachable.
        """
        asked = None if topics is None else list(topics)
        answer = await self.ask_any(
            ApiKey.METADATA,
            lambda version: codec.encode_metadata_request(version, asked),
            codec.decode_metadata_response,
        )
        self.view = merge_metadata(self.view, answer, asked)
        self._connections.keep_only({*self.view.brokers.values(), *self._bootstrap})
        return self.view

    async def identity(self, topic: str) -> TopicIdentity:
        """Which topic a name stands for, said by any broker; its error tells "no such topic" from "not yours to know".

        Raises Unreachable.
        """
        answer = await self.ask_any(
            ApiKey.METADATA,
            lambda version: codec.encode_metadata_request(version, [topic]),
            codec.decode_metadata_response,
        )
        said = next((each for each in answer.topics if each.name == topic), None)
        if said is None:
            return TopicIdentity(ErrorCode.UNKNOWN_SERVER_ERROR, NO_TOPIC_ID)
        return TopicIdentity(said.error, said.topic_id)

    async def topic_configs(self, topics: Iterable[str]) -> dict[str, dict[str, str]]:
        """All settings of `topics`, defaults included. Topics that the broker refuses to tell are absent."""
        names = list(topics)
        found: dict[str, dict[str, str]] = {}
        for at in range(0, len(names), CONFIGS_PER_REQUEST):
            answer = await self.ask_any(
                ApiKey.DESCRIBE_CONFIGS,
                partial(codec.encode_topic_configs_request, topics=names[at : at + CONFIGS_PER_REQUEST]),
                codec.decode_topic_configs_response,
            )
            for topic, (error, settings) in answer.items():
                if error == ErrorCode.NONE:
                    found[topic] = settings
        return found

    async def api_versions(self, node_id: int) -> dict[int, tuple[int, int]]:
        """{api key: (first, last version)} of one broker. Raises Unreachable."""
        return dict((await self._connections.to(self._address(node_id), CONTROL)).versions)

    async def log_sizes(self, node_id: int, asked: Iterable[TopicPartition]) -> LogSizes:
        """How large the partitions' logs are on one broker, whoever leads them.

        Needs DESCRIBE on the cluster. Raises Unreachable, UnsupportedBroker.
        """
        wanted = sorted(asked)
        error, sizes = await self.ask_broker(
            node_id,
            ApiKey.DESCRIBE_LOG_DIRS,
            lambda version: codec.encode_log_dirs_request(version, wanted),
            codec.decode_log_dirs_response,
        )
        return LogSizes(error, {TopicPartition(*name): size for name, size in sizes.items()})

    # ---- questions to leaders ------------------------------------------------------------------------------

    async def list_offsets(
        self, asked: Mapping[TopicPartition, int], isolation: int = READ_UNCOMMITTED
    ) -> dict[TopicPartition, ListedOffset]:
        """The offset at a timestamp in milliseconds, or EARLIEST, LATEST or MAX_TIMESTAMP (Kafka 3.0).

        EARLIEST is the log start; LATEST the high watermark, or the last stable offset when READ_COMMITTED.
        """

        def encode(version: int, part: Mapping[TopicPartition, int]) -> bytes:
            wanted = [(tp.topic, tp.partition, -1, at) for tp, at in sorted(part.items())]
            return codec.encode_list_offsets_request(version, isolation, wanted)

        def decode(payload: memoryview, version: int) -> dict[TopicPartition, ListedOffset]:
            return {
                TopicPartition(each.topic, each.partition): ListedOffset(
                    each.error, each.offset, each.timestamp, each.leader_epoch
                )
                for each in codec.decode_list_offsets_response(payload, version).partitions
            }

        return await self._ask_leaders(
            asked, ApiKey.LIST_OFFSETS, encode, decode, lambda error: ListedOffset(error, -1, -1, -1)
        )

    async def delete_records(
        self, asked: Mapping[TopicPartition, int], timeout_ms: int = 30_000
    ) -> dict[TopicPartition, DeletedRecords]:
        """Move log starts up to the given offsets. Asked once, of the leaders that `view` names.

        REQUEST_TIMED_OUT means "unknown, probably done": the leader trims at once and then waits for its
        followers. Neither that nor NETWORK_EXCEPTION says that nothing was deleted.
        """

        def encode(version: int, part: Mapping[TopicPartition, int]) -> bytes:
            wanted = [(tp.topic, tp.partition, offset) for tp, offset in sorted(part.items())]
            return codec.encode_delete_records_request(version, timeout_ms, wanted)

        def decode(payload: memoryview, version: int) -> dict[TopicPartition, DeletedRecords]:
            return {
                TopicPartition(each.topic, each.partition): DeletedRecords(each.error, each.low_watermark)
                for each in codec.decode_delete_records_response(payload, version).partitions
            }

        return await self._ask_leaders(
            asked,
            ApiKey.DELETE_RECORDS,
            encode,
            decode,
            lambda error: DeletedRecords(error, -1),
            timeout=timeout_ms / 1000 + REQUEST_TIMEOUT,
            purpose=TRIM,
            repeat=False,
        )

    async def topic_ids(self, asked: Iterable[TopicPartition]) -> dict[TopicPartition, TopicIdentity]:
        """Which topics the names stand for right now, said by the partitions' leaders.

        Whoever leads a partition of a recreated topic knows its new id; another broker may be a moment behind.
        """

        def encode(version: int, part: Mapping[TopicPartition, None]) -> bytes:
            return codec.encode_metadata_request(version, sorted({tp.topic for tp in part}))

        def decode(payload: memoryview, version: int) -> dict[TopicPartition, TopicIdentity]:
            return {
                TopicPartition(topic.name, part.index): TopicIdentity(ErrorCode.NONE, topic.topic_id)
                for topic in codec.decode_metadata_response(payload, version).topics
                for part in topic.partitions
            }

        wanted = dict.fromkeys(asked)
        return await self._ask_leaders(
            wanted, ApiKey.METADATA, encode, decode, lambda error: TopicIdentity(error, NO_TOPIC_ID)
        )

    async def ends_of_epochs(self, asked: Mapping[TopicPartition, int]) -> dict[TopicPartition, EndOfEpoch]:
        """Where the given leader epochs end in the leaders' logs (OffsetForLeaderEpoch)."""

        def encode(version: int, part: Mapping[TopicPartition, int]) -> bytes:
            wanted = [(tp.topic, tp.partition, -1, epoch) for tp, epoch in sorted(part.items())]
            return codec.encode_epoch_ends_request(version, wanted)

        def decode(payload: memoryview, version: int) -> dict[TopicPartition, EndOfEpoch]:
            return {
                TopicPartition(each.topic, each.partition): EndOfEpoch(each.error, each.leader_epoch, each.end_offset)
                for each in codec.decode_epoch_ends_response(payload, version)
            }

        return await self._ask_leaders(
            asked, ApiKey.OFFSET_FOR_LEADER_EPOCH, encode, decode, lambda error: EndOfEpoch(error, -1, -1)
        )

    async def producers(self, asked: Iterable[TopicPartition]) -> dict[TopicPartition, Producers]:
        """Who writes to the partitions, and who has a transaction open there. Raises UnsupportedBroker before 2.8."""

        def encode(version: int, part: Mapping[TopicPartition, None]) -> bytes:
            return codec.encode_producers_request(version, sorted(part))

        def decode(payload: memoryview, version: int) -> dict[TopicPartition, Producers]:
            return {
                TopicPartition(*name): Producers(error, found)
                for name, (error, found) in codec.decode_producers_response(payload, version).items()
            }

        wanted = dict.fromkeys(asked)
        return await self._ask_leaders(
            wanted, ApiKey.DESCRIBE_PRODUCERS, encode, decode, lambda error: Producers(error, ())
        )

    async def fetch(
        self,
        node_id: int,
        partitions: Sequence[FetchPartition],
        *,
        max_wait_ms: int,
        max_bytes: int,
        min_bytes: int = 1,
    ) -> FetchResponse:
        """One READ_COMMITTED fetch at one broker.

        Here every FetchPartition names its topic *and*, if there is one, its topic id: ids are used from v13
        on, names with older brokers. The answers name both again. Raises Unreachable.
        """
        connection = await self._connections.to(self._address(node_id), FETCH)
        by_id = all(part.topic_id not in (None, NO_TOPIC_ID) for part in partitions)
        first, last = FETCH_VERSIONS
        version = connection.version_of(ApiKey.FETCH, first, last if by_id else LAST_FETCH_BY_NAME)
        by_id = version > LAST_FETCH_BY_NAME
        correlation_id = connection.next_id()
        request = build_fetch_request(
            version,
            correlation_id,
            self._client_id,
            max_wait_ms=max_wait_ms,
            min_bytes=min_bytes,
            max_bytes=max_bytes,
            isolation=READ_COMMITTED,
            partitions=[replace(part, topic=None) if by_id else replace(part, topic_id=None) for part in partitions],
        )
        payload = await connection.exchange(correlation_id, request, max_wait_ms / 1000 + REQUEST_TIMEOUT)
        response = _decoded(connection, parse_fetch_response, payload, version)
        names = {part.topic_id: part.topic for part in partitions}
        ids = {part.topic: part.topic_id for part in partitions}
        for answer in response.partitions:
            if by_id:
                answer.topic = names.get(answer.topic_id)
            else:
                answer.topic_id = ids.get(answer.topic)
        return response

    # ---- how they are asked --------------------------------------------------------------------------------

    async def _ask_leaders(
        self,
        asked: Mapping[TopicPartition, Question],
        key: ApiKey,
        encode: Callable[[int, Mapping[TopicPartition, Question]], bytes],
        decode: Callable[[memoryview, int], dict[TopicPartition, Answer]],
        failed: Callable[[int], Answer],
        timeout: float = REQUEST_TIMEOUT,
        purpose: str = CONTROL,
        repeat: bool = True,
    ) -> dict[TopicPartition, Answer]:
        answers: dict[TopicPartition, Answer] = {}
        todo: Mapping[TopicPartition, Question] = asked
        for last_try in (False, True) if repeat else (True,):
            by_leader: dict[int, dict[TopicPartition, Question]] = {}
            for tp, question in todo.items():
                by_leader.setdefault(self.view.leader(tp), {})[tp] = question
            for tp in by_leader.pop(NOBODY, {}):
                answers[tp] = failed(ErrorCode.LEADER_NOT_AVAILABLE)

            async def ask(node_id: int, part: Mapping[TopicPartition, Question]) -> None:
                try:
                    said = await self.ask_broker(
                        node_id, key, lambda version: encode(version, part), decode, timeout, purpose
                    )
                except Unreachable:  # the connection has logged it
                    answers.update((tp, failed(ErrorCode.NETWORK_EXCEPTION)) for tp in part)
                    return
                unsaid = failed(ErrorCode.UNKNOWN_SERVER_ERROR)
                answers.update((tp, said.get(tp, unsaid)) for tp in part)

            await asyncio.gather(*(ask(node_id, part) for node_id, part in by_leader.items()))
            todo = {tp: question for tp, question in todo.items() if answers[tp].error in _TRY_AGAIN}
            if last_try or not todo:
                break
            try:
                await self.refresh({tp.topic for tp in todo})
            except Unreachable:
                break
        return answers

    async def ask_any(
        self,
        key: ApiKey,
        encode: Callable[[int], bytes],
        decode: Callable[[memoryview, int], Said],
        versions: tuple[int, int] | None = None,
    ) -> Said:
        """What the first broker that answers says; those with an open connection are asked first."""
        first, last = versions or codec.CODEC_VERSIONS[key]
        addresses = dict.fromkeys([*self.view.brokers.values(), *self._bootstrap])
        reasons = []
        for address in sorted(addresses, key=lambda each: not self._connections.has(each, CONTROL)):
            try:
                connection = await self._connections.to(address, CONTROL)
                version = connection.version_of(key, first, last)
                payload = await connection.request(key, version, encode(version), REQUEST_TIMEOUT)
                return _decoded(connection, decode, payload, version)
            except Unreachable as error:
                reasons.append(str(error))
        where = "" if self.view.brokers else " (cluster.bootstrap)"
        raise Unreachable(f"no broker can be reached{where}: {'; '.join(reasons)}")

    async def ask_broker(
        self,
        node_id: int,
        key: ApiKey,
        encode: Callable[[int], bytes],
        decode: Callable[[memoryview, int], Said],
        timeout: float = REQUEST_TIMEOUT,
        purpose: str = CONTROL,
    ) -> Said:
        """What one broker says, on its connection for `purpose`. Raises Unreachable, UnsupportedBroker."""
        connection = await self._connections.to(self._address(node_id), purpose)
        version = connection.codec_version(key)
        payload = await connection.request(key, version, encode(version), timeout)
        return _decoded(connection, decode, payload, version)

    def _address(self, node_id: int) -> Address:
        address = self.view.brokers.get(node_id)
        if address is None:
            raise Unreachable(f"broker {node_id} is not in the cluster's metadata")
        return address


def _decoded(
    connection: BrokerConnection, decode: Callable[[memoryview, int], Said], payload: memoryview, version: int
) -> Said:
    try:
        return decode(payload, version)
    except MalformedError as error:
        connection.close()
        raise Unreachable(f"broker {connection.host}:{connection.port} does not answer as Kafka: {error}") from error
