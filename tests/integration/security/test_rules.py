"""Who may not read gets no archived byte, who may not describe no archived offset, by whatever way they ask.

All archived bytes are in tierproxy's memory by then: others have read them. What counts is what the broker says to
each client's own connection.
"""

import asyncio

import pytest
from confluent_kafka.admin import AclOperation

from protocol.errors import ErrorCode
from tests.integration.security.conftest import (
    LEAVER,
    LISTER,
    READER,
    STRANGER,
    TOPIC,
    Secured,
    allow,
    login,
    revoke,
    rule,
)
from tests.integration.security.raw import Client, client
from tests.kit.clients import READERS
from tierproxy.upstream import EARLIEST

DENIED = ErrorCode.TOPIC_AUTHORIZATION_FAILED
FIRST_TIMESTAMP = 0


@pytest.fixture(autouse=True)
async def _in_memory(secured: Secured) -> None:
    async with client(secured.proxy.port, READER) as reader:
        assert (await reader.cold()).records


async def known_id(secured: Secured) -> bytes:
    """The topic's id, which a stranger may have from elsewhere."""
    async with client(secured.proxy.port, READER) as reader:
        return await reader.topic_id()


async def test_who_may_read_gets_records_and_offsets(secured: Secured) -> None:
    async with client(secured.proxy.port, READER) as reader:
        for topic_id in (None, await reader.topic_id()):
            answer = await reader.fetch(0, topic_id)
            assert (answer.error, answer.log_start) == (0, 0)
            assert answer.records
        for timestamp in (EARLIEST, FIRST_TIMESTAMP):
            assert (await reader.list_offset(timestamp)).offset == 0


@pytest.mark.parametrize("user", [LISTER, STRANGER])
async def test_who_may_not_read_gets_no_byte(secured: Secured, user: str) -> None:
    async with client(secured.proxy.port, user) as denied:
        for offset in (0, 100, 10_000):
            for topic_id in (None, await known_id(secured)):
                answer = await denied.fetch(offset, topic_id)
                assert answer.error == DENIED
                assert not answer.records
                assert (answer.high_watermark, answer.log_start) == (-1, -1)


async def test_who_may_describe_gets_offsets_all_the_same(secured: Secured) -> None:
    async with client(secured.proxy.port, LISTER) as lister:
        assert (await lister.list_offset(EARLIEST)).offset == 0


async def test_who_may_not_describe_gets_no_offset(secured: Secured) -> None:
    async with client(secured.proxy.port, STRANGER) as stranger:
        for timestamp in (EARLIEST, FIRST_TIMESTAMP):
            answer = await stranger.list_offset(timestamp)
            assert (answer.error, answer.offset, answer.timestamp) == (DENIED, -1, -1)
        assert await stranger.topic_id() == bytes(16)


async def test_who_loses_the_right_loses_the_archive_on_the_same_connection(secured: Secured) -> None:
    taken = rule(LEAVER, AclOperation.READ)
    async with client(secured.proxy.port, LEAVER) as leaver:
        assert (await leaver.cold()).records
        await asyncio.to_thread(revoke, secured.kafka.bootstrap, taken)
        await until_denied(leaver)
        for offset in (0, 100):
            answer = await leaver.fetch(offset)
            assert (answer.error, bytes(answer.records or b"")) == (DENIED, b"")
        assert (await leaver.list_offset(EARLIEST)).error == DENIED
        await asyncio.to_thread(allow, secured.kafka.bootstrap, taken)
        async with asyncio.timeout(90):
            while (await leaver.cold()).error:
                pass


async def until_denied(reader: Client) -> None:
    """A broker hears of rules a moment later."""
    async with asyncio.timeout(90):
        while not (await reader.fetch(0)).error:
            pass


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kafka-python", "TopicAuthorizationFailed"),
        ("aiokafka", "TopicAuthorizationFailed"),
        ("librdkafka", "TOPIC_AUTHORIZATION_FAILED"),
    ],
)
def test_stock_clients_are_told_so(secured: Secured, name: str, words: str) -> None:
    with pytest.raises(Exception, match=r"(?s).*") as caught:
        READERS[name](secured.proxy.bootstrap, TOPIC, secured.log, login=login(LISTER))
    assert words in f"{type(caught.value).__name__}: {caught.value!r}"


def test_java_is_told_so(secured: Secured) -> None:
    """Kafka's console consumer says so, prints nothing and ends as if all were well."""
    assert READERS["java"](secured.proxy.bootstrap, TOPIC, secured.log, login=login(LISTER)) == {0: []}
