"""Compares two fetch answers: the broker's from the log that was never trimmed, tierproxy's from the archived one.

Each side is first held to its own golden log: an answer is a run of whole batches, byte by byte those that were stored,
without a hole, from the batch that holds the fetch offset on. Two runs that begin at the same offset can then differ in
length only, and what is left to judge is whether that length, and everything around the records, is as it must be.
"""

from dataclasses import dataclass

from protocol.errors import MalformedError
from protocol.fetch import INITIAL_EPOCH
from tests.differential.answers import Fetched, Part, read_fetched
from tests.differential.asks import FetchAsk, FetchPlace
from tests.differential.deliver import READ_COMMITTED, delivered
from tests.differential.findings import Allowed, Findings
from tests.differential.golden import Batch, Golden, split
from tests.differential.wire import Reply
from tests.differential.world import World
from tierproxy.conversation import SMALL_ANSWER

UNKNOWN_SERVER_ERROR = -1
OUT_OF_RANGE = 1
UNSUPPORTED_COMPRESSION = 76
OLDEST_OFFERED = 4

EARLY = 0.8
"""An answer that takes less than this share of max_wait did not wait for it."""
WAIT_SEEN_FROM_MS = 50
"""Only longer waits than this are judged: shorter ones are lost in the noise of a busy machine."""


def compare_fetch(ask: FetchAsk, ref: Reply, arc: Reply, world: World, *, alone: bool = True) -> Findings:
    """What differs. `alone`: nothing else was asked on these connections, so that times mean something."""
    findings = Findings()
    if ref.payload is None or arc.payload is None:
        if ask.version < OLDEST_OFFERED and arc.payload is None:
            findings.allow(Allowed.OLD_FETCH)
        else:
            findings.same("closed the connection", ref.payload is None, arc.payload is None)
        return findings
    fetched = read_fetched(ref.payload, ask.version, world.ref), read_fetched(arc.payload, ask.version, world.arc)
    compare_fetched(ask, *fetched, world, findings)
    if alone and not findings.again:
        _compare_patience(ask, ref, arc, fetched, findings)
    return findings


def compare_fetched(
    ask: FetchAsk, ref: Fetched, arc: Fetched, world: World, findings: Findings, *, in_order: bool = True
) -> None:
    """The answers themselves. `ask` is what was asked for in the end, sessions and all.

    `in_order`: both sides read the partitions in the order of the request, and so use up max_bytes alike.
    """
    _Comparison(ask, ref, arc, world, findings, in_order).run()


@dataclass(slots=True)
class _Run:
    """The records of one side's partition: whole batches, and how many bytes of a partial one follow."""

    batches: list[Batch]
    partial: int


def fails_for_the_zero_id(ask: FetchAsk, ref: Fetched) -> bool:
    """As Kafka 3.9 does in a session; see ALLOWED.md."""
    return ref.error == UNKNOWN_SERVER_ERROR and any(place.topic == "?zero" for place in ask.places)


