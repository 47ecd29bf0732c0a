"""Both ends in one loop, over a real socket pair."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from tierproxy.config import parse_config
from tierproxy.workers.channel import Channel, Message, packed, unpacked


class End:
    """What came out at one end."""

    def __init__(self, end: socket.socket) -> None:
        self.heard: asyncio.Queue[tuple[Message, socket.socket | None]] = asyncio.Queue()
        self.over = asyncio.Event()
        self.channel = Channel(end, lambda *heard: self.heard.put_nowait(heard), self.over.set)

    def close(self) -> None:
        self.channel.close()
        while not self.heard.empty():
            _, attached = self.heard.get_nowait()
            if attached is not None:
                attached.close()


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    first, second = (End(end) for end in socket.socketpair())
    yield first, second
    first.close()
    second.close()


async def test_messages_come_whole_and_in_order_however_many(ends: tuple[End, End]) -> None:
    """More than the socket takes at once."""
    here, there = ends
    for number in range(3_000):
        here.channel.say({"number": number, "text": "x" * 300})
    for number in range(3_000):
        message, attached = await there.heard.get()
        assert message["number"] == number
        assert attached is None


async def test_a_socket_comes_with_its_message(ends: tuple[End, End]) -> None:
    here, there = ends
    pairs = [socket.socketpair() for _ in range(20)]
    for number, (theirs, _) in enumerate(pairs):
        here.channel.say({"before": number})
        assert here.channel.hand_over({"number": number}, theirs)
        theirs.close()
    for number, (_, ours) in enumerate(pairs):
        assert await there.heard.get() == ({"before": number}, None)
        message, attached = await there.heard.get()
        assert message["number"] == number
        assert attached is not None
        with attached, ours:
            attached.send(bytes([number]))
            assert ours.recv(10) == bytes([number])


async def test_a_socket_is_not_handed_to_who_does_not_listen(ends: tuple[End, End]) -> None:
    here, _ = ends
    theirs, ours = socket.socketpair()
    with theirs, ours:
        given = 0
        while here.channel.hand_over({"at": 1}, theirs):
            given += 1
            assert given < 100_000
        here.channel.say({"text": "later"})
        assert not here.channel.hand_over({"at": 1}, theirs)


async def test_the_end_of_one_side_is_told_the_other(ends: tuple[End, End]) -> None:
    here, there = ends
    here.channel.say({"last": True})
    here.channel.close()
    await there.over.wait()
    assert (await there.heard.get())[0] == {"last": True}
    there.channel.say({"too": "late"})
    theirs, ours = socket.socketpair()
    with theirs, ours:
        assert not there.channel.hand_over({"at": 1}, theirs)


async def test_sockets_that_nobody_asked_for_are_closed_with_the_channel(ends: tuple[End, End]) -> None:
    here, there = ends
    theirs, ours = socket.socketpair()
    socket.send_fds(here.channel._end, [b'{"half'], [theirs.fileno()])
    theirs.close()
    here.channel.close()
    await there.over.wait()
    there.channel.close()
    with ours:
        assert ours.recv(1) == b""


async def test_a_configuration_comes_through_with_its_secrets(ends: tuple[End, End]) -> None:
    config = parse_config(
        "cluster: {name: c, bootstrap: [b:1]}\nlisten: {advertised_host: x}\ndefaults: {archive: a}\n"
        "archives: {a: {url: 's3://bucket', access_key: k, secret_key: topsecret}}\n"
        f"topics: [{', '.join(f'{{match: t{number}}}' for number in range(2_000))}]"
    )
    here, there = ends
    here.channel.say({"config": packed(config)})
    message, _ = await there.heard.get()
    come = unpacked(message["config"])
    assert come == config
    secret = come.archives["a"].secret_key
    assert secret is not None
    assert secret.get_secret_value() == "topsecret"
    assert come.topics[7].origin("archive") == "defaults"
