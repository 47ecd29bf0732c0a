"""What only S3 can do to us: errors, lost answers, retries, limits. A relay in front of moto's server makes them."""

import asyncio
import io
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from errno import EIO
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tests.kit.s3 import S3Server
from tests.kit.s3_faults import (
    Fault,
    Relay,
    answer,
    cut_body,
    drop,
    forbid_silently,
    hang,
    ignore_conditions,
    ignore_range,
    lose_answer,
    no_fault,
    relay,
    slow,
)
from tierproxy.archive.s3_client import S3Place
from tierproxy.archive.store import Conflict, NotFound, Refused, StoreError, Truncated, Unavailable
from tierproxy.archive.store_s3 import S3Store

KEY = "prod/flights/manifest.json"


def bulk_reads(end: str) -> float:
    return REGISTRY.get_sample_value("tierproxy_store_bulk_reads_total", {"end": end}) or 0.0


SLOW_DOWN = answer(503, "SlowDown")


@pytest.fixture
async def way(s3: S3Server) -> AsyncIterator[Relay]:
    async with relay(s3.endpoint_url) as one:
        yield one


@pytest.fixture
async def store(s3_place: S3Place, way: Relay) -> AsyncIterator[S3Store]:
    store = S3Store(replace(s3_place, endpoint_url=way.endpoint_url), pauses=(0.01, 0.01), connections=3)
    yield store
    await store.close()


# -- the first requests ---------------------------------------------------------------------------------------------


async def test_warming_up_asks_in_both_ways_and_raises_nothing(store: S3Store, way: Relay) -> None:
    await store.warm_up(KEY)  # nothing is there
    await store.put(KEY, b"x")
    way.requests.clear()
    await store.warm_up(KEY)
    assert way.requests == ["GET", "GET"]
    way.faults = [hang]
    await store.warm_up(KEY)
    way.faults = [answer(403, "AccessDenied")]
    await store.warm_up(KEY)


# -- retries --------------------------------------------------------------------------------------------------------

PASSING: list[Fault] = [
    SLOW_DOWN,
    answer(500, "InternalError"),
    answer(502, ""),
    answer(504, "GatewayTimeout"),
    answer(429, "TooManyRequests"),
    answer(400, "RequestTimeout"),
    answer(400, "BadDigest"),
    answer(400, "XAmzContentChecksumMismatch"),
    answer(409, "ConditionalRequestConflict"),
    drop,
]


@pytest.mark.parametrize("fault", PASSING)
async def test_what_passes_is_tried_again(store: S3Store, way: Relay, fault: Fault) -> None:
    way.faults = [fault, fault]
    await store.put(KEY, b"hello")
    way.faults = [fault, fault]
    assert (await store.get(KEY)).data == b"hello"
    way.faults = [fault]
    assert await store.get_range(KEY, 1, 3) == b"el"
    way.faults = [fault]
    assert await store.size(KEY) == 5
    way.faults = [fault]
    assert [info.key async for info in store.list("")] == [KEY]
    way.faults = [fault]
    version = await store.put_if(KEY, b"bye", (await store.get(KEY)).version)
    assert (await store.get(KEY)).version == version
    way.faults = [fault]
    await store.delete(KEY)
    assert [info async for info in store.list("")] == []


async def test_retries_come_to_an_end(store: S3Store, way: Relay) -> None:
    way.faults = [SLOW_DOWN] * 3
    with pytest.raises(Unavailable, match="SlowDown"):
        await store.get(KEY)
    assert len(way.requests) == 3


async def test_what_will_not_pass_is_not_tried_again(store: S3Store, way: Relay) -> None:
    way.faults = [answer(403, "AccessDenied")] * 3
    with pytest.raises(Refused):
        await store.put(KEY, b"x")
    assert len(way.requests) == 1


async def test_a_file_is_sent_from_its_start_again(store: S3Store, way: Relay) -> None:
    way.faults = [SLOW_DOWN, lose_answer]
    body = b"0123456789" * 100_000
    await store.put(KEY, io.BytesIO(body))
    assert way.requests == ["PUT"] * 3
    assert (await store.get(KEY)).data == body


