"""Finish held ListOffsets answers: what the broker said, merged with what the archive has."""

import asyncio
import logging
from collections.abc import Mapping

from protocol.codec import encode_list_offsets_response
from protocol.errors import ErrorCode, MalformedError
from protocol.wire import Buffer
from tierproxy.archive.library import Library
from tierproxy.catalog import UNKNOWN, Catalog
from tierproxy.cold.facts import FactFinder
from tierproxy.cold.reader import ColdReader
from tierproxy.errors import TierproxyError
from tierproxy.routing import offsets as routing
from tierproxy.routing.holds import OffsetsHold
from tierproxy.routing.offsets import EARLIEST, MAX_TIMESTAMP, FoundRecord, Question
from tierproxy.telemetry import OncePerChange

log = logging.getLogger("tierproxy.cold")

OFFSETS_DEADLINE = 15.0
"""Seconds for an answer: half of what clients wait by default (request.timeout.ms)."""


class OffsetAnswers:
    """Finishes ListOffsets answers."""

    def __init__(
        self, catalog: Catalog, scout: FactFinder, reader: ColdReader, libraries: Mapping[str, Library]
    ) -> None:
        self._catalog = catalog
        self._scout = scout
        self._reader = reader
        self._libraries = libraries
        self._trouble = OncePerChange(log)

    async def finish(self, hold: OffsetsHold) -> list[Buffer]:
        """The merged answer; a partition whose archive can't be asked in time gets a retriable error."""
        await asyncio.gather(*(self._settle(question) for question in hold.questions))
        return [encode_list_offsets_response(hold.response, hold.version, hold.correlation_id)]

    async def _settle(self, question: Question) -> None:
        archive = question.tier.archive if question.tier is not None else "of an unknown topic"
        try:
            async with asyncio.timeout(OFFSETS_DEADLINE):
                await self._merge(question)
        except (TierproxyError, MalformedError, TimeoutError) as error:
            why = str(error) or f"no answer within {OFFSETS_DEADLINE:g} s"
            said = f"archive {archive} can't be asked for offsets: {why}; clients are told to try again"
            self._trouble.began(archive, said)
            routing.refuse(question.answer, ErrorCode.KAFKA_STORAGE_ERROR)
        else:
            self._trouble.ended(archive, f"archive {archive} can be asked for offsets again")

    async def _merge(self, question: Question) -> None:
        answer, tier = question.answer, question.tier
        # ListOffsets goes by name, and the broker has answered already: with a manifest younger than its answer,
        # whatever it had trimmed by then is in the archive.
        if tier is None:
            await self._scout.topics_now()
            tier = self._catalog.find(answer.topic, answer.partition)
        elif not await self._scout.same_topic_now(tier):
            tier = self._catalog.find(answer.topic, answer.partition)
        if tier is None:
            if self._catalog.might_be_archived(answer.topic):
                raise TierproxyError(
                    f"tierproxy's own account is not shown the topic {answer.topic}; may it DESCRIBE it?"
                )
            return
        if tier is not question.tier and question.timestamp == EARLIEST and answer.offset >= 0:
            self._catalog.asked_for_start(tier, answer.offset)
        if tier.broker_start == UNKNOWN:  # without it nobody can tell a manifest that is lost from none
            await self._scout.broker_now(tier)
        manifest = await self._scout.manifest_now(tier)
        if manifest is None or manifest.last_archived < 0:
            return
        library = self._libraries[tier.archive].home(tier.pid)
        if question.timestamp == EARLIEST:
            start = FoundRecord(manifest.start_offset, -1, manifest.epoch_at(manifest.start_offset))
            routing.merge_earliest(answer, start)
        elif question.timestamp == MAX_TIMESTAMP:
            found = await self._reader.latest_time(library, tier.pid, manifest)
            undecided = UNKNOWN
            if routing.may_be_undecided(question):
                undecided = await self._scout.highest_time(tier)
            routing.merge_max(answer, found, manifest.start_offset, undecided)
        else:
            found = await self._reader.first_at(library, tier.pid, manifest, question.timestamp)
            routing.merge_time(answer, found)
