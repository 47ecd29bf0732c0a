"""`make bench [MB=300] [ROUNDS=3]`: prints a table and writes `.bench/result.json`.

Every figure is the median of the rounds; within a round the routes take turns, so that a slow moment of the
machine hits all of them. The broker's data is in the page cache on every route.
"""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench.readers import Run, read_librdkafka, read_raw
from tests.bench.scene import COLD, HOT, Scene
from tests.kit import PROJECT
from tests.kit.processes import kill_all

HOME = PROJECT / ".bench"
DIRECT, HOT_ROUTE = "hot, the broker alone", "hot, through tierproxy"
COLD_ROUTE, AGAIN = "cold, its cache empty", "cold, once more"
RAW, RAW_LARGE, LIBRDKAFKA = "raw, 1 MiB a partition", "raw, 8 MiB a partition", "librdkafka"


def main() -> int:
    console = Console()
    megabytes, rounds = int(os.environ.get("MB") or 300), int(os.environ.get("ROUNDS") or 3)
    shutil.rmtree(HOME, ignore_errors=True)
    try:
        with console.status("") as status, Scene(HOME, megabytes, status.update) as scene:
            runs = _measure(scene, rounds, status.update)
            _show(console, scene, runs)
            _write(HOME / "result.json", scene, runs, rounds)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    finally:
        kill_all()
        for bulky in ("kafka", "tierproxy"):
            shutil.rmtree(HOME / bulky, ignore_errors=True)
    return 0


Runs = dict[str, dict[str, list[Run]]]  # reader → route → its rounds


def _measure(scene: Scene, rounds: int, say: Callable[[str], None]) -> Runs:
    direct, proxied = scene.broker, scene.through_proxy
    hot, cold = scene.ends[HOT], scene.ends[COLD]

    def raw(size: int) -> dict[str, Callable[[], Run]]:
        return {
            DIRECT: lambda: read_raw(direct, HOT, hot, size),
            HOT_ROUTE: lambda: read_raw(proxied, HOT, hot, size),
            COLD_ROUTE: lambda: read_raw(proxied, COLD, cold, size),
            AGAIN: lambda: read_raw(proxied, COLD, cold, size),
        }

    readers = {
        RAW: raw(1 << 20),
        RAW_LARGE: raw(8 << 20),
        LIBRDKAFKA: {
            DIRECT: lambda: read_librdkafka(scene.kafka.bootstrap, HOT, hot),
            HOT_ROUTE: lambda: read_librdkafka(scene.proxy.bootstrap, HOT, hot),
            COLD_ROUTE: lambda: read_librdkafka(scene.proxy.bootstrap, COLD, cold),
            AGAIN: lambda: read_librdkafka(scene.proxy.bootstrap, COLD, cold),
        },
    }
    read_raw(direct, HOT, hot, 8 << 20)  # the broker's own code gets warm
    runs: Runs = {}
    for number in range(rounds):
        for reader, routes in readers.items():
            for route, read in routes.items():
                say(f"round {number + 1} of {rounds}: {reader}, {route}")
                if route == COLD_ROUTE:
                    scene.empty_cache()
                runs.setdefault(reader, {}).setdefault(route, []).append(read())
    return runs


def _speed(runs: list[Run]) -> float:
    """MB/s, the median."""
    return median(run.size / run.seconds for run in runs) / 1e6


def _show(console: Console, scene: Scene, runs: Runs) -> None:
    table = Table(title=f"Reading {scene.megabytes} MB of JSON in {len(scene.ends[HOT])} partitions, MB/s")
    table.add_column("")
    for reader in runs:
        table.add_column(reader, justify="right")
    for route in (DIRECT, HOT_ROUTE, COLD_ROUTE, AGAIN):
        speeds = [(_speed(routes[route]), _speed(routes[DIRECT])) for routes in runs.values()]
        table.add_row(route, *(f"{speed:,.0f} = {speed / direct:.0%}" for speed, direct in speeds))
    console.print(table)
    first = median(run.first_byte for run in runs[RAW][COLD_ROUTE]) * 1000
    archived = scene.archived
    console.print(f"first cold bytes after a start of tierproxy: {first:,.0f} ms")
    console.print(
        f"archiving: {archived.log_bytes / 1e6 / archived.seconds:,.0f} MB/s of log "
        f"({archived.log_bytes / 1e6:,.0f} MB in {archived.seconds:.1f} s, start included), "
        f"{archived.log_bytes / archived.stored_bytes:.1f} times smaller"
    )
    console.print(f"as JSON: {(HOME / 'result.json').relative_to(PROJECT)}")


def _write(file: Path, scene: Scene, runs: Runs, rounds: int) -> None:
    result = {
        "machine": {"system": platform.platform(), "processors": os.cpu_count(), "python": sys.version.split()[0]},
        "megabytes": scene.megabytes,
        "rounds": rounds,
        "archiving": {
            **asdict(scene.archived),
            "mb_per_second": scene.archived.log_bytes / 1e6 / scene.archived.seconds,
            "ratio": scene.archived.log_bytes / scene.archived.stored_bytes,
        },
        "reading": [
            {
                "reader": reader,
                "route": route,
                "mb_per_second": _speed(rounds_),
                "of_direct": _speed(rounds_) / _speed(routes[DIRECT]),
                "runs": [asdict(run) for run in rounds_],
            }
            for reader, routes in runs.items()
            for route, rounds_ in routes.items()
        ],
    }
    file.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
