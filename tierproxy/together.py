"""Some tasks of one connection that are better done at the same moment."""

import asyncio
from contextlib import suppress


class Together:
    """Whoever is done waits for those who have begun and aren't, but not for longer than `patience` seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._unfinished = 0
        self._all_done = asyncio.Event()

    def begin(self) -> None:
        """To be followed by done(), or by gone() if nothing comes of it."""
        self._unfinished += 1

    def gone(self) -> None:
        """One that had begun is not waited for any more."""
        self._unfinished -= 1
        if not self._unfinished:
            self._all_done.set()
            self._all_done = asyncio.Event()

    async def done(self) -> None:
        """One that had begun is; returns when it may go on."""
        all_done = self._all_done
        self.gone()
        if self._unfinished:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await all_done.wait()
