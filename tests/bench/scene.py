"""A backend with a tierproxy before it: what the questions are put to."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench import readers
from tests.bench.backend import Backend, Stored, proxy
from tests.bench.meters import Meter, Usage, cpu_seconds
from tests.bench.raw import Address, Connection, Read, asked
from tests.bench.readers import Job
from tests.kit.processes import wait_for

_REST_SECONDS, _ARCHIVER_REST_SECONDS, _REST_SHARE = 0.5, 4.0, 0.15
"""At rest is who takes less than this share of a core for so long, and asks S3 for nothing."""


class Scene(AbstractContextManager["Scene"]):
    """`with Scene(directory, backend) as scene`: tierproxy is up."""

    def __init__(self, directory: Path, backend: Backend) -> None:
        self.backend = backend
        self._delay_ms = 0.0
        self.proxy = proxy(directory / "tierproxy", backend, [s.corpus for s in backend.stored.values()], age="10m")

    @property
    def direct(self) -> Address:
        """The broker, leader of every partition."""
        return self.backend.broker

    @property
    def proxied(self) -> Address:
        """The same broker's port at tierproxy."""
        return "127.0.0.1", self.proxy.port + 1 + self.backend.node_id

    @property
    def parties(self) -> dict[str, int]:
        """Name → pid of every process but clients."""
        assert self.proxy.process is not None
        return {**self.backend.parties, "tierproxy": self.proxy.process.pid}

    def far(self, delay_ms: float) -> None:
        """S3 answers after so long from now on."""
        self._delay_ms = delay_ms
        self.backend.front.set(delay_ms=delay_ms)

    def restart(self, *, archiver: bool = False, workers: int = 1) -> None:
        """A new tierproxy, at rest: nothing of the archive is in its memory, nor in a disk cache.

        Without the archiver, which is measured for itself: when it begins it loads every manifest, some of them
        seconds later, and that would be taken for the readers' doing.
        """
        self.proxy.stop()
        self._configure(archiver, workers)
        self.proxy.start()
        self._settle(_ARCHIVER_REST_SECONDS if archiver else _REST_SECONDS)

    def _configure(self, archiver: bool, workers: int = 1) -> None:
        about = self.proxy.config
        archiving = {**about["archiver"], "enabled": archiver}
        self.proxy.write_config({**about, "archiver": archiving, "workers": workers})

    def _settle(self, quiet: float) -> None:
        """S3 is near meanwhile: loading manifests from afar looks like resting."""

        def used() -> tuple[float, int]:
            return cpu_seconds(self.parties)["tierproxy"], self.backend.front.counts().gets

        def at_rest() -> bool:
            seconds, gets = used()
            time.sleep(quiet)  # rest is seen over a time only
            seconds_now, gets_now = used()
            return gets_now == gets and seconds_now - seconds < quiet * _REST_SHARE

        self.backend.front.set(delay_ms=0)
        wait_for(at_rest, seconds=90, what="rest of tierproxy after its start")
        self.backend.front.set(delay_ms=self._delay_ms)

    def meter(self) -> Meter:
        return Meter(self.parties, self.backend.front)

    def read(self, reader: str, stored: Stored, *, cold: bool, direct: bool = False) -> tuple[Read, Usage]:
        """One reader reads one of a corpus' topics to its end."""
        reads, usage = self.read_together(reader, [self.job(stored, cold=cold, direct=direct)])
        return reads[0], usage

    def read_together(self, reader: str, jobs: list[Job]) -> tuple[list[Read], Usage]:
        return readers.run(reader, jobs, self.parties, self.backend.front)

    def job(self, stored: Stored, *, cold: bool, direct: bool = False, ends: Mapping[int, int] | None = None) -> Job:
        host, port = self.direct if direct else self.proxied
        topic = stored.corpus.cold if cold else stored.corpus.hot
        return Job(f"{host}:{port}", topic, stored.ends if ends is None else ends)

    def learn(self, stored: Stored) -> None:
        """Lets tierproxy read the cold topic's manifests, by asking for each partition's last record."""
        with Connection(self.proxied) as connection:
            for partition, end in stored.ends.items():
                while True:
                    connection.send_fetch([asked(stored.corpus.cold, partition, end - 1, 1)], max_wait_ms=5000)
                    if connection.receive_fetched().partitions[0].records:
                        break

    def __enter__(self) -> Self:
        self._configure(archiver=False)
        self.proxy.start()
        self._settle(_REST_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.proxy.__exit__(kind, error, trace)