class _Comparison:
    def __init__(
        self, ask: FetchAsk, ref: Fetched, arc: Fetched, world: World, findings: Findings, in_order: bool
    ) -> None:
        self.ask, self.ref, self.arc, self.world, self.findings = ask, ref, arc, world, findings
        self.places = ask.effective
        self.sizes = {side: _sizes(answer) for side, answer in (("ref", ref), ("arc", arc))}
        self.may_end_elsewhere = not in_order or any(self._cold(place) is not False for place in self.places.values())

    def run(self) -> None:
        findings, ref, arc = self.findings, self.ref, self.arc
        if not ref.exact:
            findings.differ("the broker's answer isn't what kafka-python makes of it")
        if not arc.exact and not (arc.endpoints or ref.endpoints):
            findings.differ("tierproxy's answer isn't what kafka-python makes of it")
        if self.ask.session[1] == INITIAL_EPOCH and fails_for_the_zero_id(self.ask, ref):
            findings.allow(Allowed.ZERO_ID)
            return
        findings.same("error", ref.error, arc.error)
        if arc.session_id and self.ask.replica < 0:
            findings.differ(f"tierproxy opened a session, {arc.session_id}")
        elif ref.session_id:
            findings.allow(Allowed.SESSION)
        streams = arc.size > SMALL_ANSWER or self.ask.replica >= 0
        if ref.endpoints and not arc.endpoints and not arc.exact and streams:
            findings.allow(Allowed.NO_ADDRESS)
        elif ref.endpoints != arc.endpoints:
            findings.same("number of endpoints", ref.endpoints, arc.endpoints)
        elif ref.endpoints:
            findings.allow(Allowed.ADDRESS)
        if not findings.same("partitions", _keys(ref), _keys(arc)):
            return
        findings.same("topic entries", ref.groups, arc.groups)
        for one, other in zip(ref.parts, arc.parts, strict=True):
            place = self.places.get((one.topic, one.index))
            if place is None:
                findings.differ(f"{one.topic}-{one.index} was answered, but not asked for")
            else:
                self._part(place, one, other)
        self._limits()

    # -- one partition ----------------------------------------------------------------------------------------------

    def _cold(self, place: FetchPlace) -> bool | None:
        return self.world.is_cold(place.topic, place.index, place.offset)

    def _part(self, place: FetchPlace, ref: Part, arc: Part) -> None:
        where = f"{place.topic}-{place.index} at {place.offset}"
        if ref.error != arc.error:
            self._other_error(where, place, ref, arc)
        elif ref.error:
            for name in Part.__slots__:
                self.findings.same(f"{where}, error {ref.error}: {name}", getattr(ref, name), getattr(arc, name))
        elif ref.diverging != arc.diverging and self._ignores_last_epoch(place, arc):
            self._archive_alone(where, place, arc)
        elif ref.diverging != arc.diverging and self._diverges_later(place, ref, arc):
            self.findings.allow(Allowed.EPOCH_ENDS)
        else:
            self._good(where, place, ref, arc)

    def _other_error(self, where: str, place: FetchPlace, ref: Part, arc: Part) -> None:
        findings = self.findings
        served = bool(arc.records) or self._no_room(place)
        if ref.error == OUT_OF_RANGE and served and self._ignores_last_epoch(place, arc):
            self._archive_alone(where, place, arc)
        elif ref.error == OUT_OF_RANGE and not arc.error and not arc.records:
            findings.later(Allowed.OUT_OF_RANGE_LATER, f"{where}: no error instead of out of range")
        elif ref.error == UNSUPPORTED_COMPRESSION and self.world.zstd_refused and not arc.error and self._cold(place):
            findings.allow(Allowed.ZSTD)
            self._archive_alone(where, place, arc)
        else:
            findings.same(f"{where}: error", ref.error, arc.error)

    def _ignores_last_epoch(self, place: FetchPlace, arc: Part) -> bool:
        """An archived partition is served whatever epoch the client names as that of its last record."""
        if place.last_epoch < 0 or self._cold(place) is False or arc.error or arc.diverging:
            return False
        self.findings.allow(Allowed.LAST_EPOCH)
        return True

    def _diverges_later(self, place: FetchPlace, ref: Part, arc: Part) -> bool:
        """A trimmed broker names later ends for epochs it has forgotten: here as in OffsetForLeaderEpoch."""
        seam = self.world.seams[place.topic, place.index]
        if (
            ref.diverging is None
            or place.topic not in self.world.archived
            or (seam is not None and ref.diverging[1] >= seam)
        ):
            return False
        return arc.diverging is None or (arc.diverging[0] >= ref.diverging[0] and arc.diverging[1] >= ref.diverging[1])

    def _archive_alone(self, where: str, place: FetchPlace, arc: Part) -> None:
        """Where the broker's side says something else by rule, the archive's is still held to the golden log."""
        log = self.world.arc.logs[place.topic, place.index]
        run = self._run(f"{where} (tierproxy)", place, arc, log)
        if run is not None:
            self._aborted_genuine(where, place, arc, run, log)

    def _good(self, where: str, place: FetchPlace, ref: Part, arc: Part) -> None:
        findings = self.findings
        if arc.high_watermark == -1 != ref.high_watermark and not arc.records and self._cold(place) is not False:
            findings.later(Allowed.NOT_YET, f"{where}: a refusal made into an empty answer")
            return
        for name in ("preferred", "diverging", "leader"):
            findings.same(f"{where}: {name}", getattr(ref, name), getattr(arc, name))
        findings.same(f"{where}: null records", ref.records is None, arc.records is None)
        log = self.world.ref.logs.get((place.topic, place.index))
        own = self.world.arc.logs.get((place.topic, place.index))
        if log is None or own is None:
            findings.differ(f"{where}: both sides answer for a partition that doesn't exist")
            return
        ref_run = self._run(f"{where} (broker)", place, ref, log)
        arc_run = self._run(f"{where} (tierproxy)", place, arc, own)
        if ref_run is None or arc_run is None:
            return
        if not self._lengths(where, place, ref_run, arc_run, own):
            return
        self._bounds(where, place, ref, arc)
        self._aborted(where, place, (ref, ref_run), (arc, arc_run), own)

    def _run(self, where: str, place: FetchPlace, part: Part, log: Golden) -> _Run | None:
        """The records taken apart; None, with a difference noted, if they are not what is stored there."""
        try:
            batches, partial = split(part.records or b"")
        except MalformedError as fault:
            self.findings.differ(f"{where}: records that can't be read, {fault}")
            return None
        before = log.stable if self.ask.isolation == READ_COMMITTED else log.end
        expected = log.since(place.offset, before)
        for batch in batches:
            stored = next(expected, None)
            if stored is None or stored.data != batch.data:
                due = "nothing more" if stored is None else f"the one at {stored.base}"
                self.findings.differ(f"{where}: in place of {due} came another batch, with base offset {batch.base}")
                return None
        if partial:
            stored = next(expected, None)
            if stored is None or not stored.data.startswith(partial):
                self.findings.differ(f"{where}: ends in bytes that are not the beginning of the next batch")
                return None
        return _Run(batches, len(partial))

    # -- how much -----------------------------------------------------------------------------------------------------

    def _lengths(self, where: str, place: FetchPlace, ref: _Run, arc: _Run, log: Golden) -> bool:
        """Whether both have records, or neither; or there is a reason for it. False: nothing else to compare."""
        findings, cold = self.findings, self._cold(place)
        if arc.partial and cold:
            findings.differ(f"{where}: a partial batch out of the archive")
        if bool(ref.batches) != bool(arc.batches):
            return self._only_one_has(where, place, ref, arc, log)
        if (len(ref.batches), ref.partial) == (len(arc.batches), arc.partial):
            return True
        if self.may_end_elsewhere:
            same = len(ref.batches) == len(arc.batches)
            findings.allow(Allowed.WHOLE_BATCHES if same else Allowed.OTHER_END)
        else:
            findings.differ(
                f"{where}: {len(ref.batches)} batches and {ref.partial} bytes from the broker, "
                f"{len(arc.batches)} and {arc.partial} through tierproxy, and nothing here is archived only"
            )
        return True

    def _only_one_has(self, where: str, place: FetchPlace, ref: _Run, arc: _Run, log: Golden) -> bool:
        findings = self.findings
        if arc.batches:
            if self._no_room(place, "ref"):
                findings.allow(Allowed.BUDGET)
            elif self.world.zstd_refused and any(part.error == UNSUPPORTED_COMPRESSION for part in self.ref.parts):
                findings.allow(Allowed.ZSTD)  # it had read that partition, within the limits, before it refused
            else:
                findings.differ(f"{where}: records through tierproxy, none from the broker")
            return True
        if self._no_room(place):
            findings.allow(Allowed.BUDGET)
            return True
        first, others = log.batches[log.first_at(place.offset)].size, self._others(place, "arc")
        if others and self.may_end_elsewhere and self._cold(place) is not True and first > self._hot_share() - others:
            findings.allow(Allowed.SHARE)
            return True
        if self._cold(place) is False:
            findings.differ(f"{where}: no records through tierproxy although the broker has them")
        else:
            findings.later(Allowed.NOT_YET, f"{where}: no records yet")
        return False

    def _no_room(self, place: FetchPlace, side: str = "arc") -> bool:
        """Whether others' records left no room for the first batch of this place."""
        log = self.world.arc.logs.get((place.topic, place.index))
        if log is None or log.first_at(place.offset) == len(log.batches):
            return False
        first, others = log.batches[log.first_at(place.offset)].size, self._others(place, side)
        return others > 0 and (first > self.ask.max_bytes - others or first > place.max_bytes)

    def _others(self, place: FetchPlace, side: str) -> int:
        """Bytes of the other partitions' records."""
        return sum(size for key, size in self.sizes[side].items() if key != (place.topic, place.index))

    def _hot_share(self) -> int:
        """The least that the broker was asked for, if tierproxy kept a share for what is archived."""
        cold = sum(self._cold(place) is not False for place in self.ask.places)
        return self.ask.max_bytes * (len(self.ask.places) - cold) // len(self.ask.places)

    def _limits(self) -> None:
        """Tierproxy keeps the limits itself, as KIP-74 has them; see ALLOWED.md for the one batch more."""
        sizes = self.sizes["arc"]
        # What can't be told to be archived only may be seen either way.
        unclear = {key for key in sizes if self._cold(self.places[key]) is None}
        cold = {key for key in sizes if self._cold(self.places[key])}
        if not any(_within(self.ask.max_bytes, sizes, known, self._single()) for known in (cold, cold | unclear)):
            self.findings.differ(f"{sizes} bytes of records where {self.ask.max_bytes} were asked for")
        elif len(sizes) > 1 and sum(sizes.values()) > max(0, self.ask.max_bytes):
            self.findings.allow(Allowed.TWO_FIRSTS)
        ample = {key for key, size in sizes.items() if size > max(0, self.places[key].max_bytes)}
        firsts = {next(iter([key for key in sizes if key not in known]), None) for known in ((), cold, cold | unclear)}
        if not ample <= firsts & self._single():
            self.findings.differ(f"more than the partition's max_bytes from {sorted(ample)}")

    def _single(self) -> set[tuple[str, int]]:
        """The partitions with one batch only."""
        logs, places = self.world.arc.logs, self.places
        return {key for key, size in self.sizes["arc"].items() if logs[key].is_batch_at(places[key].offset, size)}

    # -- what goes with the records -----------------------------------------------------------------------------------

    def _bounds(self, where: str, place: FetchPlace, ref: Part, arc: Part) -> None:
        findings, cold = self.findings, self._cold(place)
        if arc.log_start == -1 and ref.log_start != -1 and place.topic in self.world.archived:
            findings.later(Allowed.START_LATER, f"{where}: the log start isn't known yet")
        else:
            findings.same(f"{where}: log start", ref.log_start, arc.log_start)
        for name in ("high_watermark", "last_stable"):
            mine, theirs = getattr(ref, name), getattr(arc, name)
            if theirs < mine and cold is not False:
                findings.later(Allowed.BOUNDS_LATER, f"{where}: {name} is {theirs}, not {mine}")
            else:
                findings.same(f"{where}: {name}", mine, theirs)

    def _aborted(
        self, where: str, place: FetchPlace, ref: tuple[Part, _Run], arc: tuple[Part, _Run], log: Golden
    ) -> None:
        findings = self.findings
        (ref_part, ref_run), (arc_part, arc_run) = ref, arc
        common = min(len(ref_run.batches), len(arc_run.batches))
        if not common and self._log_goes_on(place, log):
            # Brokers say null where they have cut a batch off, and list what they know where they have not read at
            # all: that depends on what was left of max_bytes.
            if ref_part.aborted != arc_part.aborted:
                findings.allow(Allowed.BUDGET)
            return
        if not findings.same(f"{where}: null aborted", ref_part.aborted is None, arc_part.aborted is None):
            return
        batches = arc_run.batches[:common]
        last = batches[-1].last if batches else -1
        concerned = [{each for each in part.aborted or () if each[1] <= last} for part in (ref_part, arc_part)]
        findings.same(f"{where}: aborted transactions up to {last}", *map(sorted, concerned))
        if ref_part.aborted != arc_part.aborted:
            same_set = set(ref_part.aborted or ()) == set(arc_part.aborted or ())
            findings.allow(Allowed.ABORTED_ORDER if same_set else Allowed.ABORTED_BEYOND)
        isolation = self.ask.isolation
        one = delivered(ref_run.batches[:common], ref_part.aborted, place.offset, isolation)
        other = delivered(batches, arc_part.aborted, place.offset, isolation)
        findings.same(f"{where}: offsets that a client delivers", one, other)
        self._aborted_genuine(where, place, arc_part, arc_run, log)

    def _log_goes_on(self, place: FetchPlace, log: Golden) -> bool:
        """Whether there is a batch to send."""
        before = log.stable if self.ask.isolation == READ_COMMITTED else log.end
        return next(log.since(place.offset, before), None) is not None

    def _aborted_genuine(self, where: str, place: FetchPlace, arc: Part, run: _Run, log: Golden) -> None:
        """No transaction is listed that a reader from here on does not meet, none is left out that they do."""
        findings = self.findings
        real = {(each.producer_id, each.first): each for each in log.aborted}
        for entry in arc.aborted or ():
            if entry not in real or real[entry].marker < place.offset:
                findings.differ(f"{where}: lists the aborted transaction {entry}, which no reader meets there")
        listed = arc.aborted or []
        if self._cold(place) and listed != sorted(listed, key=lambda entry: entry[1]):
            findings.differ(f"{where}: the archive's aborted transactions are not in the order of their first offsets")
        got = delivered(run.batches, arc.aborted, place.offset, self.ask.isolation)
        truth = log.visible(run.batches, place.offset, committed=self.ask.isolation == READ_COMMITTED)
        findings.same(f"{where}: offsets that should be delivered", truth, got)


