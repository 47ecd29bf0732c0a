"""Log lines that can't become a flood: of conditions that last, and of what strangers can make happen.

A condition that lasts (a broker that can't be reached) is said once when it begins and once when it ends.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from prometheus_client import Counter

from tierproxy.recent import RECENT
from tierproxy.telemetry.kinds import gauge

TROUBLES = Counter("tierproxy_troubles", "Lasting conditions that began, by part; each has a log line", ["part"])
TROUBLES_OPEN = gauge("tierproxy_troubles_open", "Lasting conditions that have not ended, by part", ["part"])


CHANGES = 6
"""Lines about one condition that come at once; what changes more often than that is said once a minute."""
EVERY = 60.0
REMEMBERED = 1_000
"""Conditions that have ended and of which it is known how often they were said."""


@dataclass(slots=True)
class _Said:
    """How often a condition may be said at once, as reckoned `at` that time, and how many changes were not."""

    credit: float
    at: float
    unsaid: int = 0


class OncePerChange:
    """Says that a condition began, and that it ended, once each, however often it is met in between.

    Conditions are told apart by a key of the caller's (an address, a topic). The log line's words come from
    the caller; the metrics count by part, which is the last word of the logger's name.

    One that comes and goes all the time, as when two readers meet the two halves of what is broken, is said a few times
    and then once a minute. What holds in the end is said in any case, when it is next met.
    """

    def __init__(self, log: logging.Logger, now: Callable[[], float] = monotonic) -> None:
        """`now` gives seconds that never go back."""
        self._log = log
        self._now = now
        self._part = log.name.rpartition(".")[2]
        self._open: set[str] = set()
        self._said: dict[str, _Said] = {}

    def began(self, key: str, message: str, level: int = logging.WARNING) -> bool:
        """Note that `key` holds; whether it did not hold before."""
        if key in self._open:
            if not self._is_due(key):
                self._log.debug("%s (still)", message)
                return False
            self._say(key, message, level, changes=0)
            return False
        self._open.add(key)
        TROUBLES.labels(self._part).inc()
        TROUBLES_OPEN.labels(self._part).inc()
        RECENT.began((self, key), self._part, level, message)
        self._say(key, message, level, changes=1)
        return True

    def ended(self, key: str, message: str) -> bool:
        """Note that `key` does not hold; whether it did before."""
        if key not in self._open:
            if self._is_due(key):
                self._say(key, message, logging.INFO, changes=0)
            return False
        self._open.discard(key)
        TROUBLES_OPEN.labels(self._part).dec()
        RECENT.ended((self, key))
        self._say(key, message, logging.INFO, changes=1)
        return True

    def forget(self, prefix: str) -> None:
        """End, without a word, the conditions whose keys begin so: what they were about is gone."""
        for key in [key for key in self._open if key.startswith(prefix)]:
            self._open.discard(key)
            self._said.pop(key, None)
            TROUBLES_OPEN.labels(self._part).dec()
            RECENT.ended((self, key), told=False)

    def _is_due(self, key: str) -> bool:
        """Whether there were changes that nobody was told of."""
        return key in self._said and self._said[key].unsaid > 0

    def _say(self, key: str, message: str, level: int, changes: int) -> None:
        now = self._now()
        said = self._said.get(key)
        if said is None:
            self._tidy(now)
            said = self._said[key] = _Said(CHANGES, now)
        said.credit = min(CHANGES, said.credit + (now - said.at) / EVERY)
        said.at = now
        said.unsaid += changes
        if said.credit < 1:
            self._log.debug("%s", message)
            return
        said.credit -= 1
        others, said.unsaid = said.unsaid - 1, 0
        more = f" (it has come and gone: {others} changes since the last line)" if others > 0 else ""
        self._log.log(level, "%s%s", message, more)

    def _tidy(self, now: float) -> None:
        """Forget how often was said what has ended."""
        if len(self._said) - len(self._open) > REMEMBERED:
            self._said = {key: said for key, said in self._said.items() if key in self._open or said.unsaid}


class Seldom:
    """Says what strangers can make happen as often as they like: each kind at most once in `every` seconds.

    The next line of a kind tells how many there were in between. Kinds are the caller's own words, so that there are
    few; beyond `KINDS`, in case they are not, the rest counts as one. `now` gives seconds that never go back.
    """

    KINDS = 50

    def __init__(self, log: logging.Logger, now: Callable[[], float], every: float = 60.0) -> None:
        self._log = log
        self._now = now
        self._every = every
        self._said: dict[str, tuple[float, int]] = {}  # kind → when last, and how many since

    def say(self, kind: str, message: str, level: int = logging.INFO) -> None:
        now = self._now()
        if kind not in self._said and len(self._said) >= self.KINDS:
            kind = "others"
        at, unsaid = self._said.get(kind, (now - self._every, 0))
        if now - at < self._every:
            self._said[kind] = (at, unsaid + 1)
            self._log.debug("%s", message)
            return
        self._said[kind] = (now, 0)
        self._log.log(level, "%s%s", message, f" (and {unsaid} more like it since the last line)" if unsaid else "")
