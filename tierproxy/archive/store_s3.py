"""S3 as a store, and whatever speaks its protocol with conditional writes. The only importer of aiobotocore.

aiobotocore has no types: what comes back from it is read through the few casts below, and its errors,
botocore's and aiohttp's are told apart in one place. The version of an object is its ETag.

A conditional write needs thought when its answer gets lost: the write may have happened, and then the next attempt
fails on the first one's success. aiohttp makes such attempts of its own, unasked, when a kept connection turns out to
be closed, so nobody knows whether there was one. Therefore each conditional write carries a name of its own in the
object's metadata, and each conflict is looked into: if the object has that name, it was us. Other retries are made
here and not by botocore, where they can be seen and counted.

Bodies are not part of the signature, which would have to be computed before the first byte is sent and on
the event loop. Their SHA-256 is instead, as x-amz-checksum-sha256, which the store checks as well.
"""

import asyncio
import io
import random
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any, BinaryIO, TypeVar, cast
from uuid import uuid4

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import exceptions as boto

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

T = TypeVar("T")

_HASH_BYTES = 1 << 20
_WRITE = "tierproxy-write"
"""The metadata that holds the name of a conditional write."""


@dataclass(frozen=True, slots=True)
class S3Place:
    """Where a bucket is and how to get in. Without keys: whatever the machine has (environment, role, profile)."""

    bucket: str
    prefix: str = ""
    """Put before every key; "" or ending with "/"."""
    region: str | None = None
    endpoint_url: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    storage_class: str | None = None
    """Of segments; manifests are always of the bucket's standard class."""


