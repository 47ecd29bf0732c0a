"""How many cores this process may use: what `workers: auto` means."""

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Those of the process's affinity, and no more than its control groups let it keep busy; at least 1.

    A quota of 2.5 cores is 2: a third worker would have it throttled, and what is left is of use to the archiver.
    `root` is where /proc and /sys are.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([float(affinity), *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """In cores, of the process's control groups and those around them: version 2 has `cpu.max`, version 1 two files."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            top = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            top = root / "sys/fs/cgroup" / controllers
            if not top.is_dir():
                top = root / "sys/fs/cgroup/cpu"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            yield from _quota(folder)
            if folder == top:
                break


def _quota(folder: Path) -> Iterator[float]:
    """A group that isn't there, as seen from inside a container, has none to tell of."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = [word for name in names for word in (folder / name).read_text().split()]
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # "max": there is no limit
            continue
        if quota > 0 and period > 0:  # -1: there is no limit
            yield quota / period
