"""A client that asks single questions as some user and shows the very answer, error codes included."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protocol.apis import ApiKey
from protocol.codec import (
    decode_list_offsets_response,
    decode_metadata_response,
    encode_list_offsets_request,
    encode_metadata_request,
)
from protocol.errors import ErrorCode
from protocol.fetch import FetchPartition, build_fetch_request
from protocol.fetch_response import FetchedPartition, parse_fetch_response
from protocol.messages import OffsetAnswer
from protocol.sasl import (
    HandshakeAnswer,
    authenticate_request,
    handshake_request,
    read_authenticate_answer,
    read_handshake_answer,
)
from tests.integration.security.conftest import TOPIC, password
from tests.kit.login import Mechanism
from tierproxy.access import Access
from tierproxy.broker_connection import BrokerConnection
from tierproxy.config import SaslConfig

_SECONDS = 90.0


class Client:
    """On one connection; partition 0 of `TOPIC` is what it asks about."""

    def __init__(self, connection: BrokerConnection, access: Access) -> None:
        self.connection = connection
        self._access = access

    async def fetch(self, offset: int, topic_id: bytes | None = None) -> FetchedPartition:
        """By name (v12), or by id (v17)."""
        version = 12 if topic_id is None else 17
        asked = FetchPartition(TOPIC if topic_id is None else None, topic_id, 0, -1, offset, -1, 1 << 20)
        correlation_id = self.connection.next_id()
        request = build_fetch_request(
            version,
            correlation_id,
            "raw",
            max_wait_ms=500,
            min_bytes=1,
            max_bytes=1 << 20,
            isolation=0,
            partitions=[asked],
        )
        payload = await self.connection.exchange(correlation_id, request, _SECONDS)
        (answer,) = parse_fetch_response(payload, version).partitions
        return answer

    async def cold(self, offset: int = 0) -> FetchedPartition:
        """Fetches until there are records or an error: a cold answer may come empty at first, to be asked for again."""
        async with asyncio.timeout(_SECONDS):
            while True:
                answer = await self.fetch(offset)
                if answer.error or answer.records:
                    return answer

    async def list_offset(self, timestamp: int) -> OffsetAnswer:
        version = self.connection.codec_version(ApiKey.LIST_OFFSETS)
        body = encode_list_offsets_request(version, 0, [(TOPIC, 0, -1, timestamp)])
        payload = await self.connection.request(ApiKey.LIST_OFFSETS, version, body, _SECONDS)
        (answer,) = decode_list_offsets_response(payload, version).partitions
        return answer

    async def topic_id(self) -> bytes:
        """As Metadata tells it to who may know."""
        version = self.connection.codec_version(ApiKey.METADATA)
        body = encode_metadata_request(version, [TOPIC])
        payload = await self.connection.request(ApiKey.METADATA, version, body, _SECONDS)
        (topic,) = decode_metadata_response(payload, version).topics
        return topic.topic_id

    async def shake_hands(self, mechanism: str) -> HandshakeAnswer:
        payload = await self.connection.request(ApiKey.SASL_HANDSHAKE, 1, handshake_request(mechanism), _SECONDS)
        return read_handshake_answer(payload)

    async def log_in_again(self) -> None:
        """Re-authenticates on the same connection (KIP-368)."""
        assert self._access.sasl is not None
        assert (await self.shake_hands(self._access.sasl.mechanism)).error == ErrorCode.NONE
        mechanism = self._access.begin()
        message: bytes | None = mechanism.start()
        while message is not None:
            body = authenticate_request(2, message)
            payload = await self.connection.request(ApiKey.SASL_AUTHENTICATE, 2, body, _SECONDS)
            answer = read_authenticate_answer(payload, 2)
            assert answer.error == ErrorCode.NONE, answer.message
            message = mechanism.step(answer.token)


@asynccontextmanager
async def client(
    port: int, user: str | None, mechanism: Mechanism = "PLAIN", *, secret: str | None = None
) -> AsyncIterator[Client]:
    """A connection of `user`'s to a port on 127.0.0.1; None: of nobody yet."""
    access = Access()
    if user is not None:
        about = {"mechanism": mechanism, "username": user, "password": secret or password(user)}
        access = Access(sasl=SaslConfig.model_validate(about))
    connection = BrokerConnection("127.0.0.1", port, "raw", access)
    try:
        await connection.connect()
        yield Client(connection, access)
    finally:
        connection.close()
