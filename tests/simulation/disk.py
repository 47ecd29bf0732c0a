"""A store in memory, as an object store of the better kind is: conditional writes, and every read sees the last write.

`Disk` is what lies there, `SimStore` one process's way to it, which passes the contract test of the real stores. Its
weather decides what happens to each call: slow, refused, done but the answer is lost, done long after it was given up
(the write of a zombie, or of a request that a proxy held back), or a lie: it says that it stored an object, and stored
something else, or nothing.

Not done: lies about conditional writes (they are small and checked by any client), lies told again after an object
was read back (no archiver could find them), bytes that differ from one read to the next, listings that are behind.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

from tests.simulation.loop import T0_MS, Process, VirtualLoop, answered
from tests.simulation.trace import Trace
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

T = TypeVar("T")

LATE_MOST = 45.0
"""Seconds after which a write that was given up has happened or never will."""


@dataclass
class StoreWeather:
    """Chances of each kind of trouble, per call; `slow` is the most seconds that a call takes."""

    slow: float = 0.0
    refused: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    hangs: float = 0.0
    lies: float = 0.0


@dataclass(slots=True)
class _Object:
    data: bytes
    version: str
    modified_ms: int


Watcher = Callable[[str, bytes | None, bytes | None], None]
"""Told of each change: key, content before, content after."""


@dataclass
class Disk:
    """What is stored. `watch` is called with every change, at the moment it happens."""

    watch: Watcher = lambda key, before, after: None
    objects: dict[str, _Object] = field(default_factory=dict)
    _writes: int = 0

    def read(self, key: str) -> _Object:
        found = self.objects.get(key)
        if found is None:
            raise NotFound(f"{key} is not there")
        return found

    def write(self, key: str, data: bytes, now_ms: int) -> str:
        before = self.objects.get(key)
        self._writes += 1
        self.objects[key] = _Object(data, f"v{self._writes}", now_ms)
        self.watch(key, before.data if before is not None else None, data)
        return f"v{self._writes}"

    def write_if(self, key: str, data: bytes, version: str | None, now_ms: int) -> str:
        found = self.objects.get(key)
        if (found.version if found is not None else None) != version:
            raise Conflict(f"{key} is not of version {version}")
        return self.write(key, data, now_ms)

    def remove(self, key: str) -> None:
        gone = self.objects.pop(key, None)
        if gone is not None:
            self.watch(key, gone.data, None)


class SimStore:
    """`tierproxy.archive.store.Store`, for one process (None: for a test without one)."""

    def __init__(
        self,
        disk: Disk,
        weather: StoreWeather | None = None,
        chance: random.Random | None = None,
        process: Process | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.disk = disk
        self._weather = weather or StoreWeather()
        self._chance = chance or random.Random(0)
        self._process = process
        self._trace = trace

    async def get(self, key: str) -> StoredObject:
        check_key(key)

        def read() -> StoredObject:
            found = self.disk.read(key)
            return StoredObject(found.data, found.version)

        return await self._ask(f"get {key}", read)

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        check_key(key)
        if not 0 <= start <= end:
            raise ValueError(f"[{start}, {end}) is no range")
        if start == end:
            return b""

        def read() -> bytes:
            found = self.disk.read(key).data[start:end]
            if len(found) < end - start:
                raise Truncated(f"{key}: {len(found)} bytes instead of {end - start}")
            return found

        return await self._ask(f"get {key} [{start}, {end})", read)

    async def size(self, key: str) -> int:
        check_key(key)
        return await self._ask(f"size {key}", lambda: len(self.disk.read(key).data))

    async def put(
        self, key: str, body: bytes | BinaryIO, storage_class: str | None = None, sha256: str | None = None
    ) -> None:
        check_key(key)
        data = body if isinstance(body, bytes) else body.read()
        kept = self._lie(data)
        lie = "" if kept is data else ", which the store will spoil"

        def write() -> None:
            if kept is not None:
                self.disk.write(key, kept, self._now_ms())

        # A write that comes late comes whole: see the module.
        late = lambda: self.disk.write(key, data, self._now_ms())  # noqa: E731
        await self._ask(f"put {key} ({len(data)} bytes{lie})", write, late=late)

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        check_key(key)

        def write() -> str:
            return self.disk.write_if(key, data, version, self._now_ms())

        return await self._ask(f"put {key} ({len(data)} bytes) if {version}", write, late=write)

    async def delete(self, key: str) -> None:
        check_key(key)
        await self._ask(f"delete {key}", lambda: self.disk.remove(key), late=lambda: self.disk.remove(key))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        check_prefix(prefix)

        def look() -> list[ObjectInfo]:
            return [
                ObjectInfo(key, len(found.data), found.modified_ms)
                for key, found in sorted(self.disk.objects.items())
                if key.startswith(prefix)
            ]

        for found in await self._ask(f"list {prefix}", look):
            yield found

    async def check(self) -> None:
        await prove_conditions(self)

    async def close(self) -> None:
        """Nothing to let go of."""

    # ---- what becomes of a call ----------------------------------------------------------------------------

    async def _ask(self, what: str, effect: Callable[[], T], late: Callable[[], object] | None = None) -> T:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            await asyncio.sleep(0)
            return effect()
        if self._process is not None:
            self._process.must_live()
        self._say(f">> {what}")
        weather, dice = self._weather, self._chance.random()
        delay = self._chance.uniform(0, weather.slow) if weather.slow else 0.001
        answer_delay = self._chance.uniform(0, weather.slow / 2) if weather.slow else 0.001

        try:
            if (dice := dice - weather.refused) < 0:
                error: StoreError = Unavailable("503") if self._chance.random() < 0.8 else Refused("credentials")
                answer: T = await answered(loop, delay, lambda: _raise(error), answer_delay)
            elif (dice := dice - weather.lost) < 0:
                answer = await answered(loop, delay, effect, answer_delay, Unavailable("the answer was lost"))
            elif (dice := dice - weather.late) < 0:
                if late is not None:
                    loop.in_world(delay + self._chance.uniform(0, LATE_MOST), self._late, what, late)
                answer = await answered(loop, delay, lambda: _raise(Unavailable("timeout")), answer_delay)
            elif (dice := dice - weather.hangs) < 0:
                answer = await answered(loop, 60.0, lambda: _raise(Unavailable("hung")), answer_delay)
            else:
                answer = await answered(loop, delay, effect, answer_delay)
        except StoreError as failure:
            self._say(f"<< {what.split(' (')[0]}: {type(failure).__name__} {failure}")
            raise
        self._say(f"<< {what.split(' (')[0]}: done")
        return answer

    def _late(self, what: str, effect: Callable[[], object]) -> None:
        try:
            effect()
        except Conflict:
            what += " is refused"
        if self._trace is not None:
            self._trace.note("store", f"late: {what}")

    def _lie(self, data: bytes) -> bytes | None:
        """What is stored instead of `data`; itself, as a rule."""
        if not self._weather.lies or self._chance.random() >= self._weather.lies:
            return data
        kind = self._chance.randrange(3)
        if kind == 0:
            return None
        if kind == 1:
            return data[: self._chance.randrange(len(data))]
        at = self._chance.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self._chance.randrange(8)]) + data[at + 1 :]

    def _say(self, what: str) -> None:
        if self._trace is not None and self._process is not None and self._process.alive:
            self._trace.note(self._process.name, what)

    def _now_ms(self) -> int:
        return T0_MS + round(asyncio.get_running_loop().time() * 1000)


def _raise(error: Exception) -> Any:
    raise error