async def test_a_file_goes_with_the_checksum_it_must_have_or_with_its_own(store: S3Store, way: Relay) -> None:
    body, was = b"what the disk has made of it", b"what was written"
    await store.put(KEY, io.BytesIO(body), sha256=sha256(was).hexdigest())
    await store.put(KEY, io.BytesIO(body))
    sent = [headers.get("x-amz-checksum-sha256") for headers in way.headers]
    assert sent == [b64encode(sha256(each).digest()).decode() for each in (was, body)]


class Unreadable(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(EIO, "bad sector")


async def test_a_file_that_cannot_be_read_is_no_fault_of_the_store(store: S3Store) -> None:
    with pytest.raises(OSError, match="bad sector"):
        await store.put(KEY, Unreadable(b"x" * 100), sha256=sha256(b"x" * 100).hexdigest())


async def test_a_file_that_the_disk_has_changed_is_told_from_one_that_was_damaged_on_its_way(
    store: S3Store, way: Relay
) -> None:
    body = b"as it was written"
    way.faults = [answer(400, "BadDigest")] * 6
    with pytest.raises(Unavailable, match="BadDigest"):
        await store.put(KEY, io.BytesIO(body), sha256=sha256(body).hexdigest())
    with pytest.raises(OSError, match="not what was written"):
        await store.put(KEY, io.BytesIO(body), sha256=sha256(b"something else").hexdigest())


async def test_a_body_that_breaks_off_is_read_again(store: S3Store, way: Relay) -> None:
    await store.put(KEY, b"x" * 100_000)
    way.faults = [cut_body]
    assert len((await store.get(KEY)).data) == 100_000
    way.faults = [cut_body, cut_body]
    assert len(await store.get_range(KEY, 10, 90_000)) == 89_990
    way.faults = [cut_body] * 3
    with pytest.raises(Unavailable):
        await store.get(KEY)


async def test_a_store_that_hangs_is_given_up(s3_place: S3Place, way: Relay) -> None:
    store = S3Store(replace(s3_place, endpoint_url=way.endpoint_url), pauses=(0.01,), answer_seconds=0.1)
    way.faults = [hang, hang]
    with pytest.raises(Unavailable, match=r"[Tt]imed? ?out"):
        await store.get(KEY)
    assert len(way.requests) == 2
    await store.close()


async def test_nobody_is_there(s3_place: S3Place, way: Relay) -> None:
    store = S3Store(replace(s3_place, endpoint_url="http://127.0.0.1:1"), pauses=(0.01,))
    with pytest.raises(Unavailable, match=r"nobody answers at 127\.0\.0\.1:1\. If that is wrong: .* endpoint_url"):
        await store.get(KEY)
    await store.close()


async def test_no_keys_anywhere(s3_place: S3Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    store = S3Store(replace(s3_place, access_key=None, secret_key=None), pauses=(0.01,))
    with pytest.raises(Refused, match=r"access_key and secret_key .* into the archive's section"):
        await store.get(KEY)
    await store.close()


# -- conditional writes whose answer got lost -------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [[lose_answer], [lose_answer, lose_answer], [lose_answer, SLOW_DOWN], [drop]])
async def test_a_write_whose_answer_got_lost_is_known_to_be_ours(
    store: S3Store, way: Relay, faults: list[Fault]
) -> None:
    way.faults = list(faults)
    version = await store.put_if(KEY, b"first", None)
    assert (await store.get(KEY)).version == version
    way.faults = list(faults)
    version = await store.put_if(KEY, b"second", version)
    found = await store.get(KEY)
    assert (found.data, found.version) == (b"second", version)


@pytest.mark.parametrize("fault", [SLOW_DOWN, drop, lose_answer])
async def test_a_lost_race_stays_lost_after_a_doubt(store: S3Store, way: Relay, fault: Fault) -> None:
    await store.put_if(KEY, b"theirs", None)
    way.faults = [fault]
    with pytest.raises(Conflict):
        await store.put_if(KEY, b"ours", None)
    assert (await store.get(KEY)).data == b"theirs"


async def test_a_conflict_that_cannot_be_looked_into_is_unavailable(store: S3Store, way: Relay) -> None:
    await store.put_if(KEY, b"ours", None)
    way.faults = [lambda request, forward: forward(request), *[SLOW_DOWN] * 9]
    with pytest.raises(Unavailable):
        await store.put_if(KEY, b"ours", None)


async def test_a_write_that_never_got_through_is_unavailable(store: S3Store, way: Relay) -> None:
    way.faults = [lose_answer, SLOW_DOWN, SLOW_DOWN, SLOW_DOWN]
    with pytest.raises(Unavailable):
        await store.put_if(KEY, b"perhaps", None)


# -- what a person has to do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "AccessDenied", Refused, "s3:ListBucket"),
        (403, "InvalidAccessKeyId", Refused, "access_key"),
        (403, "SignatureDoesNotMatch", Refused, "secret_key"),
        (403, "RequestTimeTooSkewed", Refused, "clock"),
        (400, "ExpiredToken", Refused, "renew"),
        (400, "AuthorizationHeaderMalformed", Refused, "region"),
        (404, "NoSuchBucket", Refused, "create the bucket"),
        (501, "NotImplemented", Refused, "conditional writes"),
        (400, "SomethingNew", Refused, "SomethingNew because"),
        (404, "NoSuchKey", NotFound, "NoSuchKey"),
        (416, "InvalidRange", Truncated, "InvalidRange"),
        (412, "PreconditionFailed", Conflict, "PreconditionFailed"),
    ],
)
async def test_answers_say_where_and_what_to_do(
    store: S3Store, way: Relay, s3_place: S3Place, status: int, code: str, kind: type[StoreError], words: str
) -> None:
    way.faults = [answer(status, code)] * 2
    with pytest.raises(kind, match=words) as caught:
        await store.get_range(KEY, 0, 1)
    assert f"s3://{s3_place.bucket}/some/prefix/{KEY}" in str(caught.value)


