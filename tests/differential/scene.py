"""The stage: one Kafka, the subjects in it twice, and two proxies before the archived half of them."""

import contextlib
from itertools import pairwise
from pathlib import Path
from typing import Self

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from protocol.batches import walk
from protocol.fetch import FetchPartition, build_fetch_request
from protocol.fetch_response import parse_fetch_response
from tests.differential import messages
from tests.differential.golden import Batch, Golden
from tests.differential.subjects import ACTS, GROWING, SUBJECTS, Pen, Subject
from tests.differential.wire import Line, exchange
from tests.differential.world import ARC, REF, Side, World
from tests.differential.writing import TRANSACTION_TIMEOUT_MS, Writer
from tests.kit.jars import KAFKA_VERSION
from tests.kit.kafka import Cluster
from tests.kit.processes import wait_for
from tests.kit.proxy import HOST, Proxy
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.retention import trim_point

Address = tuple[str, int]
NODE = 1
TINY = {
    "archiver": {"enabled": False},
    "cache": {"memory": "8MiB"},
    "limits": {"cold_in_flight": "1MiB", "cold_answers": "32MiB", "gathered": "1MiB"},
}
"""Too little for what is asked for, but enough for something of each partition at once: with less they have turns, and
a fetch of many would never have the one answer that a broker gives."""


