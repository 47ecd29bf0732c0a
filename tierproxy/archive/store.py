"""What tierproxy asks of the place where an archive lies, and how that place may fail.

A store maps keys to objects. Two kinds are kept in it: segments, which are written once under a key that
nobody else uses and never change, and small documents (manifests), which change by compare-and-swap only.
Every store passes the same contract test (tests/unit/tierproxy/archive/test_store_contract.py); what it
says is what callers may rely on, on any store:

- `put` and `put_if` are atomic and durable: another reader sees nothing or all of it, and when they return
  the bytes survive a crash.
- a read that follows a finished write sees that write.
- of several racing `put_if` with the same expected version exactly one succeeds.

Errors are named by what the caller does next. They carry the key and the store's own words.
"""

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol
from uuid import uuid4

from tierproxy.errors import TierproxyError

MAX_KEY_BYTES = 900
"""S3 allows 1,024 bytes; the rest is left for the prefix in an archive's URL."""

_KEY_PART = re.compile(r"[A-Za-z0-9_%-][A-Za-z0-9._%-]{0,254}", re.ASCII)


class StoreError(TierproxyError):
    """A store did not do what it was asked."""


class NotFound(StoreError):
    """There is no such object."""


class Conflict(StoreError):
    """The object is not of the version that was expected: read it again and decide anew."""


class Truncated(StoreError):
    """The object ends before the bytes that were asked for: it is damaged, or not the one meant."""


class Unavailable(StoreError):
    """The store can't be reached, is overloaded or full: try again later. A write may have happened."""


class Refused(StoreError):
    """The store says no, and will go on saying no until a person changes something; the text says what."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's bytes, and its version for put_if(). Versions are the store's own: only compare them.

    Equal bytes may have equal versions. So a document that must not be replaced twice has something in it that
    changes with every write, as the generation of a manifest does.
    """

    data: bytes
    version: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a listing: size in bytes, time of its last write in ms since 1970 by the store's clock."""

    key: str
    size: int
    modified_ms: int


class Store(Protocol):
    """A place for objects. Any method may raise Unavailable or Refused; the others are said with each."""

    async def get(self, key: str) -> StoredObject:
        """A whole object, for small ones. NotFound."""
        ...

    async def get_range(self, key: str, start: int, end: int) -> bytes | bytearray:
        """Bytes [start, end) of an object, all of them: Truncated if it is shorter. NotFound.

        An empty range is answered without looking.
        """
        ...

    async def size(self, key: str) -> int:
        """Size of an object in bytes. NotFound."""
        ...

    async def put(
        self, key: str, body: bytes | BinaryIO, storage_class: str | None = None, sha256: str | None = None
    ) -> None:
        """Write an object, over one that may be there.

        A store that has storage classes takes this one, or with None the archive's; others have no ear for it.

        A file is sent from its current position to its end and read in threads, never whole into memory. It
        must be seekable, as it may be sent again, and stays open. `sha256`, in hex, is what it must have, where that
        is known: a store that looks at checksums on arrival takes nothing else, and need not read the file for it.
        OSError where it is noticed that the file can't be read, or is something else.
        """
        ...

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        """Write an object only if it has that version now, or with None only if it is not there.

        The new version. Conflict if it is otherwise, also when an object that had a version is gone.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, ordered by key, byte by byte. Not for read paths."""
        ...

    async def check(self) -> None:
        """Prove that the store can be read and written and honours conditions; leave nothing behind.

        Refused if it does not honour them: without them two archivers would overwrite each other.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads. Nothing may be asked afterwards."""
        ...


def check_key(key: str) -> None:
    """ValueError for a key that not every store can keep.

    A key is made of parts of [A-Za-z0-9._%-], 1 to 255 of them and none beginning with a dot, separated by
    "/". Names that begin with a dot are the stores' own.
    """
    if len(key) > MAX_KEY_BYTES or not all(_KEY_PART.fullmatch(part) for part in key.split("/")):
        raise ValueError(f"{key!r} is no key for a store")


def check_prefix(prefix: str) -> None:
    """ValueError if no key can begin with `prefix`."""
    *whole, rest = prefix.split("/")
    if not all(_KEY_PART.fullmatch(part) for part in (*whole, rest or "x")):
        raise ValueError(f"{prefix!r} is no beginning of a key")


async def prove_conditions(store: Store) -> None:
    """The work of Store.check() for any store, with one small object under a name that nobody else uses."""
    key = f"tierproxy-check-{uuid4().hex}"
    with suppress(NotFound):  # Refused instead: rights are missing to be told so
        await store.get(key)
    try:
        await _write_and_swap(store, key)
    except StoreError:
        with suppress(StoreError):  # what went wrong first is what a person must know
            await store.delete(key)
        raise
    await store.delete(key)


async def _write_and_swap(store: Store, key: str) -> None:
    try:
        first = await store.put_if(key, b"tierproxy checks this store: 1", None)
        await _must_conflict(store, key, None, "If-None-Match: *")
        second = await store.put_if(key, b"tierproxy checks this store: 2", first)
        await _must_conflict(store, key, first, "If-Match")
        found = await store.get(key)
    except Conflict as error:
        raise Refused(f"the store refuses a conditional write whose condition holds: {error}") from error
    if found.data != b"tierproxy checks this store: 2" or found.version != second:
        raise Refused("the store does not give back what was just written to it")


async def _must_conflict(store: Store, key: str, version: str | None, condition: str) -> None:
    try:
        await store.put_if(key, b"tierproxy checks this store: wrong", version)
    except Conflict:
        return
    raise Refused(
        f"the store ignores conditional writes ({condition}): archivers could overwrite each other's work. "
        "Use a store, or a version of it, that has them"
    )
