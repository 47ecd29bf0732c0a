"""Carry out what a held answer needs: learn facts, read the archive, put the answer together.

Waiting has one rule: a fetch's archived records have until the client's own max_wait, and none of that where the broker
has already sent enough hot records. What isn't ready by then goes on loading and is there for the next fetch. Facts
that must be younger than the refusal begin anew with every fetch: they have a moment of their own, whatever else there
is to send and however little a client waits, and a longer one each time it was too short (`_moment`). A slow
archive answers "no error, no records", a broken one a retriable error at the end of max_wait (some clients come back at
once after an error, hundreds of times a second); neither ever answers out of range.

Where a rate is used up, archived records wait before anything is read for them, in the same time (`throttle.py`).
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from protocol.errors import ErrorCode, MalformedError
from protocol.fetch_response import encode_fetch_response
from protocol.wire import Buffer
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import topic_id_text
from tierproxy.archive.store import NotFound
from tierproxy.catalog import UNKNOWN, Catalog, Tier
from tierproxy.cold.allowance import CHUNK, Allowance, AnswerMemory
from tierproxy.cold.budget import ON_BEHALF_OF, Crowded
from tierproxy.cold.facts import FactFinder
from tierproxy.cold.limits import Claim, ColdLimits
from tierproxy.cold.offsets import OffsetAnswers
from tierproxy.cold.reader import MOST_IN_ANSWER, ColdReader, ReadyRecords
from tierproxy.cold.throttle import Throttle
from tierproxy.errors import TierproxyError
from tierproxy.routing import fetch as fetch_routing
from tierproxy.routing.fetch import ColdAnswer, Facts, Refused, Verdict, judge
from tierproxy.routing.holds import FetchHold
from tierproxy.tasks import Tasks
from tierproxy.telemetry import COLD_FETCH_SECONDS, COLD_FETCHES, HOLES_MET, OncePerChange, Seldom
from tierproxy.tracing import active, note, traced

log = logging.getLogger("tierproxy.cold")

GATHER_GRACE = 0.005
"""Seconds that other archived partitions get once one has records: they mostly become ready together."""

MOST_DOUBLINGS = 7

LEAST_WISH = 16 * CHUNK
"""Memory that an answer wishes for at the least: for partitions that have little to send."""


class BrokenArchive(Exception):
    """The archive can't be read right now; the reason is in the log."""


@dataclass(frozen=True, slots=True)
class _Read:
    """Records in memory, and by what manifest of which tier they were read."""

    tier: Tier
    manifest: Manifest
    records: ReadyRecords


def _moment(tier: Tier) -> float:
    """Seconds that a question about fresh facts has, whatever else there is to send: twice as many each time in a row
    that they were not enough."""
    return GATHER_GRACE * float(2 ** min(tier.unresolved, MOST_DOUBLINGS))


def _weight(question: Refused) -> int:
    """What this partition's part of an answer holds in memory, more or less: its chunks, and a part of one more."""
    return min(max(CHUNK, question.max_bytes), MOST_IN_ANSWER)


def _outcome(answers: list[ColdAnswer]) -> str:
    """What came of a fetch, for its metric."""
    if any(isinstance(answer, ReadyRecords) for answer in answers):
        return "records"
    if ErrorCode.KAFKA_STORAGE_ERROR in answers:
        return "error"
    return "empty" if ErrorCode.NONE in answers else "out_of_range"


def _about(hold: FetchHold) -> dict[str, str | int]:
    """What its span says of a fetch: of several partitions the first one."""
    first = hold.refused[0]
    topic = first.topic if isinstance(first.topic, str) else topic_id_text(first.topic)
    return {
        "topic": first.tier.pid.topic if first.tier is not None else topic,
        "partition": first.partition,
        "offset": first.offset,
        "partitions": len(hold.refused),
        "client.id": hold.client.client_id,
    }


