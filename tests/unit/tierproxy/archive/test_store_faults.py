"""What stores and the ways to them do to us for longer than a moment: stalls, trickles, full disks, dead keys."""

import asyncio
import io
import os
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tests.kit.s3 import S3Server
from tests.kit.s3_faults import (
    Fault,
    Relay,
    answer,
    cut_upload,
    expired_but_for,
    flip_upload,
    hang,
    refuse,
    relay,
    stall_upload,
    trickle,
    truncate,
)
from tierproxy.archive.s3_client import S3Place
from tierproxy.archive.store import Refused, StoreError, Truncated, Unavailable
from tierproxy.archive.store_file import FileStore
from tierproxy.archive.store_s3 import S3Store

KEY = "prod/flights/manifest.json"
LONG = 48 * 1024 * 1024
"""More than the buffers between two sockets hold."""


@pytest.fixture
async def way(s3: S3Server) -> AsyncIterator[Relay]:
    async with relay(s3.endpoint_url) as one:
        yield one


@pytest.fixture
async def store(s3_place: S3Place, way: Relay) -> AsyncIterator[S3Store]:
    store = S3Store(replace(s3_place, endpoint_url=way.endpoint_url), pauses=(0.01, 0.01), answer_seconds=2)
    yield store
    await store.close()


# -- uploads ----------------------------------------------------------------------------------------------------------


async def test_an_upload_that_stands_still_is_cut_and_sent_again(store: S3Store, way: Relay) -> None:
    way.faults = [stall_upload, cut_upload]
    body = os.urandom(1 << 20) * (LONG >> 20)
    await store.put(KEY, io.BytesIO(body))
    assert way.requests == ["PUT"] * 3
    assert await store.size(KEY) == LONG
    assert await store.get_range(KEY, LONG - (1 << 20), LONG) == body[: 1 << 20]


async def test_an_upload_that_never_moves_is_given_up(store: S3Store, way: Relay) -> None:
    way.faults = [stall_upload] * 3
    with pytest.raises(Unavailable, match=r"no byte was taken for 2 s, after [1-9]"):
        await store.put(KEY, io.BytesIO(bytes(LONG)))
    assert way.requests == ["PUT"] * 3


@pytest.mark.parametrize("fault", [cut_upload, refuse])
async def test_an_upload_that_is_cut_is_sent_again(store: S3Store, way: Relay, fault: Fault) -> None:
    way.faults = [fault, fault]
    await store.put(KEY, b"x" * 1_000_000)
    assert await store.size(KEY) == 1_000_000


async def test_the_whole_of_a_call_has_a_deadline(store: S3Store, s3_place: S3Place, way: Relay) -> None:
    """No single attempt is over time here: there is always something to wait for."""
    hasty = S3Store(replace(s3_place, endpoint_url=way.endpoint_url), call_seconds=1, pauses=(0.01,) * 100)
    await store.put(KEY, b"x" * 20_000)
    way.faults = [trickle]
    with pytest.raises(Unavailable, match="get_range was not done within 1 s"):
        await hasty.get_range(KEY, 0, 20_000)
    way.faults = [hang]
    with pytest.raises(Unavailable, match="put was not done within 1 s"):
        await hasty.put(KEY, b"x")
    assert await store.size(KEY) == 20_000
    await hasty.close()


async def test_a_shortened_object_is_noticed(store: S3Store, way: Relay) -> None:
    await store.put(KEY, b"x" * 1000)
    way.faults = [truncate] * 2
    with pytest.raises(Truncated, match="500 bytes instead of"):
        await store.get_range(KEY, 0, 1000)


async def test_the_store_is_told_the_checksum_of_what_it_should_get(store: S3Store, way: Relay) -> None:
    """moto does not compare them, S3 does; what neither notices is found when it is read back."""
    way.faults = [flip_upload]
    await store.put(KEY, b"x" * 1000)
    assert way.headers[0]["x-amz-checksum-sha256"] == b64encode(sha256(b"x" * 1000).digest()).decode()
    assert (await store.get(KEY)).data != b"x" * 1000


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def filed(s3_place: S3Place, way: Relay, tmp_path: Path) -> AsyncIterator[S3Store]:
    """A store whose keys are in files, and have expired."""
    (tmp_path / "access").write_text("stale")
    (tmp_path / "secret").write_text("kit-secret")
    place = replace(
        s3_place,
        endpoint_url=way.endpoint_url,
        access_key_file=tmp_path / "access",
        secret_key_file=tmp_path / "secret",
    )
    way.faults = [expired_but_for("fresh")] * 100
    store = S3Store(place, pauses=(0.01, 0.01))
    yield store
    await store.close()