async def test_a_size_that_may_not_be_known(store: S3Store, way: Relay) -> None:
    way.faults = [forbid_silently]
    with pytest.raises(Refused, match="s3:ListBucket"):
        await store.size(KEY)


async def test_a_bucket_that_is_not_there(s3_place: S3Place) -> None:
    store = S3Store(replace(s3_place, bucket="no-such-bucket"))
    for attempt in (store.get(KEY), store.put(KEY, b""), store.put_if(KEY, b"", None), store.check()):
        with pytest.raises(Refused, match="create the bucket"):
            await attempt
    with pytest.raises(Refused, match="create the bucket"):
        _ = [info async for info in store.list("")]
    await store.close()


async def test_an_endpoint_that_is_no_url(s3_place: S3Place) -> None:
    store = S3Store(replace(s3_place, endpoint_url="no url"))
    with pytest.raises(StoreError):
        await store.get(KEY)
    await store.close()


def test_secrets_are_not_shown() -> None:
    place = S3Place("b", access_key="visible", secret_key="hidden-1", session_token="hidden-2")
    assert "hidden" not in repr(place)


# -- stores that lack something ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
async def test_the_check_refuses_a_store_without_conditional_writes(store: S3Store, way: Relay, first: int) -> None:
    # One GET, then PUTs: new, new again, replace, replace again.
    way.faults = [*[no_fault] * (2 + 2 * first), ignore_conditions, ignore_conditions]
    with pytest.raises(Refused, match=r"If-None-Match" if first == 0 else r"\(If-Match\)"):
        await store.check()
    assert [info async for info in store.list("")] == []


async def test_a_store_without_ranges_is_not_read_whole(store: S3Store, way: Relay) -> None:
    await store.put(KEY, b"x" * 1000)
    way.faults = [ignore_range] * 2
    with pytest.raises(Truncated, match=r"1000 bytes instead of \[0, 10\)"):
        await store.get_range(KEY, 0, 10)
    assert await store.get_range(KEY, 0, 10) == b"x" * 10


