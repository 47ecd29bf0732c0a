"""What a stretch of time cost: CPU seconds of every party, idle time of the machine, peak memory. Of Linux (/proc)."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.s3 import Counts, Page

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """Between `begin` and `end`. CPU in seconds, by party; `idle` is the machine's idle share, 0 to 1, `others` that of
    programs that are no party; `peaks` is the largest resident memory in bytes of each party's processes together, a
    little too high when their peaks differ."""

    seconds: float
    cpu: dict[str, float]
    idle: float
    others: float
    peaks: dict[str, int]
    s3: Counts


class Meter:
    """`begin`, let something happen, `end`. `parties`: name → pid of the leader of a session of its own."""

    def __init__(self, parties: Mapping[str, int], front: Page | None = None) -> None:
        self._parties = dict(parties)
        self._front = front

    def begin(self) -> None:
        for pid in _members(self._parties.values()):
            _forget_peak(pid)
        if self._front is not None:
            self._front.reset()
        self._cpu = cpu_seconds(self._parties)
        self._machine = _machine()
        self._began = time.perf_counter()

    def end(self) -> Usage:
        seconds = time.perf_counter() - self._began
        idle, total = (now - then for now, then in zip(_machine(), self._machine, strict=True))
        cpu = {name: used - self._cpu[name] for name, used in cpu_seconds(self._parties).items()}
        peaks = dict.fromkeys(self._parties, 0)
        of = {pid: name for name, pid in self._parties.items()}
        for pid, session in _members(self._parties.values()).items():
            peaks[of[session]] += _peak(pid)
        counts = self._front.counts() if self._front is not None else Counts()
        others = max(0.0, 1 - (idle + sum(cpu.values()) * _TICKS) / total) if total else 0.0
        return Usage(seconds, cpu, idle / total if total else 0.0, others, peaks, counts)


def cpu_seconds(parties: Mapping[str, int]) -> dict[str, float]:
    """So far, user and system, of each party's processes, those included that have ended and were waited for."""
    used = dict.fromkeys(parties, 0.0)
    for name, leader in parties.items():
        for pid, session in _members([leader]).items():
            if session == leader and (fields := _stat(pid)):
                used[name] += sum(map(int, fields[11:15])) / _TICKS
    return used


def _members(leaders: Iterable[int]) -> dict[int, int]:
    """pid → session, of all processes in the sessions of `leaders`."""
    wanted = set(leaders)
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) and int(fields[3]) in wanted:
            found[int(entry.name)] = int(fields[3])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: [0] is the state; empty when the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _machine() -> tuple[float, float]:
    """(idle, all) in ticks, of all processors."""
    ticks = [int(n) for n in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _forget_peak(pid: int) -> None:
    try:
        (_PROC / str(pid) / "clear_refs").write_text("5")
    except OSError:
        return  # gone


def _peak(pid: int) -> int:
    try:
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
