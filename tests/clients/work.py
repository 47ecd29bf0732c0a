"""Work that goes on by itself, again and again, while a test makes trouble."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

from tests.kit.processes import wait_for

AT_MOST = 300.0
"""Seconds that work may take to end: more than any client here waits for anything."""

PAUSE = 1.0
"""Seconds between two times: there is only so much processor."""


@dataclass
class Work:
    """`act` in a loop. It may fail while there is trouble."""

    name: str
    act: Callable[[], object]
    begun: int = 0
    """How many times."""
    succeeded: int = 0
    """The last time that didn't fail, counted as `begun`."""
    faults: list[str] = field(default_factory=list)

    def run(self, over: Event) -> None:
        while not over.is_set():
            self.begun += 1
            try:
                self.act()
            except Exception as fault:  # noqa: BLE001 - each library has errors of its own, and all are kept
                self.faults.append(repr(fault))
            else:
                self.succeeded = self.begun
            over.wait(PAUSE)


class Crew:
    """All that is being done."""

    def __init__(self, works: list[Work]) -> None:
        self.works = works

    def wait_all_work(self, seconds: float = 180) -> None:
        """Waits until each has succeeded in something that it began after now."""
        before = {work.name: work.begun for work in self.works}

        def all_work() -> bool:
            return all(work.succeeded > before[work.name] for work in self.works)

        try:
            wait_for(all_work, seconds=seconds, what="work", pause=0.1)
        except TimeoutError:
            stuck = {work.name: work.faults[-3:] for work in self.works if work.succeeded <= before[work.name]}
            raise AssertionError(f"after {seconds:g} s some still don't work: {stuck}") from None


@contextmanager
def crew(works: list[Work]) -> Iterator[Crew]:
    """Starts each in a thread; at the end each finishes what it is doing."""
    over = Event()
    threads = [Thread(target=work.run, args=(over,), name=work.name, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield Crew(works)
    finally:
        over.set()
        for thread in threads:
            thread.join(AT_MOST)
    assert not any(thread.is_alive() for thread in threads), f"{threads} did not end within {AT_MOST:g} s"
