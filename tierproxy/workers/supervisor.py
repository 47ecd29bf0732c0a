"""The parent of the workers: starts them, hands them clients, says how they are, and ends them."""

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

import tierproxy
from tierproxy import app
from tierproxy.admin import Admin, PartHealth
from tierproxy.app import Surroundings, archives_anything, follow_file
from tierproxy.clock import Clock, SystemClock
from tierproxy.config import Config
from tierproxy.config.settings import Settings
from tierproxy.errors import TierproxyError
from tierproxy.insight.site import site
from tierproxy.insight.told import Told, told_here
from tierproxy.listener import BACKLOG
from tierproxy.ports import listen_at
from tierproxy.tasks import Tasks
from tierproxy.telemetry import OncePerChange, set_level
from tierproxy.workers.answers import Answers
from tierproxy.workers.channel import Channel, Message, packed
from tierproxy.workers.cores import usable_cores
from tierproxy.workers.metrics import WorkerMetrics
from tierproxy.workers.place import private_directory
from tierproxy.workers.roster import KILL_AFTER, Restarts, Roster, Seat

log = logging.getLogger("tierproxy.workers")

ACCEPT_PAUSE = 1.0
"""Seconds until the next try where the system gives us no more connections."""


def run(config: Config, surroundings: Surroundings = contextlib.nullcontext, file: Path | None = None) -> None:
    """Run gateway and archiver, in as many processes as `workers` says, until SIGTERM or SIGINT. `file` is followed.

    Raises TierproxyError when it can't start at all.
    """
    workers = usable_cores() if config.workers == "auto" else config.workers
    if workers == 1 or not config.listen.enabled:
        app.run(config, surroundings, file)
    else:
        asyncio.run(_supervise(config, surroundings, workers, file))


async def _supervise(config: Config, surroundings: Surroundings, workers: int, file: Path | None) -> None:
    async with surroundings(config) as changed:
        with private_directory() as place:
            await Supervisor(changed, workers, place, SystemClock(), file).run()


