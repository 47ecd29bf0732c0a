"""A Kafka broker that has every topic and no record any more: its logs begin where they end, at the archive's end.

It answers what the gateway asks and what it passes on, as a broker would whose logs were trimmed to the end:

    ApiVersions           what is in `OFFERED`, and nothing else
    Metadata              all topics, led by this one broker
    ListOffsets           beginning and end are the archive's end; no record for any time
    Fetch                 OFFSET_OUT_OF_RANGE below the end; at the end it waits, in vain
    OffsetForLeaderEpoch  from the manifests' epochs
    FindCoordinator       this broker
    JoinGroup and so on   groups that last as long as the process (groups.py)
    Produce               refused, by an error at which producers stop instead of trying again

No broker gives permission where an archive is served alone; so this one listens on the loopback interface, for the
gateway.
"""

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Mapping

from protocol import codec, serving, serving_groups
from protocol.api_versions import unsupported_api_versions
from protocol.apis import ApiKey
from protocol.errors import ErrorCode, MalformedError
from protocol.fetch import FetchPartition, FetchRequest, scan_fetch_request
from protocol.fetch_response import FetchedPartition, FetchResponse, encode_fetch_response
from protocol.headers import RequestHeader, read_request_header
from protocol.messages import EpochEnd, ListOffsetsResponse, MetadataPartition, MetadataTopic, OffsetAnswer
from tierproxy.alone.groups import Groups
from tierproxy.alone.stock import HeldTopic, Stock
from tierproxy.archive.manifest import NO_EPOCH, Manifest

log = logging.getLogger("tierproxy.alone")

NODE_ID = 0
MAX_REQUEST = 2 << 20
"""Largest request, in bytes; all that is answered with anything but a refusal is far below."""

OFFERED: Mapping[int, tuple[int, int]] = {
    ApiKey.FETCH: (4, 18),
    ApiKey.LIST_OFFSETS: codec.CODEC_VERSIONS[ApiKey.LIST_OFFSETS],
    **serving.SERVED,
}
READ_ONLY = "this is an archive that tierproxy serves without brokers: it can't be written to"

LATEST = -1
EARLIEST = -2
EARLIEST_LOCAL = -4
READ_COMMITTED = 1


