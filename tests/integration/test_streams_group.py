"""Streams groups (KIP-1071) pass: what looks like brokers' addresses in their answers are the applications' own.

No client library is needed for that: a member of such a group is a heartbeat that is told which tasks it has.
"""

import asyncio
import struct

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from protocol.headers import request_header
from protocol.wire import Cursor, put_compact_string
from tests.fakes.asking import Connection
from tests.integration.conftest import Stage

RETRIABLE = (
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.UNKNOWN_SERVER_ERROR,  # of Kafka 4.3 whose coordinator has not heard of the topic yet
)
GROUP, MEMBER = "streams-application", "1" * 22
ENDPOINT = put_compact_string("app.example.com") + struct.pack(">H", 8080)
NOTHING, NONE = b"\0", b"\1"  # null, and an empty array
NO_TAGS = b"\0"


def heartbeat(epoch: int, topic: str, *, joins: bool) -> bytes:
    """Of the group's only member. When it joins, it says what it runs: one task for each partition of `topic`."""
    body = put_compact_string(GROUP) + put_compact_string(MEMBER) + struct.pack(">ii", epoch, 0) + NOTHING * 2
    if joins:
        reads = b"\2" + put_compact_string(topic)
        subtopology = put_compact_string("0") + reads + NONE * 5 + NO_TAGS
        body += struct.pack(">i", 60_000) + b"\1" + struct.pack(">i", 0) + b"\2" + subtopology + NO_TAGS
        body += NONE * 3 + put_compact_string("process") + b"\1" + ENDPOINT + NO_TAGS + NONE
    else:
        body += struct.pack(">i", -1) + b"\xff" + NOTHING * 4 + b"\xff" + NOTHING
    body += NOTHING * 2 + b"\0" + NO_TAGS
    return request_header(ApiKey.STREAMS_GROUP_HEARTBEAT, 0, 1, "streams") + body


async def test_a_streams_group_is_told_its_own_endpoints(stage: Stage) -> None:
    topic = stage.topic("streams-input", 2)
    host, port = stage.gateway.split(":")
    async with asyncio.timeout(120), await Connection.to((host, int(port))) as client:
        epoch, told = 0, b""
        while ENDPOINT not in told:
            await client.ask(ApiKey.FIND_COORDINATOR, 4, key_type=0, coordinator_keys=[GROUP])  # makes Kafka's topic
            client.send_payload(heartbeat(epoch, topic, joins=epoch == 0))
            told = await client.receive()
            cur = Cursor(told, 9)
            error = cur.i16()
            why = cur.compact_string()
            assert error in (ErrorCode.NONE, *RETRIABLE), why
            if error == ErrorCode.NONE:
                assert cur.compact_string() == MEMBER
                epoch = cur.i32()
            await asyncio.sleep(0.1)