class Supervisor:
    """`workers` gateways and perhaps an archiver. Their files are in `place`."""

    def __init__(self, config: Config, workers: int, place: Path, clock: Clock, file: Path | None = None) -> None:
        self._config = config
        self._in_force = Settings(config)
        self._file = file
        self._workers = workers
        self._place = place
        self._clock = clock
        self._roster = Roster(workers, archives_anything(config))
        self._channels: dict[Seat, Channel] = {}
        self._processes: dict[Seat, Process] = {}
        self._stop = asyncio.Event()
        self._fault: TierproxyError | None = None
        self._tasks = Tasks(on_crash=self._crashed)
        self._crash: BaseException | None = None
        self._ports: dict[int, list[socket.socket]] = {}
        self._opening = asyncio.Lock()
        self._answers = Answers()
        self._trouble = OncePerChange(log)
        self._somebody = asyncio.Event()  # may be able to take a client
        (place / "metrics").mkdir()
        self._metrics = WorkerMetrics(
            place / "metrics", lambda: [os.getpid(), *(process.pid for process in self._processes.values())]
        )

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end_soon)
        config = self._config
        admin = None
        if config.admin is not None:
            dashboard = site(self._in_force, self._clock, self._metrics.registry, self._ask)
            admin = Admin(config.admin, self._roster, self._metrics.text, dashboard)
        if admin is not None:
            await admin.start()
        if self._file is not None:
            follow_file(self._file, config, self._change, self._clock, self._tasks)
        log.info("%d workers serve clients%s", self._workers, ", another one archives" if self._archiver else "")
        keepers = [self._tasks.spawn(self._keep(seat), f"keeper of {seat.name}") for seat in self._roster.seats]
        await self._stop.wait()
        log.info("stopping")
        for sockets in self._ports.values():
            for listening in sockets:
                loop.remove_reader(listening)
                listening.close()
        await asyncio.wait(keepers)
        await self._tasks.close()
        if admin is not None:
            await admin.close()
        for failed in (self._crash, self._fault):
            if failed is not None:
                raise failed

    def _end_soon(self) -> None:
        """As App does it: /ready says no first, and clients are served for a while after that."""
        delay = self._config.listen.drain_delay_ms / 1000
        if self._roster.stopping is not None or not delay:
            self._stop.set()  # told twice, at once
            return
        self._roster.stopping = f"stopping, {delay:g} s after being told to"
        log.info("stopping in %g s: /ready says no, clients are served until then", delay)
        asyncio.get_running_loop().call_later(delay, self._stop.set)

    @property
    def _archiver(self) -> bool:
        return any(seat.role == "archiver" for seat in self._roster.seats)

    def _crashed(self, name: str, error: BaseException) -> None:
        log.error("stopping because %s crashed", name)
        self._crash = error
        self._stop.set()

    def _change(self, config: Config) -> None:
        """Have it in force everywhere: who lives hears of it, who is started later begins with it."""
        self._config = self._in_force.now = config
        set_level(config.log.level)
        for channel in self._channels.values():
            channel.say({"config": packed(config)})

    # -- processes --------------------------------------------------------------------------------------------------

    async def _keep(self, seat: Seat) -> None:
        """Have somebody in this seat until we stop."""
        restarts = Restarts()
        while not self._stop.is_set():
            began = self._clock.monotonic()
            how = await self._live(seat)
            self._metrics.died(seat.name)
            if self._stop.is_set():
                return
            pause = restarts.after(self._clock.monotonic() - began)
            when = f"in {pause:g} s" if pause else "now"
            seat.ended(f"{how}; another one is started {when}")
            self._metrics.restarts.labels(seat.role).inc()
            log.error("%s is gone: %s; another one is started %s", seat.name, how, when)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _live(self, seat: Seat) -> str:
        """One life in this seat, to its end; returns how that came."""
        seat.began()
        ours, theirs = socket.socketpair()
        try:
            process = await self._start(seat, theirs)
        except OSError as error:
            ours.close()
            return f"it can't be started: {error.strerror or error}"
        finally:
            theirs.close()
        self._processes[seat] = process
        self._metrics.alive.labels(seat.role).inc()
        log.info("%s is process %d", seat.name, process.pid)
        channel = Channel(ours, lambda message, _: self._heard(seat, message), lambda: None)
        self._channels[seat] = channel
        stopping = self._tasks.spawn(self._end(process), f"end of {seat.name}")
        try:
            status = await process.wait()
        finally:
            stopping.cancel()
            channel.close()
            del self._channels[seat], self._processes[seat]
            self._metrics.alive.labels(seat.role).dec()
        return f"it was killed by {signal.Signals(-status).name}" if status < 0 else f"it ended with status {status}"

    async def _start(self, seat: Seat, theirs: socket.socket) -> Process:
        """The configuration goes through a pipe: it has secrets, which others may read in arguments and environment."""
        above = str(Path(tierproxy.__file__).parents[1])
        paths = [above, *filter(None, [os.environ.get("PYTHONPATH")])]
        arguments = (seat.name, str(theirs.fileno()), str(self._place), str(self._workers))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tierproxy.workers", *arguments),
            stdin=PIPE,
            stdout=DEVNULL,
            pass_fds=[theirs.fileno()],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(paths), "PROMETHEUS_MULTIPROC_DIR": str(self._place / "metrics")},
        )
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(self._config))
        process.stdin.close()
        return process

    async def _end(self, process: Process) -> None:
        """See to it that it ends when we are to stop."""
        await self._stop.wait()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            await asyncio.sleep(self._config.listen.drain_ms / 1000 + KILL_AFTER)
            process.kill()

    # -- what workers say -------------------------------------------------------------------------------------------

    def _heard(self, seat: Seat, message: Message) -> None:
        match message:
            case {"open": int(port)}:
                self._tasks.spawn(self._open(seat, port), f"port {port} for {seat.name}")
            case {"load": int(load), "taken": int(taken)}:
                seat.counted(load, taken)
            case {"part": str(part), "ok": bool(ok), "reason": str(reason)}:
                self._roster.said(seat, part, PartHealth(ok, reason))
                self._somebody.set()
            case {"told": told, "asked": int(asked)}:
                self._answers.heard(seat.name, told, asked)
            case {"fault": str(why)} if not self._roster.complete:
                self._fault = TierproxyError(why)
                self._stop.set()
            case {"fault": str(why)}:
                log.error("%s can't go on: %s", seat.name, why)

    async def _ask(self) -> list[Told]:
        """What the workers that live are at, for the dashboard; and what we have met ourselves."""
        told = await self._answers.of({seat.name: channel for seat, channel in self._channels.items()})
        return [told_here("supervisor", {}), *told]

    # -- clients ----------------------------------------------------------------------------------------------------

    async def _open(self, seat: Seat, port: int) -> None:
        error = None
        async with self._opening:
            if port not in self._ports and not self._stop.is_set():
                try:
                    self._ports[port] = await listen_at(self._config.listen.host, port, BACKLOG)
                except OSError as refused:
                    error = refused.strerror or str(refused)
                else:
                    for listening in self._ports[port]:
                        self._tasks.spawn(self._accept(port, listening), f"accept at port {port}")
        if error is None:
            seat.ports.add(port)
            self._somebody.set()
        if seat in self._channels:
            self._channels[seat].say({"opened": port, "error": error})

    async def _accept(self, port: int, listening: socket.socket) -> None:
        """While nobody can take them, clients wait at the port."""
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            while not self._roster.candidates(port):
                self._somebody.clear()
                await self._somebody.wait()
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:
                why = error.strerror or error
                self._trouble.began(f"{port}", f"no connections can be accepted at port {port}: {why}")
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            self._trouble.ended(f"{port}", f"connections are accepted at port {port} again")
            with accepted:
                self._hand_over(port, accepted)

    def _hand_over(self, port: int, accepted: socket.socket) -> None:
        """To the first who takes it; who doesn't is overwhelmed, or about to be gone. If nobody does, it is closed."""
        for seat in self._roster.candidates(port):
            if self._channels[seat].hand_over({"at": port}, accepted):
                self._roster.gave(seat)
                return
