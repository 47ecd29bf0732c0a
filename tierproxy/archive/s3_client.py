"""S3's client, with the keys it signs with, and its errors as the store's. The only importer of aiobotocore.

aiobotocore has no types: what comes back from it is read in `store_s3` through a few casts, and its errors,
botocore's and aiohttp's are told apart here, in one place.

Keys may be replaced while we run: short-lived ones are, by whoever keeps their files. So they are read again when
they are some seconds old, and when the store refuses them.
"""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import get_session
from botocore import exceptions as boto
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from tierproxy.archive.store import Conflict, NotFound, Refused, StoreError, Truncated, Unavailable
from tierproxy.config.files import UnusableFile, read_secret

KEYS_AGE = 10.0
"""Seconds after which files with keys are read again."""


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
    """Of segments for which no other is asked; manifests are always of the bucket's standard class."""
    access_key_file: Path | None = None
    """Instead of access_key, as the other files are: read again and again."""
    secret_key_file: Path | None = None
    session_token_file: Path | None = None

    def read_keys(self) -> "Keys | None":
        """The keys as they are now, None where the machine's own are meant. Raises UnusableFile."""
        access_key = _read(self.access_key, self.access_key_file)
        if access_key is None:
            return None
        secret_key = _read(self.secret_key, self.secret_key_file)
        return Keys(access_key, secret_key or "", _read(self.session_token, self.session_token_file))


class Keys(NamedTuple):
    """What botocore signs a request with."""

    access_key: str
    secret_key: str
    token: str | None = None
    account_id: str | None = None

    def __repr__(self) -> str:
        return f"Keys({self.access_key!r}, ...)"


class KeysRefused(Refused):
    """The store does not take these keys; other ones may be there already."""


class DigestRefused(Unavailable):
    """What came is not what its checksum says: damaged on the way, mostly."""


class KeyRing(AioCredentials):  # type: ignore[misc]  # it has no types
    """A place's keys, as botocore asks for them before each request."""

    def __init__(self, place: S3Place) -> None:
        super().__init__("", "", method="tierproxy")
        self._place = place
        self._read_at = 0.0
        self._own: Keys | None = None
        self._machines: Any = None  # botocore's, which renews by itself those of a role
        self._reading = asyncio.Lock()
        self.changes = 0
        """How often other keys than before were found."""

    async def load_credentials(self) -> "KeyRing":
        """As a session's component that finds credentials."""
        return self

    async def get_frozen_credentials(self) -> Any:
        """The keys to sign the next request with."""
        async with self._reading:
            if self._machines is None and time.monotonic() - self._read_at >= KEYS_AGE:
                await self._look()
        if self._machines is not None:
            return await self._machines.get_frozen_credentials()
        return self._own

    async def renewed_since(self, changes: int) -> bool:
        """Whether there are other keys than those in use when `changes` was that: they are looked for once more."""
        async with self._reading:
            if self.changes == changes:
                await self._look()
        return self.changes != changes

    async def _look(self) -> None:
        try:
            found = await asyncio.to_thread(self._place.read_keys)
        except UnusableFile as error:
            if self._own is None:
                raise KeysRefused(f"a file with keys of the archive {error}") from error
            return  # half replaced, it may be: those known do as long as the store takes them
        self._read_at = time.monotonic()
        if found is not None:
            self.changes += self._own not in (None, found)
            self._own = found
            return
        before = await self._machines.get_frozen_credentials() if self._machines is not None else None
        self._machines = await get_session().get_component("credential_provider").load_credentials()
        if self._machines is None:
            raise boto.NoCredentialsError
        self.changes += before not in (None, await self._machines.get_frozen_credentials())


@asynccontextmanager
async def s3_client(place: S3Place, keys: KeyRing, config: AioConfig) -> AsyncIterator[Any]:
    """A client of aiobotocore's, to be entered."""
    session = get_session()
    session.register_component("credential_provider", keys)
    async with session.create_client(
        "s3", region_name=place.region, endpoint_url=place.endpoint_url, config=config
    ) as client:
        client.meta.events.register("choose-signer.s3.GetObject", _sigv4_for_urls)
        yield client