class ColdAnswers:
    """Finishes held answers; `fetch` and `offsets` return the payload to send."""

    def __init__(
        self,
        catalog: Catalog,
        scout: FactFinder,
        reader: ColdReader,
        memory: AnswerMemory,
        libraries: Mapping[str, Library],
        tasks: Tasks,
        limits: ColdLimits | None = None,
    ) -> None:
        self._throttle = Throttle(limits or ColdLimits())
        self._catalog = catalog
        self._scout = scout
        self._reader = reader
        self._memory = memory
        self.offsets = OffsetAnswers(catalog, scout, reader, libraries).finish
        self._libraries = libraries
        self._tasks = tasks
        self._trouble = OncePerChange(log)
        self._crossings = Seldom(log, lambda: asyncio.get_running_loop().time())

    # -- fetches ----------------------------------------------------------------------------------------------------

    @traced("cold fetch")
    async def fetch(self, hold: FetchHold) -> tuple[list[Buffer], Allowance]:
        """The finished answer, at the latest when the request's max_wait is over, or a moment for facts if longer.

        The allowance is for the caller to end, when the answer's bytes have gone.
        """
        if active():
            note(**_about(hold))
        claim = await self._throttle.admit(hold)
        wish = max(2 * hold.request.max_bytes, LEAST_WISH)
        ON_BEHALF_OF.set(hold.client)
        room = self._memory.grant(min(wish, sum(_weight(question) for question in hold.refused)), hold.client)
        room.divide(len(hold.refused))
        try:
            return await self._fetch(hold, room, claim), room
        except BaseException:
            room.end()
            raise
        finally:
            claim.close(asyncio.get_running_loop().time())

    async def _fetch(self, hold: FetchHold, room: Allowance, claim: Claim) -> list[Buffer]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        until = hold.asked_at + hold.request.max_wait_ms / 1000
        enough_hot = fetch_routing.enough_hot(hold.response, hold.request)
        # Backwards: whose records were read when it was the first has the next turn, and finds them in memory.
        turn = -hold.number % max(1, len(hold.refused))
        order = claim.chosen(hold.refused, [*range(turn, len(hold.refused)), *range(turn)])
        answers, patience = self._answers_in_memory(hold.refused, order, room)
        await self._check_names(hold.refused, answers, 0.0 if enough_hot else until - loop.time())
        missing = [at for at in order if answers[at] is ErrorCode.NONE]
        if missing:
            deadline = facts_until = loop.time() + patience
            if not enough_hot and len(missing) == len(order):
                deadline = max(deadline, until)
            await self._await_answers(hold, room, answers, order, deadline, facts_until)
        for question, answer in zip(hold.refused, answers, strict=True):
            if isinstance(answer, ReadyRecords):
                answer.most = min(MOST_IN_ANSWER, room.part(question.at))
        fetch_routing.show_log_starts(hold.response, self._catalog)
        fetch_routing.fill(hold.response, hold.request, list(zip(hold.refused, answers, strict=True)), claim)
        self._throttle.tell(hold, claim)
        room.keep(sum(each.held for each in answers if isinstance(each, ReadyRecords)))
        COLD_FETCHES.inc()
        outcome, payload = _outcome(answers), encode_fetch_response(hold.response)
        COLD_FETCH_SECONDS.labels(outcome).observe(loop.time() - began)
        if active():
            note(outcome=outcome, bytes=sum(len(part) for part in payload), waited=loop.time() - hold.asked_at)
        return payload

    def _answers_in_memory(
        self, refused: list[Refused], order: list[int], room: Allowance
    ) -> tuple[list[ColdAnswer], float]:
        """What can be said without waiting, NONE where it can't; and how long others are to wait for the rest.

        Others don't wait for records: those go on loading. They wait a moment for facts that nobody has yet.
        """
        answers: list[ColdAnswer] = [ErrorCode.NONE] * len(refused)
        patience = 0.0
        for at in order:
            question, tier = refused[at], refused[at].tier
            if tier is None:
                patience = max(patience, GATHER_GRACE)
            else:
                facts = Facts.of(tier, trust_manifest=self._scout.trusts(tier))
                match judge(facts, question.offset, question.last_fetched_epoch):
                    case Verdict.COLD:
                        assert facts.manifest is not None
                        if facts.manifest.gap_at(question.offset) is None:
                            self._scout.used(tier)
                            library = self._libraries[tier.archive].home(tier.pid)
                            ready = self._reader.ready(library, tier.pid, facts.manifest, question.offset)
                            if ready is not None and room.admits(question.at, _weight(question)):
                                answers[at] = ready
                    case Verdict.UNKNOWN:
                        patience = max(patience, _moment(tier))
        return answers, patience

    async def _check_names(self, refused: list[Refused], answers: list[ColdAnswer], patience: float) -> None:
        """Take back the answers to partitions asked for by a name that may stand for another topic by now.

        `patience` is in seconds; a moment is taken all the same.

        Who asks by topic id has been told by the broker that the id is right. A name says less: the broker's refusal
        may be about a topic that was created anew, and then no old record may follow. So the name is checked after
        every refusal.
        """
        by_name = {
            at: question.tier
            for at, question in enumerate(refused)
            if isinstance(question.topic, str) and question.tier is not None and answers[at] is not ErrorCode.NONE
        }
        if not by_name:
            return
        checks = {
            at: self._tasks.spawn(self._is_same(tier), "name of a cold partition", awaited=True)
            for at, tier in by_name.items()
        }
        await asyncio.wait(checks.values(), timeout=max(patience, *map(_moment, by_name.values())))
        for at, check in checks.items():
            if not check.done():
                by_name[at].unresolved += 1
            elif not by_name[at].doubts:
                by_name[at].unresolved = 0
            if not check.done() or check.exception() is not None or not check.result():
                check.cancel()
                answers[at] = ErrorCode.NONE

    async def _is_same(self, tier: Tier) -> bool:
        return await self._scout.same_topic_now(tier)

    async def _await_answers(
        self,
        hold: FetchHold,
        room: Allowance,
        answers: list[ColdAnswer],
        order: list[int],
        deadline: float,
        facts_until: float,
    ) -> None:
        """Fill in `answers` where there are none, as far as the time goes: at the most until `deadline`, and not much
        longer than until the first one is there and facts have had their moment, which is until `facts_until`."""
        loop = asyncio.get_running_loop()
        missing = [at for at in order if answers[at] is ErrorCode.NONE]
        waiting = {
            self._tasks.spawn(
                self._answer(hold.refused[at], room, first=at == order[0]), "cold partition", awaited=True
            ): at
            for at in missing
        }
        unfinished: set[asyncio.Task[ColdAnswer]] = set(waiting)
        broken: list[int] = []
        answered = False
        try:
            while unfinished:
                patience = deadline - loop.time()
                if answered:
                    patience = min(patience, max(GATHER_GRACE, facts_until - loop.time()))
                done, unfinished = await asyncio.wait(
                    unfinished, timeout=max(0.0, patience), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for task in done:
                    at = waiting[task]
                    try:
                        answers[at] = task.result()
                        answered = True
                    except BrokenArchive:
                        broken.append(at)
            if broken and not answered:
                await asyncio.sleep(max(0.0, deadline - loop.time()))
        finally:
            for task in unfinished:
                task.cancel()  # only the waiting: what is being read goes on in flights of its own
                self._unresolved(hold.refused[waiting[task]])
        for at in broken:
            answers[at] = ErrorCode.KAFKA_STORAGE_ERROR

    def _unresolved(self, question: Refused) -> None:
        tier = question.tier
        if tier is not None and question.offset in tier.doubts:
            tier.unresolved += 1
            self._catalog.want(tier)

    async def _answer(self, question: Refused, room: Allowance, first: bool) -> ColdAnswer:
        """Find out about one refused partition, however long it takes. Raises BrokenArchive.

        There may be no room for its records. Of the `first` one they are read all the same, for the next answer: those
        that are always in memory would else leave it none for ever.
        """
        try:
            early = await self._read_early(question, room, first)
            tier = await self._tier(question)
            tier.doubt(question.offset)
            verdict, manifest = await self._verdict(tier, question)
            tier.doubts.discard(question.offset)
            tier.unresolved = 0
            match verdict:
                case Verdict.BEYOND:
                    return None
                case Verdict.AGAIN:
                    return await self._never()
                case Verdict.COLD if manifest is not None and not self._halted(tier, manifest, question.offset):
                    self._scout.used(tier)
                    if not room.admits(question.at, _weight(question)):
                        if first:
                            await self._read(tier, manifest, question.offset)
                        return await self._never()
                    if early is None or early.tier is not tier or early.manifest is not manifest:
                        early = await self._read(tier, manifest, question.offset)
                    self._trouble.ended(tier.archive, f"archive {tier.archive} can be read again")
                    self._trouble.ended(f"hole {tier.pid}", f"consumers of {tier.pid} go on behind the hole")
                    return early.records
                case _:
                    return await self._wait_at_hole(tier, manifest, question.offset)
        except Crowded:
            return await self._never()
        except (TierproxyError, MalformedError) as error:
            room.without(question.at)
            archive = question.tier.archive if question.tier is not None else "of an unknown topic"
            self._trouble.began(
                archive, f"archive {archive} can't be read: {error}; clients are told to come again, nothing is lost"
            )
            raise BrokenArchive from error

    async def _tier(self, question: Refused) -> Tier:
        """The tier of what was asked for, by facts younger than the refusal. Raises TierproxyError if there is none."""
        tier = question.tier
        if tier is None:
            await self._scout.topics_now()
        elif not isinstance(question.topic, str) or await self._scout.same_topic_now(tier):
            return tier
        found = question.tier = self._catalog.find(question.topic, question.partition)
        if found is None:
            # The broker knows the topic, for it has judged an offset of it.
            name = question.topic if isinstance(question.topic, str) else f"with id {topic_id_text(question.topic)}"
            raise TierproxyError(
                f"tierproxy's own account is not shown the topic {name}, so nobody can tell what is archived of it; "
                "may it DESCRIBE the topic?"
            )
        return found

    @traced("facts")
    async def _verdict(self, tier: Tier, question: Refused) -> tuple[Verdict, Manifest | None]:
        """Judge with what is known and, where that isn't enough, with facts younger than the refusal.

        The log start is learned before the manifest: what the broker has trimmed by then was committed before.
        """
        facts = Facts.of(tier, trust_manifest=self._scout.trusts(tier))
        offset, epoch = question.offset, question.last_fetched_epoch
        verdict = judge(facts, offset, epoch)
        if verdict is Verdict.UNKNOWN and (facts.log_start == UNKNOWN or offset >= facts.log_start):
            log_start, high_watermark = await self._scout.broker_now(tier)
            facts = replace(facts, log_start=log_start, high_watermark=high_watermark, broker_fresh=True)
            verdict = judge(facts, offset, epoch)
        if verdict is Verdict.UNKNOWN and (coming := await self._scout.manifest_coming(tier)) is not None:
            # The client's own request has set out for it: too early for a no, but good enough for a yes.
            facts = replace(facts, manifest=coming, manifest_known=True)
            verdict = judge(facts, offset, epoch)
        if verdict is Verdict.UNKNOWN:
            manifest = await self._scout.manifest_now(tier)
            facts = replace(facts, manifest=manifest, manifest_known=True, manifest_fresh=True)
            verdict = judge(facts, offset, epoch)
        return verdict, facts.manifest

    async def _read_early(self, question: Refused, room: Allowance, first: bool) -> "_Read | None":
        """The records that old facts promise to who asks by name, read before the name is checked.

        What was read stays, while a check begins anew with every fetch: the other way round, a client that doesn't wait
        would never be given any.
        """
        tier = question.tier
        if tier is None or not isinstance(question.topic, str):
            return None
        facts = Facts.of(tier, trust_manifest=self._scout.trusts(tier))
        manifest = facts.manifest
        if judge(facts, question.offset, question.last_fetched_epoch) is not Verdict.COLD or manifest is None:
            return None
        has_room = room.admits(question.at, _weight(question))
        if not has_room and not first:
            return None
        try:
            read = await self._read(tier, manifest, question.offset)
            return read if has_room else None
        except (TierproxyError, MalformedError):
            room.without(question.at)
            return None  # perhaps it need not be read at all

    async def _read(self, tier: Tier, manifest: Manifest, offset: int) -> "_Read":
        return _Read(tier, manifest, await self._read_records(tier, manifest, offset))

    async def _read_records(self, tier: Tier, manifest: Manifest, offset: int) -> ReadyRecords:
        library = self._libraries[tier.archive]
        try:
            return await self._reader.fetch(library.home(tier.pid), tier.pid, manifest, offset)
        except NotFound:
            # The object may have been merged, expired or moved since the manifest was read: look once more.
            fresh = await self._scout.manifest_now(tier)
            if fresh is None or not fresh.holds(offset):
                raise
            return await self._reader.fetch(library.home(tier.pid), tier.pid, fresh, offset)

    def _halted(self, tier: Tier, manifest: Manifest, offset: int) -> bool:
        """Whether `offset` is in a recorded hole that the policy says not to skip."""
        gap = manifest.gap_at(offset)
        if gap is None:
            return False
        if tier.on_gap == "halt" and gap.accepted_ms < 0:
            return True
        HOLES_MET.inc()
        self._crossings.say(
            str(tier.pid),
            f"a consumer was led across the hole {gap.start} to {gap.end - 1} of {tier.pid} ({gap.cause})",
            logging.WARNING,
        )
        return False

    async def _wait_at_hole(self, tier: Tier, manifest: Manifest | None, offset: int) -> ColdAnswer:
        """Neither tier has the offset (yet), or may skip it: hold the client back; with on_gap halt, tell it so."""
        HOLES_MET.inc()
        self._scout.used(tier)  # so that an operator's word, or what comes behind the hole, is heard of soon
        gap = manifest.gap_at(offset) if manifest is not None else None
        halt = tier.on_gap == "halt" and (gap is None or gap.accepted_ms < 0)
        meanwhile = (
            "it gets a retriable error (on_gap: halt) until somebody has said `tierproxy archive accept-gap`"
            if halt
            else "it waits until the archive goes on behind the hole"
        )
        self._trouble.began(
            f"hole {tier.pid}",
            f"a consumer of {tier.pid} asks for offset {offset}, which the broker no longer has and the archive "
            f"doesn't have; {meanwhile}",
        )
        if halt:
            raise BrokenArchive
        return await self._never()

    @staticmethod
    async def _never() -> ColdAnswer:
        """Wait until the client's max_wait is over: an answer at once would be asked for again at once."""
        await asyncio.Event().wait()
        raise AssertionError("nobody sets that event")
