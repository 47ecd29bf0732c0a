"""How a run's results are shown and kept."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import filling, readers, s3
from tests.bench.backend import SEGMENT_BYTES, Backend
from tests.bench.options import Options
from tests.bench.plots import draw
from tests.bench.results import Results
from tests.bench.targets import TARGETS, targets_table
from tests.kit import PROJECT, jars


class Report:
    """Writes below `directory` what it shows."""

    def __init__(self, console: Console, directory: Path) -> None:
        self._console = console
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def show(self, table: Table) -> None:
        self._console.print(table)
        with (self._directory / "tables.txt").open("a") as file:
            Console(file=file, width=170).print(table)

    def save(self, results: Results) -> None:
        """What there is by now: a run that is interrupted has been worth something."""
        unfinished = self._directory / "result.json.new"
        unfinished.write_text(results.as_json() + "\n")
        unfinished.replace(self._directory / "result.json")

    def finish(self, results: Results) -> None:
        results.details["targets"] = [target.judged(results) for target in TARGETS]
        self.save(results)
        self.show(targets_table(results))
        for picture in draw(results, self._directory):
            self._console.print(f"a picture: {picture}")
        self._console.print(f"as JSON: {self._directory / 'result.json'}")


def settings(options: Options, backend: Backend) -> dict[str, Any]:
    """The machine, the versions and the settings, without which figures mean nothing."""
    return {
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "processors": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "load_before": os.getloadavg(),
        },
        "versions": {
            "tierproxy": _commit(),
            "python": sys.version.split()[0],
            "kafka": jars.KAFKA_VERSION,
            "store": f"versitygw {s3.VERSION}" if isinstance(backend.front, s3.FrontPage) else "a directory",
            **{name: version(name) for name in ("confluent-kafka", "aiobotocore", "aiohttp", "uvloop", "zstandard")},
        },
        "settings": {
            "rounds": options.rounds,
            "quick": options.quick,
            "producer": filling.PRODUCER,
            "readers": readers.SETTINGS,
            "segment_bytes": SEGMENT_BYTES,
            "s3_bytes_per_second_and_connection": s3.BYTES_PER_SECOND,
            "corpora": {
                name: {
                    "partitions": stored.corpus.partitions,
                    "compression": stored.corpus.compression,
                    "value_megabytes": stored.corpus.megabytes,
                    "log_bytes": stored.log_bytes,
                    "stored_bytes": stored.stored_bytes,
                    "segments": stored.segments,
                    "records": sum(stored.ends.values()),
                }
                for name, stored in backend.stored.items()
            },
        },
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    """What is measured, if git can say."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return described.stdout.strip()