def s3_config(place: S3Place, *, connections: int, connect_seconds: float, answer_seconds: float) -> AioConfig:
    options: dict[str, Any] = {}
    if place.endpoint_url is not None:
        # Names of buckets as host names need DNS that only AWS and a few others have.
        options["addressing_style"] = "path"
    return AioConfig(
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


async def presigned_url(client: Any, bucket: str, key: str, seconds: int) -> str:
    """A URL that gets an object, or any range of it, for so long as the keys live and these seconds have not passed."""
    params = {"Bucket": bucket, "Key": key}
    return cast(str, await client.generate_presigned_url("get_object", Params=params, ExpiresIn=seconds))


def tls_context() -> ssl.SSLContext:
    """Trusts whom botocore does. Reads files."""
    authorities = get_session().get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(get_cert_path(authorities))
    return context


def is_proxied(url: str) -> bool:
    """Whether the environment wants a proxy for it."""
    return url.partition(":")[0] in get_environ_proxies(url)


def _sigv4_for_urls(signature_version: str, **_: Any) -> str | None:
    """botocore would sign URLs in the way that AWS gave up for everything else."""
    return "s3v4-query" if signature_version in ("v4-query", "s3v4-query") else None


def _read(value: str | None, file: Path | None) -> str | None:
    if file is None:
        return value
    try:
        return read_secret(file)
    except UnusableFile as error:
        raise UnusableFile(f"{str(file)!r} {error}") from None


_PASSING = frozenset(
    {
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    }
)
_DIGEST_REFUSED = frozenset({"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
_ADVICE = {
    "AccessDenied": "the credentials need s3:GetObject, s3:PutObject and s3:DeleteObject there, and s3:ListBucket on "
    "the bucket",
    "AuthorizationHeaderMalformed": "correct the archive's region",
    "ExpiredToken": "renew the credentials; tierproxy reads their files again",
    "InvalidAccessKeyId": "correct the archive's access_key",
    "NoSuchBucket": "create the bucket, or correct the archive's url",
    "NotImplemented": "the store lacks something that tierproxy needs, perhaps conditional writes",
    "PermanentRedirect": "correct the archive's region or endpoint_url",
    "RequestTimeTooSkewed": "set this machine's clock right",
    "SignatureDoesNotMatch": "correct the archive's secret_key",
}
_NO_KEYS = (
    "write access_key and secret_key (or access_key_file and secret_key_file) into the archive's section, or give this "
    "machine credentials as for other AWS tools (AWS_ACCESS_KEY_ID, ~/.aws, a role)"
)
_NOBODY = "correct the archive's endpoint_url or region"
_ADVICE["403"] = _ADVICE["AccessDenied"]
_KEYS_REFUSED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """The libraries' errors as the store's: the only place that knows both."""
    try:
        yield
    except KeysRefused as error:
        raise KeysRefused(f"{what}: {error}") from error
    except boto.ClientError as error:
        raise _from_answer(what, error.response) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        raise Refused(f"{what}: {error}. To do: {_NO_KEYS}") from error
    except (boto.SSLError, boto.NoRegionError) as error:
        raise Refused(f"{what}: {error}") from error
    except boto.EndpointConnectionError as error:
        where = urlsplit(str(error.kwargs.get("endpoint_url"))).netloc
        raise Unavailable(f"{what}: nobody answers at {where}. If that is wrong: {_NOBODY}") from error
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
    if code in _DIGEST_REFUSED:
        return DigestRefused(text)
    if code in _PASSING or status in (408, 409, 429) or (status >= 500 and status != 501):
        return Unavailable(text)
    kind = KeysRefused if code in _KEYS_REFUSED else Refused
    return kind(f"{text}. To do: {_ADVICE[code]}" if code in _ADVICE else text)
