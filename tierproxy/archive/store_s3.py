"""S3 as a store, and whatever speaks its protocol with conditional writes. The version of an object is its ETag.

A conditional write needs thought when its answer gets lost: the write may have happened, and then the next attempt
fails on the first one's success. aiohttp makes such attempts of its own, unasked, when a kept connection turns out to
be closed, so nobody knows whether there was one. Therefore each conditional write carries a name of its own in the
object's metadata, and each conflict is looked into: if the object has that name, it was us. Other retries are made
here and not by botocore, where they can be seen and counted.

Bodies are not part of the signature, which would have to be computed before the first byte is sent and on
the event loop. Their SHA-256 is instead, as x-amz-checksum-sha256, which the store checks as well.

Ranges are read by `s3_bulk` first, for little CPU; after anything else than the plain answer aiobotocore asks. Both
share the store's connections: each attempt of either takes one of `_slots`.

Nothing waits for ever. An attempt ends when no byte has moved for `answer_seconds`: aiohttp sees to that once a body
is sent, we do while it is. A call, with all its attempts, has a deadline that grows with what it moves, so that a
store which lets bytes through one by one is given up too.
"""

import asyncio
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO, TypeVar, cast
from uuid import uuid4

from tierproxy.archive.bodies import FileSource, base64_sha256, while_it_moves
from tierproxy.archive.meter import counted
from tierproxy.archive.s3_bulk import BulkReader, Declined
from tierproxy.archive.s3_client import (
    DigestRefused,
    KeyRing,
    KeysRefused,
    S3Place,
    mapped,
    presigned_url,
    s3_client,
    s3_config,
)
from tierproxy.archive.store import (
    Conflict,
    NotFound,
    ObjectInfo,
    Refused,
    StoredObject,
    StoreError,
    Truncated,
    Unavailable,
    check_key,
    check_prefix,
    prove_conditions,
)
from tierproxy.ranges import ByteRange
from tierproxy.telemetry import STORE_RETRIES

T = TypeVar("T")

SLOWEST = 128 * 1024
"""Bytes a second that a store must move at the least, all attempts and pauses counted."""
WARM_UP_SECONDS = 1.0
"""A store that is away, or far, must not keep a process from starting."""
_WRITE = "tierproxy-write"
"""The metadata that holds the name of a conditional write."""


