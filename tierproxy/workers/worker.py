"""A worker: one role of an `App`, at the supervisor's leash.

A thread that waits for a disk can't be ended, and Python waits for it at the process's end. So whoever is about to end
sets an alarm, by which the system ends the process: else a supervisor that lives would never start another one in this
seat, and one that was killed would leave us behind.
"""

import asyncio
import logging
import math
import signal
import socket
import sys
from pathlib import Path

import uvloop

from tierproxy.admin import Health, PartHealth
from tierproxy.app import App, Role, make_room
from tierproxy.clock import SystemClock
from tierproxy.cold.shared_reads import Neighbours
from tierproxy.config import Config
from tierproxy.errors import TierproxyError
from tierproxy.listener import Listener, PortTaken
from tierproxy.tasks import Tasks
from tierproxy.telemetry import setup_logging
from tierproxy.workers.channel import Channel, Message, unpacked
from tierproxy.workers.roster import ARCHIVER, KILL_AFTER, gateway_seat
from tierproxy.workers.shares import share_of

log = logging.getLogger("tierproxy.workers")

COUNT_EVERY = 0.1
"""Seconds between two looks at how many connections there are; said when it has changed."""


def run(seat: str, channel: socket.socket, place: Path, workers: int, config: Config) -> None:
    """Work until SIGTERM, or until the supervisor is gone. Ends the process with status 1 on a known fault."""
    setup_logging(config.log.level, config.log.format, process=seat)
    role: Role = "archiver" if seat == ARCHIVER else "gateway"
    share = share_of(config, workers)
    make_room(share, (role,))
    seats = [gateway_seat(number) for number in range(workers)]
    neighbours = Neighbours([place / f"{each}.reads" for each in seats], seats.index(seat)) if seat in seats else None
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor reads the file
    if not uvloop.run(Worker(share, role, channel, workers, neighbours, seat).run()):
        sys.exit(1)


class Worker:
    """It is the gate of its listener: the supervisor opens the ports."""

    def __init__(
        self,
        config: Config,
        role: Role,
        channel: socket.socket,
        workers: int,
        neighbours: Neighbours | None = None,
        seat: str = "",
    ) -> None:
        self._workers = workers
        self._seat = seat
        self._neighbours = neighbours
        self._config = config
        self._role: Role = role
        self._end = channel
        self._listener: Listener | None = None
        self._opening: dict[int, asyncio.Future[str | None]] = {}
        self._taken = 0  # connections since that was last said

    async def run(self) -> bool:
        """False: it can't work, and has said why."""
        self._channel = Channel(self._end, self._heard, self._alone)
        health = Health(self._say_health)
        self._app = App(self._config, SystemClock(), (self._role,), health, self, self._neighbours)
        tasks = Tasks()
        tasks.spawn(self._count(), "count of connections")
        try:
            await self._app.run()
        except TierproxyError as error:
            self._channel.say({"fault": str(error)})
            return False
        finally:
            signal.alarm(math.ceil(KILL_AFTER))
            await tasks.close()
            self._channel.close()
        return True

    # -- the gate ---------------------------------------------------------------------------------------------------

    def connect(self, listener: Listener) -> None:
        """See Gate."""
        self._listener = listener

    async def open(self, port: int) -> None:
        """See Gate."""
        opened: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._opening[port] = opened
        self._channel.say({"open": port})
        error = await opened
        if error is not None:
            raise PortTaken(
                f"port {port} on {self._config.listen.host} can't be opened: {error}; is another process using it?"
            )

    # -- the channel ------------------------------------------------------------------------------------------------

    def _say_health(self, part: str, health: PartHealth) -> None:
        self._channel.say({"part": part, "ok": health.ok, "reason": health.reason})

    def _alone(self) -> None:
        log.warning("stopping: the supervisor is gone")
        for opened in self._opening.values():
            if not opened.done():
                opened.set_result("the supervisor is gone")
        signal.alarm(math.ceil(self._config.listen.drain_ms / 1000 + KILL_AFTER))
        self._app.stop()

    def _heard(self, message: Message, attached: socket.socket | None) -> None:
        match message:
            case {"at": int(port)}:
                self._taken += 1
                if attached is None:
                    log.error("a client is lost: its connection did not come through (out of open files?)")
                elif self._listener is not None:
                    self._listener.take(port, attached)
            case {"tell": asked}:
                self._channel.say({"told": self._app.told(self._seat).to_json(), "asked": asked})
            case {"config": str(text)}:
                self._app.change(share_of(unpacked(text), self._workers))
            case {"opened": int(port), "error": error}:
                opened = self._opening.pop(port, None)
                if opened is not None and not opened.done():
                    opened.set_result(error)

    async def _count(self) -> None:
        said = 0
        while True:
            await asyncio.sleep(COUNT_EVERY)
            load = self._listener.load if self._listener is not None else 0
            if load != said or self._taken:
                self._channel.say({"load": load, "taken": self._taken})
                said, self._taken = load, 0
