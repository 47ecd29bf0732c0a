"""Read ahead of sequential readers: stored chunks as far as their window goes, and the next few decompressed.

A request reads up to a border that lies every READ_JOIN_BYTES in a segment, so that readers who began at different
places ask for the same ranges; a segment that is smaller than two of those is read by one, where there is room. Where
nothing is near yet, the first requests are small and each four times as large as all before it: the reader waits for a
megabyte and not for sixteen. They go out together.
"""

import asyncio

from tierproxy.cold.chunks import READ_JOIN_BYTES, Chunks, Located
from tierproxy.cold.guess import GROWTH
from tierproxy.cold.places import Place, Places, Source
from tierproxy.cold.streams import Stream, Streams
from tierproxy.tasks import Tasks

READ_WHOLE_BYTES = 31 << 20
"""Stored bytes up to which a segment is read by one request, where there is room: a full one of JSON, mostly.
From 32 MiB on glibc would give the memory back each time (allocator.py)."""
FIRST_READ = 1 << 20
"""Stored bytes of the first request for a reader ahead of whom nothing is read."""
MOST_UNPACKED = 8 << 20
"""Plain bytes that are decompressed ahead of one reader, at most."""


class ReadAhead:
    """Keeps what readers will ask for next coming."""

    def __init__(self, chunks: Chunks, places: Places, streams: Streams, tasks: Tasks) -> None:
        self._chunks = chunks
        self._places = places
        self._streams = streams
        self._tasks = tasks

    def onward(self, source: Source, segment: Located, offset: int) -> int:
        """Up to which byte of `segment` to read at once for who asks for `offset`, of whom nothing is known yet.

        Who begins at the beginning will hardly want its first records alone, and would wait for one more trip. Several
        such readers, or partitions of one, may begin in the same moment: so what is on its way counts.
        """
        if offset > source.manifest.start_offset:
            return 0
        room = self._chunks.stored_capacity // 2 - self._chunks.coming
        wanted = min(READ_JOIN_BYTES, segment.entry.stored_size)
        return wanted if min(room, self._share() // 2) >= wanted else 0

    def served(self, source: Source, stream: Stream, last: Place, offset: int, plain: int) -> None:
        """`stream` was given `plain` bytes, the last of them from `last`, and will ask for `offset` next."""
        if stream.answers < 2 or offset >= source.manifest.end_offset:
            return
        self._unpack(source, last, offset, plain)
        if stream.filling or self._chunks.crowded:
            return
        share = self._share()
        if last.chunk.stored_size > 2 * share:
            return  # as in _unpack
        whole = stream.pace >= 0 and last.segment.entry.stored_size <= READ_WHOLE_BYTES  # most are of one size
        most = READ_WHOLE_BYTES + READ_WHOLE_BYTES // GROWTH if whole else READ_JOIN_BYTES
        window = stream.window(self._chunks.read_seconds(READ_JOIN_BYTES), most, share)
        if stream.ahead < window // 2 or stream.ahead + READ_JOIN_BYTES <= window:
            stream.filling = True
            self._tasks.spawn(
                self._fill(source, stream, offset, window, share), f"read ahead of {source.pid}", awaited=True
            )

    def _share(self) -> int:
        """Stored bytes that may be ahead of one reader."""
        return self._chunks.stored_capacity * 2 // 3 // self._streams.active(asyncio.get_running_loop().time())

    def _unpack(self, source: Source, last: Place, offset: int, plain: int) -> None:
        """Decompress about as much as the reader took, and half as much again; of that what isn't done yet."""
        share = self._chunks.plain_capacity // 2 // self._streams.active(asyncio.get_running_loop().time())
        left = min(plain + plain // 2, share, MOST_UNPACKED)
        place: Place | None = last
        if offset > last.chunk.last_offset:
            place = self._places.cached_after(source, last)
        if place is not None and place.chunk.plain_size > 2 * share:
            return  # with a chunk for each reader, all would be thrown out before they are asked for
        while place is not None:
            stop = place.number
            while left > 0 and stop < len(place.index.chunks) and self._chunks.is_near(place.segment.key, stop):
                left -= place.index.chunks[stop].plain_size
                stop += 1
            if stop > place.number:
                self._chunks.unpack(place.segment, place.index, place.number, stop)
            if left <= 0 or stop < len(place.index.chunks):
                return
            place = self._places.cached_after(source, Place(place.segment, place.index, stop - 1))

    async def _fill(self, source: Source, stream: Stream, offset: int, window: int, share: int) -> None:
        """Read on from the stream's frontier until its window is full. Errors are the next reader's."""
        done = False
        try:
            if stream.frontier < offset:
                stream.frontier, stream.ahead = offset, 0
            while stream.frontier < source.manifest.end_offset and stream.ahead < window:
                segment = await self._places.segment(source, stream.frontier)
                if self._can_be_whole(stream, segment, window, share):
                    if segment.entry.stored_size > window - stream.ahead:
                        break  # there will be room
                    self._read_whole(stream, segment)
                    continue
                hurry = stream.ahead < FIRST_READ
                if not self._read_on(stream, await self._places.within(segment, stream.frontier, hurry), window):
                    break
            done = True
        finally:
            stream.filling = False
            if not done:
                stream.missed()

    def _can_be_whole(self, stream: Stream, segment: Located, window: int, share: int) -> bool:
        """Whether a segment is to be read by one request, now or once the window has room for it.

        The reader has enough to do meanwhile then, and nobody waits for the index. Where it hasn't, and there is memory
        for more, several requests bring it sooner.
        """
        size, ahead = segment.entry.stored_size, stream.ahead
        if stream.frontier > segment.entry.base_offset or self._chunks.expects_index(segment.key):
            return False
        if size > READ_JOIN_BYTES and window < share and stream.lasts() < self._chunks.read_seconds(size):
            return False
        return size <= min(READ_WHOLE_BYTES, max(FIRST_READ, GROWTH * ahead), window - size // GROWTH)

    def _read_whole(self, stream: Stream, segment: Located) -> None:
        self._tasks.spawn(self._chunks.index(segment, whole=True), f"reading {segment.key}", awaited=True)
        stream.ahead += segment.entry.stored_size
        stream.frontier = segment.entry.last_offset + 1

    def _read_on(self, stream: Stream, place: Place, window: int) -> bool:
        """Read in this segment what the window has room for; whether there may be room for more behind it."""
        chunks, number, key = place.index.chunks, place.number, place.segment.key
        while number < len(chunks) and stream.ahead < window:
            if self._chunks.is_near(key, number):
                stop = number + 1
            else:
                stop = self._request(stream, place, number, window)
                if stop == number:
                    break
                self._chunks.read(place.segment, place.index, number, stop)
            stream.ahead += sum(chunk.stored_size for chunk in chunks[number:stop])
            number = stop
        whole = number == len(chunks)
        stream.frontier = place.segment.entry.last_offset + 1 if whole else chunks[number].base_offset
        return whole

    def _request(self, stream: Stream, place: Place, number: int, window: int) -> int:
        """Where the request ends that begins with chunk `number`; `number` where it is better to wait.

        Topping the window up with every answer would cost a request for each chunk: while half of it is there, only a
        request up to the border is worth it.
        """
        chunks, key = place.index.chunks, place.segment.key
        room = max(window - stream.ahead, window // 2)
        most = min(room, max(FIRST_READ, GROWTH * stream.ahead))
        start = chunks[number].position
        border = (start // READ_JOIN_BYTES + 1) * READ_JOIN_BYTES
        stop, size = number, 0
        while (
            stop < len(chunks)
            and chunks[stop].position < border
            and (stop == number or size + chunks[stop].stored_size <= most)
            and not self._chunks.is_near(key, stop)
        ):
            size += chunks[stop].stored_size
            stop += 1
        at_border = stop == len(chunks) or chunks[stop].position >= border or self._chunks.is_near(key, stop)
        return stop if at_border or stream.ahead < window // 2 else number