class S3Store:
    """Objects in a bucket. Connects when it is first asked something, from the loop that asks."""

    def __init__(
        self,
        place: S3Place,
        *,
        connections: int = 32,
        connect_seconds: float = 5,
        answer_seconds: float = 30,
        call_seconds: float = 120,
        pauses: tuple[float, ...] = (0.1, 0.4, 1.6),
        page_keys: int = 1000,
    ) -> None:
        """At most `connections` at once; further calls wait for one.

        `answer_seconds` without a byte end an attempt. After each of the `pauses` (in seconds, each
        shortened at random by up to half) a failed call is tried again. `call_seconds` end it, and those that
        its bytes need at SLOWEST come on top. Listings come by pages of `page_keys`.
        """
        self._place = place
        self._pauses = pauses
        self._page_keys = page_keys
        self._answer_seconds = answer_seconds
        self._call_seconds = call_seconds
        self._config = s3_config(
            place, connections=connections, connect_seconds=connect_seconds, answer_seconds=answer_seconds
        )
        self._slots = asyncio.Semaphore(connections)
        self._keys = KeyRing(place)
        self._bulk = BulkReader(
            self._sign,
            self._keys.get_frozen_credentials,
            connect_seconds=connect_seconds,
            answer_seconds=answer_seconds,
        )
        self._opening = asyncio.Lock()
        self._context: AbstractAsyncContextManager[Any] | None = None
        self._client: Any = None

    async def get(self, key: str) -> StoredObject:
        """See Store."""
        check_key(key)

        async def attempt() -> StoredObject:
            answer = await self._call("get_object", key)
            return StoredObject(await self._body(answer, key), cast(str, answer["ETag"]))

        return await self._retried("get", key, attempt)

    async def get_range(self, key: str, start: int, end: int) -> bytes | bytearray:
        """See Store. The first attempt is BulkReader's, all others aiobotocore's."""
        check_key(key)
        wanted = ByteRange(start, end)
        if not wanted.size:
            return b""
        first = True

        async def attempt() -> bytes | bytearray:
            nonlocal first
            declined = None
            if first:
                first = False
                try:
                    with mapped(self._name(key)):
                        cheap = await self._bulk.read(key, wanted)
                    if cheap is not None:
                        return cheap
                except Declined as error:
                    declined = error
            answer = await self._call("get_object", key, Range=wanted.http)
            if (size := self._length(answer, key)) != wanted.size:
                answer["Body"].close()
                raise Truncated(f"{self._name(key)}: {size} bytes instead of {wanted}")
            body = await self._body(answer, key)
            if declined is not None:
                self._bulk.strike(declined)
            return body

        return await self._retried("get_range", key, attempt, wanted.size)

    async def size(self, key: str) -> int:
        """See Store."""
        check_key(key)
        return self._length(await self._retried("size", key, lambda: self._call("head_object", key)), key)

    async def put(
        self, key: str, body: bytes | BinaryIO, storage_class: str | None = None, sha256: str | None = None
    ) -> None:
        """See Store. At most 5 GiB, S3's own limit for one request."""
        check_key(key)
        options: dict[str, Any] = {}
        storage_class = storage_class or self._place.storage_class
        if storage_class is not None:
            options["StorageClass"] = storage_class
        if isinstance(body, bytes):
            options["ChecksumSHA256"] = base64_sha256([body])
            await self._retried("put", key, lambda: self._call("put_object", key, Body=body, **options), len(body))
            return
        source = await asyncio.to_thread(FileSource, body)
        if sha256 is None:
            options["ChecksumSHA256"] = await asyncio.to_thread(source.base64_sha256)
        else:
            options["ChecksumSHA256"] = b64encode(bytes.fromhex(sha256)).decode("ascii")

        async def attempt() -> None:
            sent = source.open()
            try:
                with mapped(self._name(key)):
                    async with while_it_moves(sent.tell, self._answer_seconds):
                        await self._call("put_object", key, Body=sent, **options)
            except StoreError:
                if sent.fault is not None:
                    raise sent.fault from None
                raise

        try:
            await self._retried("put", key, attempt, source.size)
        except DigestRefused:
            await asyncio.to_thread(source.must_have, options["ChecksumSHA256"])
            raise

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        """See Store."""
        check_key(key)
        write = uuid4().hex
        options: dict[str, Any] = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        options |= {"ChecksumSHA256": base64_sha256([data]), "Metadata": {_WRITE: write}}

        async def attempt() -> str:
            try:
                answer = await self._call("put_object", key, Body=data, **options)
            except Conflict:
                answer = await self._call("head_object", key)
                if answer.get("Metadata", {}).get(_WRITE) != write:
                    raise
            return cast(str, answer["ETag"])

        try:
            return await self._retried("put_if", key, attempt, len(data))
        except NotFound as error:
            raise Conflict(f"{self._name(key)} is gone, version {version} was expected") from error

    async def delete(self, key: str) -> None:
        """See Store."""
        check_key(key)
        await self._retried("delete", key, lambda: self._call("delete_object", key))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See Store. The order is S3's own; directory buckets (S3 Express) have none."""
        check_prefix(prefix)
        page: dict[str, str] = {}
        while True:
            answer = await self._retried("list", prefix, partial(self._list_page, prefix, page))
            for found in answer.get("Contents", ()):
                key = cast(str, found["Key"]).removeprefix(self._place.prefix)
                modified = cast(datetime, found["LastModified"])
                yield ObjectInfo(key, cast(int, found["Size"]), round(modified.timestamp() * 1000))
            if not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    async def warm_up(self, key: str) -> None:
        """Make the client now, which takes a fifth of a second, and read `key` in both ways, whether it is there or
        not: the first request takes fifty times as much as others, for certificates, rules for endpoints, a connection
        and much that is made when it is first used. Errors are the first call's."""
        with suppress(StoreError), mapped(f"s3://{self._place.bucket}"):
            await self._connected()
        with suppress(StoreError, TimeoutError, KeyError):  # KeyError: an answer that lacks what S3's have
            async with asyncio.timeout(WARM_UP_SECONDS):
                with suppress(NotFound):
                    await self.get(key)
                await self.get_range(key, 0, 1)

    async def check(self) -> None:
        """See Store."""
        await prove_conditions(self)

    async def close(self) -> None:
        """See Store."""
        async with self._opening:
            self._bulk.close()
            context, self._context, self._client = self._context, None, None
            if context is not None:
                await context.__aexit__(None, None, None)

    def _name(self, key: str) -> str:
        return f"s3://{self._place.bucket}/{self._place.prefix}{key}"

    async def _retried(self, operation: str, key: str, attempt: Callable[[], Awaitable[T]], size: int = 0) -> T:
        """Try until it works, the pauses are used up or the deadline of a call that moves `size` bytes is over."""
        seconds = self._call_seconds + size / SLOWEST
        try:
            async with asyncio.timeout(seconds):
                return await self._tries(operation, attempt)
        except TimeoutError as error:  # that of an attempt has become Unavailable
            raise Unavailable(f"{self._name(key)}: {operation} was not done within {seconds:.0f} s") from error

    async def _tries(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        for pause in self._pauses:
            keys = self._keys.changes
            try:
                async with self._slots:
                    with counted(operation):
                        return await attempt()
            except KeysRefused:
                if not await self._keys.renewed_since(keys):
                    raise
            except Unavailable:
                await asyncio.sleep(pause * random.uniform(0.5, 1))
            STORE_RETRIES.inc()
        async with self._slots:
            with counted(operation):
                return await attempt()

    async def _sign(self, key: str, seconds: int) -> str:
        return await presigned_url(await self._connected(), self._place.bucket, self._place.prefix + key, seconds)

    async def _call(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        with mapped(self._name(key)):
            client = await self._connected()
            call = getattr(client, operation)
            answer = await call(Bucket=self._place.bucket, Key=self._place.prefix + key, **arguments)
            return cast(dict[str, Any], answer)

    async def _list_page(self, prefix: str, page: dict[str, str]) -> dict[str, Any]:
        with mapped(self._name(prefix)):
            client = await self._connected()
            answer = await client.list_objects_v2(
                Bucket=self._place.bucket, Prefix=self._place.prefix + prefix, MaxKeys=self._page_keys, **page
            )
            return cast(dict[str, Any], answer)

    def _length(self, answer: dict[str, Any], key: str) -> int:
        if "ContentLength" not in answer:
            raise Refused(f"{self._name(key)}: the store does not say how long the object is")
        return cast(int, answer["ContentLength"])

    async def _body(self, answer: dict[str, Any], key: str) -> bytes:
        with mapped(self._name(key)):
            async with answer["Body"] as stream:
                return cast(bytes, await stream.read())

    async def _connected(self) -> Any:
        if self._client is None:
            async with self._opening:
                if self._client is None:
                    context = s3_client(self._place, self._keys, self._config)
                    self._client = await context.__aenter__()
                    self._context = context
        return self._client
