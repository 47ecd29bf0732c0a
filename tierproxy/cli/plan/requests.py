"""How many requests archiving takes: counted by what the archiver does, step after step. Pure.

Readers' requests are not in it, nor what retries and restarts cost.
"""

from math import ceil

from tierproxy.archive.library import READ_BACK_BYTES
from tierproxy.archive.paged_manifests import PAGING
from tierproxy.archive.upkeep import LEAST_PARTS
from tierproxy.config import Config
from tierproxy.costs import MONTH_MS, Requests

DAYS = MONTH_MS / 86_400_000

FIRST = Requests(puts=1, gets=1, lists=1)
"""Of a partition of which nothing is archived: its folder is looked into, a bare manifest written and read back."""


def segment_requests(stored_bytes: float, trimmed: bool) -> Requests:
    """Of one segment: it is stored, measured and read back, then named by a manifest that is read back as well. With
    `trimmed` the manifest is read once more before the broker deletes."""
    page = 1 / PAGING.root_keep  # every so many segments older entries go into a page
    reads = 1 + max(1, ceil(stored_bytes / READ_BACK_BYTES)) + 1
    return Requests(puts=2 + page, gets=reads + trimmed + page, read_bytes=stored_bytes)


def merging(count: float, plain_bytes: float, full_bytes: int, ratio: float) -> Requests:
    """Of joining so many segments of that size, step by step, until they are no longer worth it."""
    total = Requests()
    while plain_bytes > 0 and 2 * plain_bytes <= full_bytes:
        parts = min(LEAST_PARTS, int(full_bytes // plain_bytes))
        merges, merged = count / parts, plain_bytes * parts
        if merges < 1:
            break
        part_reads = parts * (1 + max(1, ceil(plain_bytes / ratio / READ_BACK_BYTES)))
        read_back = 1 + max(1, ceil(merged / ratio / READ_BACK_BYTES)) + 1
        once = Requests(puts=2, gets=part_reads + read_back, read_bytes=2 * merged / ratio)
        total += once.times(merges)
        count, plain_bytes = merges, merged
    return total


def upkeep_month(config: Config, garbage: bool) -> Requests:
    """Of looking after one partition for a month: its manifest again and again, its folder once a day. With `garbage`
    there is something to remove each day."""
    looks = Requests(gets=MONTH_MS / config.archiver.upkeep_interval_ms)
    daily = Requests(lists=1, gets=2) + (Requests(puts=3, gets=1) if garbage else Requests())
    return looks + daily.times(DAYS)
