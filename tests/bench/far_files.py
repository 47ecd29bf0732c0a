"""A directory as a store that is far away, for machines where no S3 server can be built.

`python -m tests.bench.far_files` is tierproxy, but that each operation on a directory takes as long as the front before
S3 would make it take. No S3 is spoken, so its cost is missing: figures don't compare with those of the real thing.
The settings are in one file and what was done is in another, of the directory that `PLACE` in the environment names.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.s3 import Counts
from tierproxy.archive.store import StoredObject
from tierproxy.archive.store_file import FileStore
from tierproxy.cli import main

PLACE = "BENCH_FAR_FILES"
_KINDS = {"get": "gets", "get_range": "gets", "list": "lists", "size": "heads", "put": "puts", "put_if": "puts"}


@dataclass
class FilesPage:
    """What `FrontPage` is to the front."""

    directory: Path
    _seen: int = field(default=0, repr=False)

    def set(self, *, delay_ms: float | None = None, bytes_per_second: float | None = None) -> None:
        wanted = {"delay_ms": delay_ms, "bytes_per_second": bytes_per_second}
        about = settings(self.directory) | {name: value for name, value in wanted.items() if value is not None}
        unfinished = self.directory / "settings.new"
        unfinished.write_text(json.dumps(about))
        unfinished.replace(self.directory / "settings.json")

    def reset(self) -> None:
        self._seen = self._done().stat().st_size

    def counts(self) -> Counts:
        counts = dict.fromkeys(Counts.names(), 0)
        with self._done().open() as done:
            done.seek(self._seen)
            for line in done:
                operation, size = line.split()
                counts[_KINDS.get(operation, "others")] += 1
                counts["whole"] += operation == "get"
                counts["asked"] += int(size) if operation == "get_range" else 0
                counts["received" if operation.startswith("put") else "sent"] += int(size)
        return Counts(**counts)

    def _done(self) -> Path:
        file = self.directory / "done"
        file.touch()
        return file


def settings(directory: Path) -> dict[str, float]:
    try:
        found: dict[str, float] = json.loads((directory / "settings.json").read_text())
    except FileNotFoundError:
        return {}
    return found


Run = Callable[..., Awaitable[Any]]


def far(run: Run, directory: Path) -> Run:
    """FileStore's way to do anything, with the delays."""
    done = os.open(directory / "done", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def slowly(store: FileStore, operation: str, key: str, work: Callable[[], Any], size: int = 0) -> Any:
        about = settings(directory)
        await asyncio.sleep(about.get("delay_ms", 0) / 1e3)
        result = await run(store, operation, key, work, size)
        moved = len(result.data) if isinstance(result, StoredObject) else size
        if rate := about.get("bytes_per_second"):
            await asyncio.sleep(moved / rate)
        os.write(done, f"{operation} {moved}\n".encode())
        return result

    return slowly


if __name__ == "__main__":
    FileStore._run = far(FileStore._run, Path(os.environ[PLACE]))  # type: ignore[method-assign, assignment]  # this process only
    main(prog_name="tierproxy")
