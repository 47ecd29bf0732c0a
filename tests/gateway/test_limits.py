"""Rates of cold reads, told as brokers tell of their quotas."""

from pathlib import Path
from typing import Any

import pytest

from protocol.apis import ApiKey
from protocol.batches import walk
from tests.fakes.asking import Ask, Connection, fetch_fields, got
from tests.fakes.broker import FakeCluster
from tests.fakes.subjects import LONG
from tests.gateway.stage import Gateway, fill, read_until
from tierproxy.config import LimitsConfig
from tierproxy.telemetry import COLD_THROTTLE_SECONDS, COLD_THROTTLED

BATCHES = 20
SLOW = LimitsConfig(cold_read_rate=1024)
"""So slow that one batch is paid for longer than a test takes to ask for the next."""


async def throttled(client: Connection, version: int, *asks: Ask, **limits: Any) -> tuple[int, list[bytes]]:
    """The answer's throttle_time_ms, and its records by partition."""
    answer = await client.ask(ApiKey.FETCH, version, **fetch_fields(version, asks, **limits))
    return answer.throttle_time_ms, [each.records or b"" for each in got(version, answer)]


async def used_up(gateway: Gateway, brokers: FakeCluster) -> str | bytes:
    """Topic `cold.t`: all but its last batch is archived, and a client has just read a lot of it; its id."""
    topic = brokers.create_topic("cold.t")
    fill(topic[0], BATCHES)
    await gateway.archive(topic[0], upto=10 * (BATCHES - 1))
    async with await gateway.connect(1) as client:
        await read_until(client, 12, Ask("cold.t", 0, 0))
        gateway.spend(1 << 16)
    return topic.topic_id


@pytest.mark.parametrize("version", range(4, 19))
async def test_clients_are_told_to_stay_away_and_not_kept_longer_than_they_wait(
    brokers: FakeCluster, tmp_path: Path, version: int
) -> None:
    async with Gateway(brokers, tmp_path, limits=SLOW) as gateway, await gateway.connect(1) as client:
        topic_id = await used_up(gateway, brokers)
        key = "cold.t" if version < 13 else topic_id
        before = COLD_THROTTLED.labels("process")._value.get(), COLD_THROTTLE_SECONDS.labels("process")._value.get()
        assert await throttled(client, version, Ask(key, 0, 0), max_wait=0) == (1000, [b""])
        assert COLD_THROTTLED.labels("process")._value.get() == before[0] + 1
        assert COLD_THROTTLE_SECONDS.labels("process")._value.get() >= before[1] + 1


async def test_hot_records_go_out_at_once_and_who_reads_them_is_not_told_to_stay_away(
    brokers: FakeCluster, tmp_path: Path
) -> None:
    hot = brokers.create_topic("hot.t")
    (records,) = fill(hot[0], 1)
    async with Gateway(brokers, tmp_path, limits=SLOW) as gateway, await gateway.connect(1) as client:
        topic_id = await used_up(gateway, brokers)
        both = Ask(topic_id, 0, 0), Ask(hot.topic_id, 0, 0)
        assert await throttled(client, 17, *both, max_wait=LONG) == (0, [b"", records])
        end = Ask(hot.topic_id, 0, 10)
        assert await throttled(client, 17, both[0], end, max_wait=LONG) == (0, [b"", b""]), "what comes meanwhile waits"
        assert await throttled(client, 17, both[0], max_wait=0) == (0, [b""]), "hot records are in the client's hands"


@pytest.mark.parametrize("rate", [16 << 10, None])
async def test_an_archive_is_read_whole_at_any_rate(brokers: FakeCluster, tmp_path: Path, rate: int | None) -> None:
    topic = brokers.create_topic("cold.t")
    batches = fill(topic[0], BATCHES)
    policy: dict[str, object] = {"match": "cold.t", "archive": "main", "cold_read_rate": rate}
    async with Gateway(brokers, tmp_path, policies=[policy]) as gateway, await gateway.connect(1) as client:
        await gateway.archive(topic[0], upto=10 * BATCHES, segments=(50, 100))
        read, offset = b"", 0
        while offset < 10 * BATCHES:
            found = await read_until(client, 17, Ask(topic.topic_id, 0, offset))
            assert found.records
            for header, data in walk(memoryview(found.records)):
                read += data
                offset = header.next_offset
        assert read == b"".join(batches)