class EmptyBroker:
    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self._groups = Groups()
        self._server: asyncio.Server | None = None
        self._self = serving.Endpoint(NODE_ID, "", 0)

    async def start(self, host: str) -> int:
        """Listen at a free port, and return it."""
        self._server = await asyncio.start_server(self._serve, host, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        self._self = serving.Endpoint(NODE_ID, host, port)
        return port

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: a request after the other, as brokers do."""
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big", signed=True)
                if not 0 <= size <= MAX_REQUEST:
                    break
                payload = await reader.readexactly(size)
                header = read_request_header(payload)
                answer = await self.answer(header, payload)
                if answer is None:
                    break
                writer.write(len(answer).to_bytes(4, "big") + answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except MalformedError as error:
            log.debug("a connection is closed: %s", error)
        finally:
            writer.close()

    async def answer(self, header: RequestHeader, payload: bytes) -> bytes | None:
        """The payload of the answer; None where the connection must be closed instead. MalformedError."""
        key, version, correlation_id = header.api_key, header.version, header.correlation_id
        first, last = OFFERED.get(key, (0, -1))
        if not first <= version <= last:
            if key == ApiKey.API_VERSIONS:
                return unsupported_api_versions(correlation_id)
            raise MalformedError(f"API {key} in version {version} is not offered")
        body = memoryview(payload)[header.body_at :]
        match key:
            case ApiKey.FETCH:
                return await self._fetch(scan_fetch_request(payload, header), correlation_id)
            case ApiKey.LIST_OFFSETS:
                asked = codec.decode_list_offsets_request(body, version).partitions
                answers = ListOffsetsResponse(partitions=[self._offset(*each) for each in asked])
                return codec.encode_list_offsets_response(answers, version, correlation_id)
            case ApiKey.METADATA:
                return self._metadata(body, version, correlation_id)
            case ApiKey.API_VERSIONS:
                return serving.api_versions_answer(version, correlation_id, OFFERED)
            case ApiKey.OFFSET_FOR_LEADER_EPOCH:
                ends = [self._end_of_epoch(*each) for each in serving.epoch_ends_question(body, version)]
                return serving.epoch_ends_answer(version, correlation_id, ends)
            case ApiKey.FIND_COORDINATOR:
                return serving_groups.coordinator_answer(body, version, correlation_id, self._self)
            case ApiKey.PRODUCE:
                refused = ErrorCode.POLICY_VIOLATION
                return serving.produce_refusal(body, version, correlation_id, refused, READ_ONLY)
            case _:
                return await self._about_groups(header, body)

    async def _about_groups(self, header: RequestHeader, body: memoryview) -> bytes:
        version, correlation_id = header.version, header.correlation_id
        match header.api_key:
            case ApiKey.JOIN_GROUP:
                client_id = (header.client_id or b"").decode("utf-8", "replace")
                group_id, asked = serving_groups.join_question(body, version, client_id)
                return serving_groups.join_answer(version, correlation_id, await self._groups.join(group_id, asked))
            case ApiKey.SYNC_GROUP:
                synced = await self._groups.sync(*serving_groups.sync_question(body, version))
                return serving_groups.sync_answer(version, correlation_id, synced)
            case ApiKey.HEARTBEAT:
                error = self._groups.heartbeat(*serving_groups.heartbeat_question(body, version))
                return serving_groups.heartbeat_answer(version, correlation_id, error)
            case ApiKey.LEAVE_GROUP:
                group_id, members = serving_groups.leave_question(body, version)
                errors = [self._groups.leave(group_id, *member) for member in members]
                return serving_groups.leave_answer(version, correlation_id, members, errors)
            case ApiKey.OFFSET_COMMIT:
                group_id, member_id, generation, offsets = serving_groups.commit_question(body, version)
                errors = self._groups.commit(group_id, member_id, generation, offsets)
                return serving_groups.commit_answer(version, correlation_id, offsets, errors)
            case _:
                return serving_groups.committed_answer(body, version, correlation_id, self._groups.committed)

    # -- topics -----------------------------------------------------------------------------------------------------

    def _metadata(self, body: memoryview, version: int, correlation_id: int) -> bytes:
        asked = serving.metadata_question(body, version)
        topics: list[MetadataTopic | tuple[str | bytes, int]] = []
        for key in self._stock.topics if asked is None else asked:
            topic = self._stock.topic(key)
            unknown = ErrorCode.UNKNOWN_TOPIC_ID if isinstance(key, bytes) else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            topics.append((key, unknown) if topic is None else _described(topic))
        return serving.metadata_answer(version, correlation_id, self._stock.cluster_id, self._self, topics)

    # -- offsets ----------------------------------------------------------------------------------------------------

    def _offset(self, topic: str, partition: int, timestamp: int) -> OffsetAnswer:
        manifest = self._stock.manifest(topic, partition)
        if manifest is None:
            return OffsetAnswer(topic, partition, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)
        if timestamp in (LATEST, EARLIEST, EARLIEST_LOCAL):
            return OffsetAnswer(topic, partition, ErrorCode.NONE, -1, manifest.end_offset, manifest.last_epoch)
        return OffsetAnswer(topic, partition, ErrorCode.NONE, -1, -1)

    def _end_of_epoch(self, topic: str, partition: int, epoch: int) -> EpochEnd:
        manifest = self._stock.manifest(topic, partition)
        if manifest is None:
            return EpochEnd(topic, partition, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)
        return EpochEnd(topic, partition, ErrorCode.NONE, *end_of_epoch(manifest, epoch))

    # -- fetches ----------------------------------------------------------------------------------------------------

    async def _fetch(self, request: FetchRequest, correlation_id: int) -> bytes:
        partitions = [self._fetched(each, request.isolation) for each in request.partitions]
        if all(each.error == ErrorCode.NONE for each in partitions):
            await asyncio.sleep(max(0, request.max_wait_ms) / 1000)
        response = FetchResponse(request.version, correlation_id, 0, 0, 0, partitions, b"")
        return b"".join(encode_fetch_response(response))

    def _fetched(self, asked: FetchPartition, isolation: int) -> FetchedPartition:
        key = asked.topic if asked.topic is not None else asked.topic_id
        assert key is not None
        manifest = self._stock.manifest(key, asked.index)
        if manifest is None:
            known = self._stock.topic(key) is not None or isinstance(key, str)
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if known else ErrorCode.UNKNOWN_TOPIC_ID
            return _partition(asked, error, -1, None)
        if asked.fetch_offset != manifest.end_offset:
            return _partition(asked, ErrorCode.OFFSET_OUT_OF_RANGE, -1, None)
        return _partition(asked, ErrorCode.NONE, manifest.end_offset, [] if isolation == READ_COMMITTED else None)


def end_of_epoch(manifest: Manifest, epoch: int) -> tuple[int, int]:
    """The largest known epoch that is not above `epoch`, and where it ends (Kafka: LeaderEpochFileCache.endOffsetFor);
    -1 twice where `epoch` is above all."""
    if epoch == NO_EPOCH or epoch > manifest.last_epoch:
        return NO_EPOCH, -1
    if epoch == manifest.last_epoch:
        return epoch, manifest.end_offset
    above = bisect_right(manifest.epochs, epoch, key=lambda row: row[0])
    floor = manifest.epochs[above - 1][0] if above else epoch
    return floor, manifest.epochs[above][1]


def _described(topic: HeldTopic) -> MetadataTopic:
    partitions = tuple(
        MetadataPartition(ErrorCode.NONE, index, NODE_ID, manifest.last_epoch)
        for index, manifest in topic.partitions.items()
    )
    return MetadataTopic(ErrorCode.NONE, topic.name, topic.topic_id, topic.name.startswith("__"), partitions)


def _partition(
    asked: FetchPartition, error: ErrorCode, end: int, aborted: list[tuple[int, int]] | None
) -> FetchedPartition:
    return FetchedPartition(
        asked.topic, asked.topic_id, asked.index, error, end, end, end, aborted, -1, memoryview(b""), b""
    )
