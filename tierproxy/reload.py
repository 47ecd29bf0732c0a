"""The configuration file while we run: read again when it changes or on SIGHUP, and put in force whole or not at all.

It is looked at each second, by what its name leads to: an editor renames a new file over it, another writes into it,
Kubernetes replaces a symbolic link two steps above, and looking sees all of them on every kind of mount. What has just
changed is read when it has stood still from one look to the next, so that no half-written file is taken for whole.

A file with a fault in it, or with a change that needs a restart, changes nothing. Were the rest of it put in force,
what runs would be a configuration that no file has.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from tierproxy import telemetry
from tierproxy.clock import Clock
from tierproxy.config import Config, load_config, warnings
from tierproxy.config.changes import changes
from tierproxy.errors import ConfigError, Fault

log = logging.getLogger("tierproxy.config")

LOOK_EVERY = 1.0
"""Seconds."""
LINES = 100
"""Of one reload, at most, so that a file made by a program does not fill the log."""

_Mark = tuple[int, int, int, int] | None


class ConfigFile:
    """Follows `path`. `put` is given each configuration that is to be in force after `config`, and must not wait."""

    def __init__(self, path: Path, config: Config, put: Callable[[Config], None], clock: Clock) -> None:
        self._path = path
        self._config = config
        self._put = put
        self._clock = clock
        self._asked = asyncio.Event()
        self._read = self._seen = _mark(path)
        self._count("applied")
        self._in_force_again()

    def ask(self) -> None:
        """Have it read soon, whether it has changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Follow it for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._asked.wait()
            await self.look()

    async def look(self) -> None:
        """Look at it once, and read it if it is time to."""
        before, mark = self._seen, _mark(self._path)
        self._seen = mark
        if not self._asked.is_set() and (mark == self._read or mark != before):
            return
        try:
            found: Config | ConfigError = await asyncio.to_thread(load_config, self._path)
        except ConfigError as error:
            found = error
        except Exception as error:  # a mapping that is nested too deeply, say; what runs goes on
            found = ConfigError(str(self._path), [Fault("", f"can't be read: {type(error).__name__}")])
            log.debug("reading %s", self._path, exc_info=True)
        if _mark(self._path) != mark:  # written while we read: what we have may be half of it
            return
        self._asked.clear()
        self._read = mark
        if isinstance(found, ConfigError):
            self._refused("faults", [str(fault) for fault in found.faults], "mend it")
        else:
            self._take(found)

    def _take(self, config: Config) -> None:
        found = changes(self._config, config)
        restart = [change for change in found if change.needs_restart]
        if restart:
            self._refused("restart", [f"{change} needs a restart" for change in restart], "restart tierproxy")
            return
        known = set(warnings(self._config))
        self._config = config
        self._in_force_again()
        self._count("applied" if found else "unchanged")
        if not found:
            log.info("%s was read again: nothing in it has changed", self._path)
            return
        log.info("%s was read again and is in force now: %s", self._path, _number(len(found), "change"))
        _say(logging.INFO, [str(change) for change in found])
        _say(logging.WARNING, [str(fault) for fault in warnings(config) if fault not in known])
        self._put(config)

    def _refused(self, why: str, reasons: list[str], what_to_do: str) -> None:
        self._in_force_again()
        telemetry.CONFIG_REFUSED.labels(why).set(1)
        self._count("refused")
        log.error(
            "%s was read again and is not put in force, for %s: what was in force stays. To have it in force, %s",
            self._path,
            _number(len(reasons), "reason"),
            what_to_do,
        )
        _say(logging.ERROR, reasons)

    def _count(self, result: str) -> None:
        telemetry.CONFIG_READS.labels(result).inc()
        telemetry.CONFIG_READ_AT.labels(result).set(self._clock.now_ms() / 1000)

    def _in_force_again(self) -> None:
        for why in ("faults", "restart"):
            telemetry.CONFIG_REFUSED.labels(why).set(0)


def _say(level: int, lines: list[str]) -> None:
    for line in lines[:LINES]:
        log.log(level, "configuration: %s", line)
    if len(lines) > LINES:
        log.log(level, "configuration: and %d more", len(lines) - LINES)


def _mark(path: Path) -> _Mark:
    """What tells one content from another without reading it; None: there is no file."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size


def _number(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