class S3Store:
    """Objects in a bucket. Connects when it is first asked something, from the loop that asks."""

    def __init__(
        self,
        place: S3Place,
        *,
        connections: int = 32,
        connect_seconds: float = 5,
        answer_seconds: float = 30,
        pauses: tuple[float, ...] = (0.1, 0.4, 1.6),
        page_keys: int = 1000,
    ) -> None:
        """At most `connections` at once; further calls wait for one.

        `answer_seconds` without a byte end an attempt. After each of the `pauses` (in seconds, each
        shortened at random by up to half) a failed call is tried again. Listings come by pages of `page_keys`.
        """
        self._place = place
        self._pauses = pauses
        self._page_keys = page_keys
        options: dict[str, Any] = {}
        if place.endpoint_url is not None:
            # Names of buckets as host names need DNS that only AWS and a few others have.
            options["addressing_style"] = "path"
        self._config = AioConfig(
            connect_timeout=connect_seconds,
            read_timeout=answer_seconds,
            max_pool_connections=connections,
            retries={"total_max_attempts": 1},
            # Checksums in trailers are unknown to many stores; ours are sent as headers.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"payload_signing_enabled": False, **options},
            warm_up_loader_caches=True,  # reads botocore's large files in a thread
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

        return await self._retried(attempt)

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        """See Store."""
        check_key(key)
        wanted = ByteRange(start, end)
        if not wanted.size:
            return b""

        async def attempt() -> bytes:
            answer = await self._call("get_object", key, Range=wanted.http)
            if (size := self._length(answer, key)) != wanted.size:
                answer["Body"].close()
                raise Truncated(f"{self._name(key)}: {size} bytes instead of {wanted}")
            return await self._body(answer, key)

        return await self._retried(attempt)

    async def size(self, key: str) -> int:
        """See Store."""
        check_key(key)
        return self._length(await self._retried(lambda: self._call("head_object", key)), key)

    async def put(self, key: str, body: bytes | BinaryIO) -> None:
        """See Store. At most 5 GiB, S3's own limit for one request."""
        check_key(key)
        options: dict[str, Any] = {}
        if self._place.storage_class is not None:
            options["StorageClass"] = self._place.storage_class
        if isinstance(body, bytes):
            source: bytes | _FileSource = body
            options["ChecksumSHA256"] = _base64_sha256([body])
        else:
            source = await asyncio.to_thread(_FileSource, body)
            options["ChecksumSHA256"] = await asyncio.to_thread(source.base64_sha256)

        async def attempt() -> None:
            sent = source if isinstance(source, bytes) else source.open()
            await self._call("put_object", key, Body=sent, **options)

        await self._retried(attempt)

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        """See Store."""
        check_key(key)
        write = uuid4().hex
        options: dict[str, Any] = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        options |= {"ChecksumSHA256": _base64_sha256([data]), "Metadata": {_WRITE: write}}

        async def attempt() -> str:
            try:
                answer = await self._call("put_object", key, Body=data, **options)
            except Conflict:
                answer = await self._call("head_object", key)
                if answer.get("Metadata", {}).get(_WRITE) != write:
                    raise
            return cast(str, answer["ETag"])

        try:
            return await self._retried(attempt)
        except NotFound as error:
            raise Conflict(f"{self._name(key)} is gone, version {version} was expected") from error

    async def delete(self, key: str) -> None:
        """See Store."""
        check_key(key)
        await self._retried(lambda: self._call("delete_object", key))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See Store. The order is S3's own; directory buckets (S3 Express) have none."""
        check_prefix(prefix)
        page: dict[str, str] = {}
        while True:
            answer = await self._retried(partial(self._list_page, prefix, page))
            for found in answer.get("Contents", ()):
                key = cast(str, found["Key"]).removeprefix(self._place.prefix)
                modified = cast(datetime, found["LastModified"])
                yield ObjectInfo(key, cast(int, found["Size"]), round(modified.timestamp() * 1000))
            if not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    async def check(self) -> None:
        """See Store."""
        await prove_conditions(self)

    async def close(self) -> None:
        """See Store."""
        async with self._opening:
            context, self._context, self._client = self._context, None, None
            if context is not None:
                await context.__aexit__(None, None, None)

    def _name(self, key: str) -> str:
        return f"s3://{self._place.bucket}/{self._place.prefix}{key}"

    async def _retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for pause in self._pauses:
            try:
                return await attempt()
            except Unavailable:
                await asyncio.sleep(pause * random.uniform(0.5, 1))
        return await attempt()

    async def _call(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        with _mapped(self._name(key)):
            client = await self._connected()
            call = getattr(client, operation)
            answer = await call(Bucket=self._place.bucket, Key=self._place.prefix + key, **arguments)
            return cast(dict[str, Any], answer)

    async def _list_page(self, prefix: str, page: dict[str, str]) -> dict[str, Any]:
        with _mapped(self._name(prefix)):
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
        with _mapped(self._name(key)):
            async with answer["Body"] as stream:
                return cast(bytes, await stream.read())

    async def _connected(self) -> Any:
        if self._client is None:
            async with self._opening:
                if self._client is None:
                    context = get_session().create_client(
                        "s3",
                        region_name=self._place.region,
                        endpoint_url=self._place.endpoint_url,
                        aws_access_key_id=self._place.access_key,
                        aws_secret_access_key=self._place.secret_key,
                        aws_session_token=self._place.session_token,
                        config=self._config,
                    )
                    self._client = await context.__aenter__()
                    self._context = context
        return self._client


class _FileSource:
    """What is left of a file, to be read several times: by each attempt at its own pace, from threads.

    A thread of an attempt that failed may still be reading when the next one begins. So nobody relies on the
    file's position: each read seeks, under a lock.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._start = file.tell()
        self.size = file.seek(0, io.SEEK_END) - self._start

    def read_at(self, position: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(self._start + position)
            return self._file.read(max(0, min(size, self.size - position)))

    def base64_sha256(self) -> str:
        return _base64_sha256(self.read_at(at, _HASH_BYTES) for at in range(0, self.size, _HASH_BYTES))

    def open(self) -> "_FileBody":
        return _FileBody(self)


class _FileBody(io.RawIOBase):
    """One reading of a _FileSource, as the file that botocore and aiohttp want. Closing it closes nothing else."""

    def __init__(self, source: _FileSource) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._source.size if size is None or size < 0 else size
        data = self._source.read_at(self._position, wanted)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position


def _base64_sha256(parts: Iterable[bytes]) -> str:
    digest = sha256()
    for part in parts:
        digest.update(part)
    return b64encode(digest.digest()).decode("ascii")


_PASSING = frozenset(
    {
        "BadDigest",  # damaged on the way
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentSHA256Mismatch",
    }
)
_ADVICE = {
    "AccessDenied": "the credentials need s3:GetObject, s3:PutObject and s3:DeleteObject there, and s3:ListBucket on "
    "the bucket",
    "AuthorizationHeaderMalformed": "correct the archive's region",
    "ExpiredToken": "renew the credentials",
    "InvalidAccessKeyId": "correct the archive's access_key",
    "NoSuchBucket": "create the bucket, or correct the archive's url",
    "NotImplemented": "the store lacks something that tierproxy needs, perhaps conditional writes",
    "PermanentRedirect": "correct the archive's region or endpoint_url",
    "RequestTimeTooSkewed": "set this machine's clock right",
    "SignatureDoesNotMatch": "correct the archive's secret_key",
}
_ADVICE["403"] = _ADVICE["AccessDenied"]


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    """The libraries' errors as the store's: the only place that knows both."""
    try:
        yield
    except boto.ClientError as error:
        raise _from_answer(what, error.response) from error
    except (boto.SSLError, boto.NoCredentialsError, boto.PartialCredentialsError, boto.NoRegionError) as error:
        raise Refused(f"{what}: {error}") from error
    except (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError) as error:
        raise Unavailable(f"{what}: {error}") from error
    except (boto.CredentialRetrievalError, boto.MetadataRetrievalError) as error:
        raise Unavailable(f"{what}: {error}") from error
    except (boto.BotoCoreError, ValueError) as error:  # ValueError: botocore does not like the endpoint's URL
        raise Refused(f"{what}: {error}") from error
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        raise Unavailable(f"{what}: {str(error) or type(error).__name__}") from error


def _from_answer(what: str, answer: dict[str, Any]) -> StoreError:
    code = str(answer.get("Error", {}).get("Code", ""))
    words = str(answer.get("Error", {}).get("Message", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = f"{what}: {code or status} {words}".rstrip(" .")
    if status == 412:
        return Conflict(text)
    if status == 404 and code != "NoSuchBucket":
        return NotFound(text)
    if status == 416:
        return Truncated(text)
    if code in _PASSING or status in (408, 409, 429) or (status >= 500 and status != 501):
        return Unavailable(text)
    return Refused(f"{text}. To do: {_ADVICE[code]}" if code in _ADVICE else text)