async def test_expired_keys_are_refused_until_there_are_new_ones(filed: S3Store, way: Relay, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Refused, match=r"ExpiredToken .* To do: renew the credentials"):
            await filed.put(KEY, b"x")
    assert way.requests == ["PUT"] * 2
    (tmp_path / "access").write_text("fresh\n")
    await filed.put(KEY, b"y")
    assert (await filed.get(KEY)).data == b"y"
    assert way.requests == ["PUT"] * 4 + ["GET"]


async def test_many_requests_with_expired_keys_find_the_new_ones(filed: S3Store, way: Relay, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        await filed.put(KEY, b"x")
    (tmp_path / "access").write_text("fresh")
    await asyncio.gather(*(filed.put(f"{KEY}-{i}", b"y") for i in range(10)))


async def test_files_that_are_being_replaced_do_no_harm(filed: S3Store, tmp_path: Path) -> None:
    (tmp_path / "access").write_text("fresh")
    await filed.put(KEY, b"x")
    (tmp_path / "access").unlink()
    (tmp_path / "secret").write_text("")
    await filed.put(KEY, b"y")


async def test_a_file_with_keys_that_is_not_there(filed: S3Store, tmp_path: Path) -> None:
    (tmp_path / "access").unlink()
    with pytest.raises(Refused, match=r"access' can't be read"):
        await filed.put(KEY, b"x")


# -- counters ---------------------------------------------------------------------------------------------------------


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_requests_errors_and_retries_are_counted(store: S3Store, way: Relay) -> None:
    before = (
        counted("tierproxy_store_requests_total", operation="put"),
        counted("tierproxy_store_errors_total", operation="put", kind="Unavailable"),
        counted("tierproxy_store_retries_total"),
    )
    way.faults = [answer(503, "SlowDown")] * 3
    with pytest.raises(Unavailable):
        await store.put(KEY, b"x")
    after = (
        counted("tierproxy_store_requests_total", operation="put"),
        counted("tierproxy_store_errors_total", operation="put", kind="Unavailable"),
        counted("tierproxy_store_retries_total"),
    )
    assert [b - a for a, b in zip(before, after, strict=True)] == [3, 3, 2]


# -- directories ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


async def test_a_full_disk_is_told_and_leaves_room_when_it_has_some_again(small_disk: Path) -> None:
    store = FileStore(small_disk / "archive")
    version = await store.put_if("a/manifest.json", b"before", None)
    await store.put("a/segment", bytes(600_000))
    for body in (bytes(700_000), io.BytesIO(bytes(700_000))):
        with pytest.raises(Unavailable, match=r"a/more: No space left on device\. Make room there"):
            await store.put("a/more", body)
    with pytest.raises(Unavailable, match="Make room"):
        await store.put_if("a/manifest.json", bytes(700_000), version)
    assert sorted(path.name for path in (small_disk / "archive" / "a").iterdir()) == [
        ".lock",
        "manifest.json",
        "segment",
    ]
    assert (await store.get("a/manifest.json")).data == b"before"
    await store.delete("a/segment")
    await store.put("a/more", bytes(700_000))
    await store.put_if("a/manifest.json", b"after", version)
    await store.close()


async def test_a_disk_that_hangs_is_told_after_a_while(tmp_path: Path) -> None:
    """A pipe in an object's place: opening it to read hangs until somebody opens it to write, as on a dead mount."""
    store = FileStore(tmp_path, answer_seconds=0.5)
    (tmp_path / "a").mkdir()
    pipe = tmp_path / "a" / "segment"
    os.mkfifo(pipe)
    with pytest.raises(Unavailable, match="has not done it within"):
        await store.get_range("a/segment", 0, 5)
    await store.put("a/other", b"x")  # there are more threads than the one that hangs
    reading = asyncio.gather(*(store.get("a/segment") for _ in range(8)), return_exceptions=True)
    assert {type(each) for each in await reading} == {Unavailable}
    with pipe.open("wb") as end:  # the disk is back
        end.write(b"hello")
    pipe.unlink()
    while True:
        try:
            await store.put("a/segment", b"hello")
            break
        except StoreError:  # threads that still hold the pipe's end go one after the other
            continue
    assert (await store.get("a/segment")).data == b"hello"
    await store.close()
