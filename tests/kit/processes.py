"""Programs that are started here and never outlive us.

Two nets. The ordinary one: `Process.stop` at the end of a `with`, a fixture or, at the latest, at
interpreter exit. The second is for the ends that run no Python at all (kill -9, a crash): one small `leash`
process, told of every group that is started, waits for our end of a pipe to close and then kills the groups
that are left. A pipe rather than Linux' parent-death signal, because that signal is sent when the *thread*
that forked ends, and only on Linux.

Every program gets its own session, so that a Ctrl-C in the terminal reaches only us and things stop in
order.
"""

import atexit
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")

_LEASH = """
import os, signal, sys
for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(s, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    groups.add(int(line[1:])) if line[0] == "+" else groups.discard(int(line[1:]))
for group in groups:
    try: os.killpg(group, signal.SIGKILL)
    except OSError: pass
"""


class Died(RuntimeError):
    """A program ended, or did not become ready; the message carries the end of its log."""


class _Leash:
    """The helper process that outlives us by a moment and kills what we left behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._pipe: IO[str] | None = None
        self._owner = 0  # a forked copy of us needs a leash of its own

    def tell(self, sign: str, group: int) -> None:
        with self._lock:
            if self._pipe is None or self._owner != os.getpid():
                leash = subprocess.Popen(
                    [sys.executable, "-S", "-c", _LEASH],
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                    text=True,
                )
                assert leash.stdin is not None
                self._process, self._pipe, self._owner = leash, leash.stdin, os.getpid()
            self._pipe.write(f"{sign}{group}\n")
            self._pipe.flush()

    def close(self) -> None:
        if self._pipe is not None and self._process is not None and self._owner == os.getpid():
            self._pipe.close()
            self._process.wait()
            self._pipe = None


_leash = _Leash()
_running: set["Process"] = set()


@atexit.register
def kill_all() -> None:
    """Kills every process that is still running, newest first. Also runs at exit."""
    for process in sorted(_running, key=lambda p: p.started, reverse=True):
        process.kill()
    _leash.close()


class Process:
    """One program in its own process group, its output in a file.

    `name` is for messages. Standard output and error go, appended, to `log`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                [os.fspath(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
            )
        _leash.tell("+", self._popen.pid)
        _running.add(self)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def output(self) -> str:
        """What this run of the program has written so far."""
        with self.log.open("rb") as f:
            f.seek(self._log_start)
            return f.read().decode(errors="replace")

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.output().splitlines()[-lines:])

    def wait_until(self, condition: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Waits for `condition`; `Died` with the log's end if the program ends first or the time is over."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.alive:
                raise Died(f"{self.name} ended ({self.returncode}) before {what}; {self._said()}")
            if time.monotonic() > deadline:
                raise Died(f"{self.name}: no {what} within {seconds:g} s; {self._said()}")
            time.sleep(0.02)

    def pause(self) -> None:
        """SIGSTOP: it stands still, and its connections stay open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT, after `pause`."""
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without waiting for what comes of it."""
        if self.alive:
            self._signal(signal.SIGTERM)

    def stop(self, seconds: float = 30) -> int:
        """Asks it to end (SIGTERM), kills it when it has not after `seconds`. Returns the exit status."""
        if self.alive:
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(seconds)
        return self.kill()

    def kill(self) -> int:
        """kill -9 for the whole group, then waits until it is gone. Returns the exit status."""
        if self in _running:  # otherwise the number may be somebody else's by now
            self._signal(signal.SIGKILL)
            self._popen.wait()
            _running.discard(self)
            _leash.tell("-", self.pid)
        return self._popen.wait()

    def _said(self) -> str:
        return f"from {self.log}:\n{self.tail()}"

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter for zombies on macOS
            os.killpg(self.pid, number)


def wait_for(probe: Callable[[], T | None], *, seconds: float, what: str, pause: float = 0.02) -> T:
    """Calls `probe` until it gives something true and returns that; `TimeoutError` names `what`."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds:g} s (last seen: {found!r})")
        time.sleep(pause)
    return found


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports on 127.0.0.1 that nobody listens on at this moment.

    Looked for at random below the range from which the system takes the ports of outgoing connections, so
    that neither those nor another run of ours on this machine are likely to take one before it is used.
    """
    for _ in range(200):
        first = random.randrange(10_000, 32_000 - count)
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    sock = held.enter_context(socket.socket())
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError(f"no {count} neighbouring free ports found")