def _within(
    max_bytes: int, sizes: dict[tuple[str, int], int], cold: set[tuple[str, int]], single: set[tuple[str, int]]
) -> bool:
    """Whether the hot records keep to max_bytes, and the archived ones to what is left of it; or, each, are one batch:
    the first of the hot ones, and the first of all."""
    hot = [key for key in sizes if key not in cold]
    used = sum(sizes[key] for key in hot)
    if used > max(0, max_bytes) and not (len(hot) == 1 and hot[0] in single):
        return False
    archived = [key for key in sizes if key in cold]
    if sum(sizes[key] for key in archived) <= max(0, max_bytes - used):
        return True
    return len(archived) == 1 and archived[0] in single and archived[0] == next(iter(sizes))


def _sizes(answer: Fetched) -> dict[tuple[str, int], int]:
    return {(part.topic, part.index): len(part.records) for part in answer.parts if part.records}


def _keys(answer: Fetched) -> list[tuple[str, int]]:
    return [(part.topic, part.index) for part in answer.parts]


def _compare_patience(
    ask: FetchAsk, ref: Reply, arc: Reply, fetched: tuple[Fetched, Fetched], findings: Findings
) -> None:
    """An answer without anything must not come before the broker's would, or clients ask without pause."""
    wait = ask.max_wait_ms / 1000
    if ask.max_wait_ms < WAIT_SEEN_FROM_MS or arc.seconds >= wait * EARLY or ref.seconds < wait * EARLY:
        return
    if not any(part.records or part.error for part in fetched[1].parts):
        findings.differ(f"nothing, and after {arc.seconds:.3f} s although the broker waited {ref.seconds:.3f} s")
