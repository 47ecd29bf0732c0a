"""One broker's port: frames in, one request of a connection at a time, answers out in the order of the requests.

As Kafka's SocketServer: a frame with a silly size, an API or version that is not offered, and a body that can't be read
end the connection without an answer. A throttled answer goes out at once and the connection is not read meanwhile.
"""

import asyncio
import logging
import struct
from functools import partial
from typing import TYPE_CHECKING

from protocol.apis import ApiKey
from protocol.errors import MalformedError
from protocol.headers import read_request_header
from tests.fakes.broker import (
    api_00_produce,
    api_01_fetch,
    api_02_list_offsets,
    api_03_metadata,
    api_10_find_coordinator,
    api_18_api_versions,
    api_21_delete_records,
    api_23_offset_for_leader_epoch,
    api_32_describe_configs,
    api_60_describe_cluster,
)
from tests.fakes.broker.messages import decode_request
from tests.fakes.broker.steering import Answer, GoOn, HangUp, Request, Steer

if TYPE_CHECKING:
    from tests.fakes.broker.cluster import FakeCluster

log = logging.getLogger("tests.fakes.broker")

MAX_REQUEST = 100 << 20

APIS = {
    ApiKey.PRODUCE: api_00_produce.answer,
    ApiKey.FETCH: api_01_fetch.answer,
    ApiKey.LIST_OFFSETS: api_02_list_offsets.answer,
    ApiKey.METADATA: api_03_metadata.answer,
    ApiKey.FIND_COORDINATOR: api_10_find_coordinator.answer,
    ApiKey.API_VERSIONS: api_18_api_versions.answer,
    ApiKey.DELETE_RECORDS: api_21_delete_records.answer,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: api_23_offset_for_leader_epoch.answer,
    ApiKey.DESCRIBE_CONFIGS: api_32_describe_configs.answer,
    ApiKey.DESCRIBE_CLUSTER: api_60_describe_cluster.answer,
}

_BROKEN = (MalformedError, ValueError, TypeError, IndexError, KeyError, AttributeError, struct.error)
"""How bytes that are no request show in kafka-python's decoders."""


class Node:
    """One broker. `host` and `port` are where it listens and what it tells clients."""

    def __init__(self, cluster: "FakeCluster", node_id: int) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.rack: str | None = None
        self.host, self.port = "127.0.0.1", 0
        self.throttle_next_ms = 0
        """For how long the next fetch is throttled."""
        self.connections = 0
        """How many were accepted so far."""
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    @property
    def listening(self) -> bool:
        return self._server is not None

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    async def start(self, port: int | None = None) -> None:
        """Listen at `port`, or where it listened before; the first time at any that is free."""
        self.port = self.port if port is None else port
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Away at once, as with kill -9: connections are cut."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        serving = [task for task in self._open.values() if task is not None]
        self.cut()
        if serving:
            await asyncio.wait(serving)

    async def move(self) -> None:
        """The same broker at another address."""
        await self.stop()
        await self.start(0)

    def cut(self) -> None:
        """Cut every connection; new ones are welcome."""
        for writer, task in self._open.items():
            writer.transport.abort()
            if task is not None:
                task.cancel()  # it may be waiting for records

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open[writer] = asyncio.current_task()
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big", signed=True)
                if not 0 <= size <= MAX_REQUEST:
                    break
                payload = await reader.readexactly(size)
                muted = await self._one(payload, writer)
                await asyncio.sleep(muted / 1000)
        except (HangUp, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            del self._open[writer]
            writer.close()

    async def _one(self, payload: bytes, writer: asyncio.StreamWriter) -> int:
        """Answer one request; for how many ms the connection is muted then."""
        try:
            header = read_request_header(payload)
            first, last = self.cluster.versions.get(header.api_key, (0, -1))
            if header.api_key == ApiKey.API_VERSIONS and header.version > last:
                request = Request(self.node_id, header, payload, None)
            elif first <= header.version <= last:
                request = Request(self.node_id, header, payload, decode_request(payload, header))
            else:
                raise HangUp
        except _BROKEN as fault:
            log.debug("node %d: no request: %s", self.node_id, fault)
            raise HangUp from fault
        self.cluster.seen.append(request)
        muted = 0
        if header.api_key == ApiKey.FETCH and self.throttle_next_ms:
            muted, self.throttle_next_ms = self.throttle_next_ms, 0
            answer: Answer = api_01_fetch.throttled(request, muted)
        else:
            answer = await self._steered(request)
        if answer is not None:
            await self._send(writer, len(answer).to_bytes(4, "big") + answer)
        return muted

    async def _steered(self, request: Request) -> Answer:
        steers = [steer for steer in self.cluster.steers if steer.wants(request)]

        async def do() -> Answer:
            return await APIS[ApiKey(request.key)](self, request)

        go_on: GoOn = do
        for steer in reversed(steers):
            go_on = partial(_steer, steer, request, go_on)
        return await go_on()

    async def _send(self, writer: asyncio.StreamWriter, frame: bytes) -> None:
        step = self.cluster.piece_bytes or len(frame)
        for at in range(0, len(frame), step):
            writer.write(frame[at : at + step])
            await writer.drain()
            if step < len(frame):
                await asyncio.sleep(0)


async def _steer(steer: Steer, request: Request, go_on: GoOn) -> Answer:
    steer.used += 1
    return await steer.rule(request, go_on)