class Scene:
    """Everything of a run, below `directory`; a context manager.

    The first of the `proxies` also archives. The second only serves, hears of nothing but by asking, and has caches
    and bounds that are too small for what it is asked for.
    """

    def __init__(self, directory: Path, version: str = KAFKA_VERSION) -> None:
        self.kafka = Cluster(
            directory / "kafka",
            version=version,
            properties={
                "transaction.max.timeout.ms": str(TRANSACTION_TIMEOUT_MS),
                "log.cleaner.backoff.ms": "200",
                "log.cleaner.min.cleanable.ratio": "0.01",
            },
        )
        self._directory = directory
        self._closing = contextlib.ExitStack()
        self.proxies: list[Proxy] = []

    # -- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.enter_context(self.kafka)
            self.broker: Address = (HOST, self.kafka.nodes[0].port)
            self._line = Line(self.broker)
            self._create()
            self.writer = Writer(self.broker, lambda subject: (f"{REF}-{subject}", f"{ARC}-{subject}"))
            self._pens = {subject.key: Pen(self.writer, subject.key) for subject in SUBJECTS}
            self._write()
            self.versions = self._versions()
            self.world = self._learn()
            self._raise_proxies(undo)
            self._delete()
            self._wait_still()
            self._closing = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()
        self.writer.close()
        self._closing.close()

    def through(self, number: int) -> Address:
        """Where the broker is reached through a proxy."""
        return HOST, self.proxies[number].port + 1 + NODE

    # -- topics and their records -----------------------------------------------------------------------------------

    def _create(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap, "log_level": 2})
        wanted = [
            NewTopic(
                f"{side}-{subject.key}",
                num_partitions=subject.partitions,
                replication_factor=1,
                config={
                    "retention.ms": "-1",
                    self.kafka.segment_setting: str(subject.segment),
                    "cleanup.policy": "compact" if subject.compacts else "delete",
                    **subject.settings,
                },
            )
            for subject in SUBJECTS
            for side in (REF, ARC)
        ]
        for created in admin.create_topics(wanted, operation_timeout=90).values():
            created.result(60)

    def _write(self) -> None:
        for act in range(ACTS):
            if act:
                self.kafka.nodes[0].kill()
                self.kafka.nodes[0].restart()
                self._line.close()
                self.writer.close()
            for subject in SUBJECTS:
                subject.write(self._pens[subject.key], act)
        for subject in SUBJECTS:
            if subject.compacts:
                self._compact(subject)

    def _compact(self, subject: Subject) -> None:
        """Waits until both topics are compacted alike, and has them compacted no more."""

        def both() -> bool:
            logs = [self._read(f"{side}-{subject.key}", 0) for side in (REF, ARC)]
            layouts = [[(b.base, b.last, b.header.record_count) for b in log] for log in logs]
            gaps = any(b.header.record_count <= b.header.last_offset_delta for b in logs[0])
            return gaps and layouts[0] == layouts[1] and layouts == seen(layouts)

        last: list[object] = [None]

        def seen(layouts: object) -> object:
            before, last[0] = last[0], layouts
            return before

        wait_for(both, seconds=60, what=f"compaction of {subject.key}", pause=0.5)
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap, "log_level": 2})
        change = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
        resources = [
            ConfigResource(ResourceType.TOPIC, f"{side}-{subject.key}", incremental_configs=[change])
            for side in (REF, ARC)
        ]
        for changed in admin.incremental_alter_configs(resources).values():
            changed.result(90)

    def grow(self) -> None:
        """One more batch for the subject that grows."""
        self._pens[GROWING].batch()
        for side in (self.world.ref, self.world.arc):
            log = side.logs[GROWING, 0]
            new = self._read(f"{side.prefix}-{GROWING}", 0, log.end)
            log.append(new, new[-1].last + 1)

    # -- what the broker then has -----------------------------------------------------------------------------------

    def _ask(self, payload: bytes) -> bytes:
        ((reply,),) = exchange([(self._line, [payload])])
        assert reply.payload is not None, "the broker closed the connection"
        return reply.payload

    def _versions(self) -> dict[int, tuple[int, int]]:
        return messages.read_api_versions(self._ask(messages.api_versions()))

    def _read(self, topic: str, partition: int, offset: int = 0) -> list[Batch]:
        """The whole batches of a partition from `offset` on, straight from the broker."""
        found: list[Batch] = []
        while True:
            place = FetchPartition(topic, None, partition, -1, offset, -1, 50 << 20)
            asked = build_fetch_request(
                12, 1, "kit", max_wait_ms=0, min_bytes=0, max_bytes=50 << 20, isolation=0, partitions=[place]
            )
            (part,) = parse_fetch_response(self._ask(asked), 12).partitions
            assert not part.error, f"{topic}-{partition}: error {part.error}"
            batches = [Batch(header, bytes(data)) for header, data in walk(part.records or memoryview(b""))]
            if not batches:
                return found
            found.extend(batches)
            offset = batches[-1].last + 1

    def _offsets(self, topic: str, partition: int) -> tuple[int, int, int]:
        """Log start, last stable offset, high watermark."""
        asked = [(-2, 0), (-1, 1), (-1, 0)]
        answers = [self._ask(messages.list_offsets([topic], partition, when, isolation)) for when, isolation in asked]
        start, stable, end = (messages.read_offsets(answer)[1][0] for answer in answers)
        return start, stable, end

    def _learn(self) -> World:
        names = [f"{side}-{subject.key}" for subject in SUBJECTS for side in (REF, ARC)]
        ids = wait_for(lambda: self._all_ids(names), seconds=90, what="topic ids")
        sides = []
        for side in (REF, ARC):
            logs = {}
            for subject in SUBJECTS:
                for partition in range(subject.partitions):
                    topic = f"{side}-{subject.key}"
                    logs[subject.key, partition] = Golden(
                        self._read(topic, partition), *self._offsets(topic, partition)
                    )
            sides.append(Side(side, {s.key: ids[f"{side}-{s.key}"] for s in SUBJECTS}, logs))
        ref, arc = sides
        for place, log in ref.logs.items():
            check_alike(place, log, arc.logs[place])
        archived = {subject.key for subject in SUBJECTS if subject.policy is not None}
        compacted = {subject.key for subject in SUBJECTS if subject.compacts}
        return World(ref, arc, {}, self._leader_epoch(), archived, compacted, self.kafka.version.startswith("3."))

    def _all_ids(self, names: list[str]) -> dict[str, bytes] | None:
        ids = messages.read_topic_ids(self._ask(messages.topics(names)))
        return ids if set(names) <= set(ids) else None

    def _leader_epoch(self) -> int:
        return messages.read_leader_epoch(self._ask(messages.topics([f"{ARC}-mixed", f"{REF}-mixed"])))

    # -- the proxies ------------------------------------------------------------------------------------------------

    def _raise_proxies(self, undo: contextlib.ExitStack) -> None:
        policies = [{"match": f"{ARC}-{s.key}", **s.policy} for s in SUBJECTS if s.policy is not None]
        policies.append({"match": "*", "archive": "none"})
        bootstrap = self.kafka.bootstrap
        first = Proxy(self._directory / "proxy", bootstrap, policies)
        archives = {"local": {"url": first.archive.as_uri()}}
        second = Proxy(self._directory / "second", bootstrap, policies, archives=archives, settings=TINY)
        self.proxies = [undo.enter_context(first), undo.enter_context(second)]

    def _delete(self) -> None:
        """What users delete: at the broker on one side, through the proxy on the other."""
        proxied = Line(self.through(0))
        for subject in SUBJECTS:
            for partition, offset in subject.delete_to.items():
                place = (subject.key, partition)
                if offset > 0:
                    self._wait_trimmed(place, offset)
                for line, side in ((self._line, self.world.ref), (proxied, self.world.arc)):
                    asked = messages.delete_records(f"{side.prefix}-{subject.key}", partition, offset)
                    ((reply,),) = exchange([(line, [asked])])
                    assert reply.payload is not None, f"{place}: the connection was closed"
                    errors, low = messages.read_deleted(reply.payload)
                    log = side.logs[place]
                    log.start = log.end if offset == -1 else offset
                    assert (errors, low) == ([0], log.start), f"{place}: {errors}, {low}"
        proxied.close()

    def _wait_trimmed(self, place: tuple[str, int], offset: int) -> None:
        """Waits until the archived side's broker no longer has `offset`."""
        topic, partition = f"{ARC}-{place[0]}", place[1]
        wait_for(lambda: self._offsets(topic, partition)[0] > offset, seconds=60, what=f"trimming of {topic}")

    def _wait_still(self) -> None:
        """Waits until what can be archived and trimmed is; learns where the archived side's logs now begin."""
        for subject in SUBJECTS:
            for partition in range(subject.partitions):
                place = (subject.key, partition)
                seam: int | None = None
                if subject.keep is None or self.world.arc.logs[place].end == 0:
                    seam = self.world.arc.logs[place].start
                elif not subject.moves:
                    seam = self._still_seam(subject, place)
                self.world.seams[place] = seam

    def _still_seam(self, subject: Subject, place: tuple[str, int]) -> int:
        (seam,) = wait_for(lambda: self._seam(subject, place), seconds=60, what=f"trimming of {place}")
        return seam

    def _seam(self, subject: Subject, place: tuple[str, int]) -> tuple[int] | None:
        """The broker's log start once all that may be archived is archived, and trimmed as far as it may be."""
        topic, partition = f"{ARC}-{place[0]}", place[1]
        archive = self.proxies[0].archive / self.proxies[0].cluster
        file = next((archive / topic).glob(f"*/{partition}/manifest.json"), None)
        if file is None:
            return None
        manifest = Manifest.from_json(file.read_bytes())
        log = self.world.arc.logs[place]
        start = self._offsets(topic, partition)[0]
        point = trim_point(manifest, None, subject.keep, 0)
        assert isinstance(point, int), "an archive so small has no pages"
        if manifest.end_offset < log.stable or start < point:
            return None
        return (start,)


def check_alike(place: tuple[str, int], ref: Golden, arc: Golden) -> None:
    """Both sides hold the same log but for what `ALLOWED.md` says of brokers' times."""
    assert (ref.start, ref.stable, ref.end) == (arc.start, arc.stable, arc.end), f"{place}: offsets differ"
    assert len(ref.batches) == len(arc.batches), f"{place}: numbers of batches differ"
    for one, other in zip(ref.batches, arc.batches, strict=True):
        stamped = one.header.is_control or one.header.is_log_append_time
        assert (_without_times(one.data) if stamped else one.data) == (
            _without_times(other.data) if stamped else other.data
        ), f"{place}: the batches at {one.base} differ"
    for log in (ref, arc):
        stamps = [b.header.max_timestamp for b in log.batches if b.header.is_control or b.header.is_log_append_time]
        apart = all(after - before > 1 for before, after in pairwise(stamps))
        assert apart, f"{place}: the broker stamped batches less than 2 ms apart"


def _without_times(batch: bytes) -> bytes:
    """The batch without checksum and timestamps."""
    return batch[:17] + batch[21:27] + batch[43:]
