"""Everything that the measured tierproxy stands between: Kafka and S3 with all data in them, archived and trimmed.

It may outlive a run (`--hold`): `Backend` says where all of it is, and can be written down and read again.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench import far_files, filling, s3
from tests.bench.corpus import Corpus
from tests.bench.far_files import FilesPage
from tests.bench.meters import Meter, Usage
from tests.bench.raw import Address
from tests.kit import admin, golang
from tests.kit.kafka import Cluster
from tests.kit.processes import wait_for
from tests.kit.proxy import Proxy

SEGMENT_BYTES = 128 << 20
"""tierproxy's default."""
CLUSTER = "bench"
ARCHIVING_DELAY_MS = 30
_ARCHIVER = {
    "group": "none",  # joining one takes its time, and then the archiver begins in the middle of a reading
    "merge": False,
    "metadata_interval": "1s",
}
LIVE = "live"
"""A topic for what is produced while measuring: archived, trimmed never."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Archiving:
    """How a corpus' full segments were archived, of both topics together; what was open when the last one was
    committed is not counted. Bytes of log."""

    log_bytes: int
    seconds: float
    usage: Usage


@dataclass(frozen=True)
class Stored:
    """A corpus where it is read. Bytes are those of one of the two topics."""

    corpus: Corpus
    ends: dict[int, int]
    log_bytes: int
    stored_bytes: int = 0
    segments: int = 0
    archiving: Archiving | None = None


@dataclass(frozen=True)
class FarStore:
    """Where archives are kept: how far away, as which files, by which configuration, by which processes."""

    page: s3.Page
    bucket: Path
    archive: dict[str, str]
    parties: dict[str, int]


@dataclass
class Backend:
    """Where everything is."""

    broker: Address
    node_id: int
    front: s3.Page
    bucket: Path
    """Where the archive's objects lie as files, by their keys."""
    archive: dict[str, str]
    """What a configuration says about it."""
    parties: dict[str, int]
    """Name → pid of each process, without tierproxy."""
    stored: dict[str, Stored] = field(default_factory=dict)

    @property
    def bootstrap(self) -> str:
        return f"{self.broker[0]}:{self.broker[1]}"

    def manifests(self, topic: str) -> dict[int, dict[str, Any]]:
        """Per partition its manifest, from the S3 server's own files: nothing is asked or counted."""
        found = {}
        for file in (self.bucket / "kafka" / CLUSTER / topic).glob("*/*/manifest.json"):
            try:
                found[int(file.parent.name)] = json.loads(file.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                continue  # being replaced
        return found

    def as_json(self) -> str:
        about = asdict(self)
        about["bucket"] = str(self.bucket)
        about["front"] = {"port": self.front.port} if isinstance(self.front, s3.FrontPage) else None
        return json.dumps(about, indent=2)

    @classmethod
    def of_json(cls, text: str) -> Self:
        about = json.loads(text)
        stored = {}
        for name, each in about.pop("stored").items():
            archiving = each.pop("archiving")
            if archiving is not None:
                usage = archiving.pop("usage")
                archiving = Archiving(**archiving, usage=Usage(**{**usage, "s3": s3.Counts(**usage["s3"])}))
            ends = {int(p): end for p, end in each.pop("ends").items()}
            stored[name] = Stored(Corpus(**each.pop("corpus")), ends, **each, archiving=archiving)
        bucket, front = Path(about.pop("bucket")), about.pop("front")
        return cls(
            broker=tuple(about.pop("broker")),
            front=s3.FrontPage(**front) if front else FilesPage(bucket),
            bucket=bucket,
            stored=stored,
            **about,
        )


def policies(corpora: Sequence[Corpus], age: str) -> list[dict[str, Any]]:
    """What the configuration says about the bench's topics."""
    common = {"archive": "s3", "segment": {"bytes": f"{SEGMENT_BYTES}B", "age": age}}
    return [
        policy
        for corpus in corpora
        for policy in (
            {"match": corpus.hot, "trim": "never", **common},
            {"match": corpus.cold, "keep_on_broker": {"bytes": "0B"}, **common},
        )
    ] + [{"match": LIVE, "trim": "never", **common}]


def proxy(directory: Path, backend: Backend, corpora: Sequence[Corpus], age: str) -> Proxy:
    """A tierproxy for these corpora, not yet started."""
    made = Proxy(
        directory,
        backend.bootstrap,
        policies(corpora, age),
        archives={"s3": backend.archive},
        cluster=CLUSTER,
        settings={"archiver": {**_ARCHIVER, "spool": str(directory / "spool")}},
    )
    if isinstance(backend.front, FilesPage):
        made.module = far_files.__name__
        os.environ[far_files.PLACE] = str(backend.bucket)
    return made


class Building(AbstractContextManager["Building"]):
    """Starts the parts, and fills and archives one corpus after the other."""

    def __init__(self, directory: Path, corpora: Sequence[Corpus], say: Say) -> None:
        self._directory = directory
        self._corpora = corpora
        self._say = say
        self._open = ExitStack()
        self.without_s3 = ""
        """Why there is no S3 server, if there is none."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._say("building and starting the S3 server")
            store = self._far_store(stack)
            self._say("starting Apache Kafka")
            kafka = stack.enter_context(Cluster(self._directory / "kafka", jvm=("-Xmx1g",)))
            node = kafka.nodes[0]
            assert node.process is not None
            self.backend = Backend(
                ("127.0.0.1", node.port),
                node.id,
                store.page,
                store.bucket,
                store.archive,
                {"broker": node.process.pid, **store.parties},
            )
            admin.create_topic(self.backend.bootstrap, LIVE, 1, **filling.TOPIC)
            store.page.set(delay_ms=ARCHIVING_DELAY_MS)
            for corpus in self._corpora:
                self._store(corpus)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _far_store(self, stack: ExitStack) -> FarStore:
        """S3, or a directory that is as slow where no S3 server can be built."""
        try:
            store = stack.enter_context(s3.Store(self._directory / "s3"))
        except golang.NoGo as no:
            self.without_s3 = str(no)
            bucket = self._directory / "s3"
            bucket.mkdir(parents=True, exist_ok=True)
            page = FilesPage(bucket)
            page.set(delay_ms=0, bytes_per_second=s3.BYTES_PER_SECOND)
            return FarStore(page, bucket, {"url": (bucket / "kafka").as_uri()}, {})
        pids = {"s3": store.server.process.pid, "front": store.front.process.pid}
        return FarStore(store.front.page, store.server.bucket, s3.archive(store.front.endpoint_url), pids)

    def _store(self, corpus: Corpus) -> None:
        backend = self.backend
        filled = filling.fill(backend.bootstrap, backend.broker, corpus, self._say)
        full = filled.log_bytes // corpus.partitions // SEGMENT_BYTES
        archiving = self._archive_full(corpus, full) if full else None
        self._archive_rest(corpus, filled)
        self._say(f"{corpus.name}: waiting for the broker to trim")
        entries = [e for m in backend.manifests(corpus.cold).values() for e in m["segments"]]
        backend.stored[corpus.name] = Stored(
            corpus,
            filled.ends,
            filled.log_bytes,
            sum(int(e["stored_size"]) for e in entries),
            len(entries),
            archiving,
        )

    def _archive_full(self, corpus: Corpus, full: int) -> Archiving:
        """Until each partition has so many full segments."""
        self._say(f"{corpus.name}: archiving")
        backend = self.backend
        with proxy(self._directory / "archiving", backend, [corpus], age="1h") as tierproxy:
            assert tierproxy.process is not None
            meter = Meter({**backend.parties, "tierproxy": tierproxy.process.pid}, backend.front)
            meter.begin()

            def all_there() -> bool:
                found = [backend.manifests(topic) for topic in corpus.topics]
                return all(
                    len(m) == corpus.partitions and all(len(p["segments"]) >= full for p in m.values()) for m in found
                )

            wait_for(all_there, seconds=1800, what=f"archive of {corpus.name}", pause=0.1)
            usage = meter.end()
        log_bytes = sum(_plain_bytes(backend.manifests(topic)) for topic in corpus.topics)
        return Archiving(log_bytes, usage.seconds, usage)

    def _archive_rest(self, corpus: Corpus, filled: filling.Filled) -> None:
        """All that is left; segments are closed by age, which is long enough to copy it all at leisure."""
        self._say(f"{corpus.name}: archiving what is left")
        backend = self.backend
        left = 2 * filled.log_bytes - sum(_plain_bytes(backend.manifests(topic)) for topic in corpus.topics)
        with proxy(self._directory / "archiving", backend, [corpus], age=f"{2 + left // 50_000_000}s"):

            def all_there() -> bool:
                return all(
                    p in found and int(found[p]["end_offset"]) >= end
                    for found in map(backend.manifests, corpus.topics)
                    for p, end in filled.ends.items()
                )

            wait_for(all_there, seconds=900, what=f"archive of {corpus.name}", pause=0.1)
            admin.wait_trimmed(backend.bootstrap, corpus.cold, filled.ends, seconds=120)


def _plain_bytes(manifests: Mapping[int, dict[str, Any]]) -> int:
    return sum(int(entry["plain_size"]) for manifest in manifests.values() for entry in manifest["segments"])
