"""Carry out users' deletions in the archive: one conditional write of the manifest for each partition.

The archiver may be writing the same manifest. Whoever loses reads it again and goes on: the archiver copies on from
where the manifest now ends, a deletion is applied to what the archiver has added.
"""

import asyncio
import logging
from collections.abc import Mapping

from protocol.codec import encode_delete_records_response
from protocol.errors import ErrorCode
from protocol.wire import Buffer
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.store import Conflict
from tierproxy.catalog import Catalog, Tier
from tierproxy.cold.facts import FactFinder
from tierproxy.errors import TierproxyError
from tierproxy.routing.deletes import Deletion
from tierproxy.routing.holds import DeletesHold

log = logging.getLogger("tierproxy.cold")

DEADLINE = 20.0
"""Seconds for all of an answer's manifests; clients wait 30 by default (request.timeout.ms)."""


class Deletions:
    """Finishes held DeleteRecords answers."""

    def __init__(self, catalog: Catalog, facts: FactFinder, libraries: Mapping[str, Library]) -> None:
        self._catalog = catalog
        self._facts = facts
        self._libraries = libraries

    async def finish(self, hold: DeletesHold) -> list[Buffer]:
        """The answer. A partition whose archive can't be written in time gets a retriable error: clients ask again."""
        await asyncio.gather(*(self._settle(deletion) for deletion in hold.deletions))
        return [encode_delete_records_response(hold.response, hold.version, hold.correlation_id)]

    async def _settle(self, deletion: Deletion) -> None:
        answer = deletion.answer
        name = f"{answer.topic}-{answer.partition}"
        try:
            async with asyncio.timeout(DEADLINE):
                tier = deletion.tier
                if tier is None or not await self._facts.same_topic_now(tier):  # DeleteRecords goes by name
                    tier = await self._find(deletion)
                if tier is not None:
                    await self._delete(tier, deletion)
        except (TierproxyError, TimeoutError) as error:
            why = str(error) or f"no answer within {DEADLINE:g} s"
            log.warning("%s: deleted on the broker but not in the archive, the client is told to retry: %s", name, why)
            answer.error, answer.low_watermark = ErrorCode.KAFKA_STORAGE_ERROR, -1

    async def _find(self, deletion: Deletion) -> Tier | None:
        await self._facts.topics_now()
        return self._catalog.find(deletion.answer.topic, deletion.answer.partition)

    async def _delete(self, tier: Tier, deletion: Deletion) -> None:
        manifest = await self._raise_start(tier, deletion.start, deletion.answer.low_watermark)
        tier.manifest, tier.manifest_known = manifest, True
        deletion.answer.low_watermark = min(deletion.answer.low_watermark, manifest.start_offset)

    async def _raise_start(self, tier: Tier, start: int, low_watermark: int) -> Manifest:
        library = self._libraries[tier.archive]
        while True:
            found = await library.load(tier.pid)
            if found is None:
                # The archiver may hold an open segment that begins lower: it must not commit that any more.
                first = max(start, low_watermark)
                raised = Manifest.empty(library.cluster, await self._facts.owner(tier), tier.pid, first)
            else:
                raised = found.manifest.with_start(start)
                if raised is found.manifest:
                    return raised
            try:
                saved = await library.save(tier.pid, raised, found.version if found is not None else None)
            except Conflict:
                continue
            log.info("%s: a user deleted records below offset %d; the archive starts there now", tier.pid, start)
            return saved.manifest
