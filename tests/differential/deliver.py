"""Which records a client makes of a fetched blob: the rules of Java's consumer (CompletedFetch), written down again."""

from collections.abc import Iterable, Sequence

from tests.differential.golden import Batch

READ_UNCOMMITTED, READ_COMMITTED = 0, 1


def delivered(
    batches: Sequence[Batch], aborted: Iterable[tuple[int, int]] | None, offset: int, isolation: int
) -> list[int]:
    """Offsets of the records that are handed to the application, for a fetch at `offset`."""
    waiting = sorted(aborted or (), key=lambda entry: entry[1], reverse=True)
    aborting: set[int] = set()
    found: list[int] = []
    for batch in batches:
        header = batch.header
        if isolation == READ_COMMITTED and header.producer_id >= 0:
            while waiting and waiting[-1][1] <= header.last_offset:
                aborting.add(waiting.pop()[0])
            if batch.aborts:
                aborting.discard(header.producer_id)
            elif header.is_transactional and header.producer_id in aborting:
                continue
        if not header.is_control:
            found.extend(at for at in batch.times if at >= offset)
    return found
