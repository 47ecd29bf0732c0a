"""The demonstration's stock consumers, each in a process of its own, followed through what they print."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.kit import PROJECT
from tests.kit.processes import Process


class Follower:
    """One running `reader`. `say` is its newest line; empty before the first."""

    def __init__(self, client: str, bootstrap: str, topic: str, partitions: int, ends: Path, logs: Path) -> None:
        self.client = client
        command = [sys.executable, "-m", "tests.demo.reader", client, bootstrap, topic, str(partitions)]
        log = logs / f"reader-{client}.log"
        self.process = Process(f"the consumer {client}", [*command, ends], log=log, cwd=PROJECT)
        self._read = 0
        self.say: dict[str, Any] = {}

    def look(self) -> dict[str, Any]:
        """Its newest progress: records, bytes, positions, seconds; digests when it is through."""
        with self.process.log.open("rb") as f:
            f.seek(self._read)
            new = f.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            if line.startswith(b'{"records"'):
                self.say = json.loads(line)
        return self.say

    @property
    def records(self) -> int:
        return int(self.say.get("records", 0))

    @property
    def positions(self) -> dict[int, int]:
        """Per partition the offset it will read next."""
        return {int(p): int(at) for p, at in self.say.get("positions", {}).items()}

    @property
    def finished(self) -> bool:
        """True when it has said its digests; `Died` is raised for one that ended without."""
        self.look()
        if "digests" in self.say:
            return True
        if not self.process.alive:
            self.look()
            if "digests" not in self.say:
                self.process.wait_until(lambda: False, seconds=0, what="the end of its reading")
        return "digests" in self.say

    @property
    def digests(self) -> dict[int, str]:
        return {int(p): str(hex_) for p, hex_ in self.say["digests"].items()}
