"""Memory for plain chunks that is used again.

A megabyte that is given back to the system and taken again costs a page fault for each of its 256 pages: with most
allocators that is 0.6 s for a GB, nearly as much as decompressing it. Who holds a slab need not say when it is done
with it: views of it are in caches, in answers and in sockets' buffers, and the last of them to go sets it free, because
a slab with no reference but our own is looked for. How many references are counted is the interpreter's affair, and a
slab taken too early would change records, so it must have no views either: it tells by letting itself be resized.
"""

from sys import getrefcount

from tierproxy.allocator import unfilled

SLAB = 1 << 20
"""Bytes of a slab: those of a full chunk."""
LEAST = SLAB // 2
"""Smaller chunks get memory of their own size: a few bytes would keep a whole slab."""
LOOKS = 64
"""So many of the first slabs are looked at for a free one, and as many others, in turns: with a large cache in use,
looking at all would take longer than unpacking."""


class Slabs:
    """At most `capacity` bytes of them are kept for the next who needs one. Not for threads: for the event loop."""

    def __init__(self, capacity: int) -> None:
        self._most = max(1, capacity // SLAB)
        self._slabs: list[bytearray] = []
        self._turn = LOOKS

    def take(self, size: int) -> bytearray | None:
        """A slab of at least `size` bytes, with anything in it: its holder's for as long as there is a view of it.

        None: a new one is needed. To be made where it is filled (`new_slab`), and then given to `keep`.
        """
        if not LEAST <= size <= SLAB:
            return None
        # From the first on: the same few are used again and again, and are in the processor's cache.
        return self._free(0, LOOKS) or self._free_in_turn()

    def _free_in_turn(self) -> bytearray | None:
        if self._turn >= len(self._slabs):
            self._turn = LOOKS
        start, self._turn = self._turn, self._turn + LOOKS
        return self._free(start, self._turn)

    def _free(self, start: int, stop: int) -> bytearray | None:
        slabs = self._slabs
        for at in range(start, min(stop, len(slabs))):
            slab: bytearray = slabs[at]
            if getrefcount(slab) == _UNUSED and not _has_views(slab):
                return slab
        return None

    def keep(self, slab: bytearray) -> None:
        """A new one, in use now; not kept if it is no slab."""
        if len(slab) == SLAB and len(self._slabs) < self._most:
            self._slabs.append(slab)


def new_slab(size: int) -> bytearray:
    """For `size` bytes; other memory than a slab, if so many get none."""
    return unfilled(SLAB if LEAST <= size <= SLAB else size)


def _has_views(slab: bytearray) -> bool:
    """Python lets no bytearray be resized then. By one byte and back, nothing is moved."""
    try:
        slab.append(slab.pop())
    except BufferError:
        return True
    return False


def _unused() -> int:
    """What an interpreter counts, where `_free` does, for a slab that nobody else has."""
    slabs = [bytearray(1)]
    for at in range(1):
        slab = slabs[at]
        count = getrefcount(slab)
    return count


_UNUSED = _unused()