# -- limits -----------------------------------------------------------------------------------------------------------


async def test_ranges_come_over_connections_of_our_own(store: S3Store, way: Relay) -> None:
    await store.put(KEY, bytes(range(256)) * 1000)
    before = bulk_reads("done")
    for start in range(10):
        assert await store.get_range(KEY, start, 100_000) == (bytes(range(256)) * 1000)[start:100_000]
    assert bulk_reads("done") - before == 10
    gets = [headers for method, headers in zip(way.requests, way.headers, strict=True) if method == "GET"]
    assert not any("Authorization" in headers for headers in gets), "the URL is signed"


async def test_after_a_failure_aiobotocore_asks(store: S3Store, way: Relay) -> None:
    await store.put(KEY, b"x" * 1000)
    for fault in (cut_body, SLOW_DOWN, ignore_range):
        way.headers.clear()
        way.faults = [fault]
        assert await store.get_range(KEY, 10, 20) == b"x" * 10
        assert ["Authorization" in headers for headers in way.headers] == [False, True]


async def test_missing_objects_are_no_reason_to_ask_otherwise(store: S3Store, way: Relay) -> None:
    await store.put(KEY, b"x")
    for _ in range(5):
        with pytest.raises(NotFound):
            await store.get_range("missing", 0, 1)
    before = bulk_reads("done")
    assert await store.get_range(KEY, 0, 1) == b"x"
    assert bulk_reads("done") - before == 1


async def test_a_store_without_plain_answers_is_asked_by_aiobotocore_alone(store: S3Store, way: Relay) -> None:
    await store.put(KEY, b"xy")
    for _ in range(3):
        way.faults = [ignore_range]
        assert await store.get_range(KEY, 0, 1) == b"x"
    way.headers.clear()
    assert await store.get_range(KEY, 0, 1) == b"x"
    assert ["Authorization" in headers for headers in way.headers] == [True]


async def test_no_more_connections_than_allowed(store: S3Store, way: Relay) -> None:
    await store.put(KEY, b"x" * 100)
    way.faults = [slow] * 12
    await asyncio.gather(*(store.get_range(KEY, i, i + 1) for i in range(12)))
    assert way.most_at_once == 3


async def test_the_bucket_holds_nothing_but_the_prefix(store: S3Store, s3_place: S3Place) -> None:
    await store.put(KEY, b"x")
    whole = S3Store(replace(s3_place, prefix=""))
    assert [info.key async for info in whole.list("")] == [f"some/prefix/{KEY}"]
    await whole.close()


async def test_segments_get_the_storage_class_and_manifests_do_not(s3_place: S3Place, way: Relay) -> None:
    store = S3Store(replace(s3_place, endpoint_url=way.endpoint_url, storage_class="STANDARD_IA"))
    await store.put("segment", b"x")
    await store.put_if("manifest", b"x", None)
    assert [headers.get("x-amz-storage-class") for headers in way.headers] == ["STANDARD_IA", None]
    await store.close()


async def test_the_class_that_is_asked_for_counts_more_than_the_archives(s3_place: S3Place, way: Relay) -> None:
    for own, asked, sent in [
        ("STANDARD_IA", "ONEZONE_IA", "ONEZONE_IA"),
        (None, "GLACIER_IR", "GLACIER_IR"),
        ("STANDARD_IA", None, "STANDARD_IA"),
    ]:
        store = S3Store(replace(s3_place, endpoint_url=way.endpoint_url, storage_class=own))
        await store.put("segment", b"x", asked)
        await store.put("segment", io.BytesIO(b"x"), asked)
        assert [headers.get("x-amz-storage-class") for headers in way.headers[-2:]] == [sent, sent]
        await store.close()


async def test_closing_twice_or_before_use_does_nothing(s3_place: S3Place) -> None:
    store = S3Store(s3_place)
    await store.close()
    with pytest.raises(NotFound):
        await store.get(KEY)
    await store.close()
    await store.close()
