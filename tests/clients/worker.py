"""A client in another language: a program that reads commands and writes answers, a line of JSON each.

A command is `{"id": 1, "do": "read", ...}`, its answer `{"id": 1, "ok": ...}` or `{"id": 1, "error": "..."}`. Commands
overlap; answers come as they are ready. The program ends when its input does, so it can't outlive us.

A record is `[partition, offset, time, key, value, [[name, value], ...]]` with keys and values in base64, or null.
"""

import base64
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from tests.clients.client import At, Found
from tests.kit.records import Log, Record

SECONDS = 150.0


class Failed(RuntimeError):
    """The program answered with an error, or ended; the message is its own."""


class Worker:
    """The running program. What it writes to its standard error goes to `log`."""

    def __init__(self, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._numbers = count(1)
        self._open: dict[int, Future[Any]] = {}
        self._lock = Lock()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [os.fspath(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(env or {})},
                start_new_session=True,  # a Ctrl-C is ours alone
                text=True,
            )
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()

    def begin(self, do: str, **words: Any) -> Future[Any]:
        """Sends a command; the future is its answer."""
        answer: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            if self._process.poll() is not None:
                raise Failed(self._obituary())
            self._open[number] = answer
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"id": number, "do": do, **words}) + "\n")
            self._process.stdin.flush()
        return answer

    def call(self, do: str, *, seconds: float = SECONDS, **words: Any) -> Any:
        """Sends a command and waits for its answer."""
        try:
            return self.begin(do, **words).result(seconds)
        except TimeoutError:
            raise TimeoutError(f"no answer to {do} {words} within {seconds:g} s; {self._said()}") from None

    def close(self) -> None:
        """Ends the program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                future = self._open.pop(answer["id"])
            if answer.get("error"):
                future.set_exception(Failed(answer["error"]))
            else:
                future.set_result(answer.get("ok"))
        self._process.wait()
        with self._lock:
            left, self._open = self._open, {}
        for future in left.values():
            future.set_exception(Failed(self._obituary()))

    def _obituary(self) -> str:
        return f"the program ended ({self._process.returncode}); {self._said()}"

    def _said(self) -> str:
        return f"from {self.log}:\n{self.log.read_text(errors='replace')[-3000:]}"


class WorkerClient:
    """A `Client` whose work is done by a `Worker`."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def version(self) -> str:
        return str(self.worker.call("about")).removeprefix("v")

    def read(self, at: At, last: Mapping[int, int], starts: Mapping[int, int] | None = None) -> Log:
        log: Log = {partition: [] for partition in last}
        for each in self.worker.call("read", **self.words(at), last=dict(last), starts=starts):
            record = to_record(each)
            log.setdefault(record.partition, []).append(record)
        return log

    def group(self, at: At, group: str, count: int) -> list[Record]:
        return [to_record(each) for each in self.worker.call("group", **self.words(at, group), count=count)]

    def times(self, at: At, partition: int, times: Sequence[int]) -> list[Found]:
        answers = self.worker.call("times", **self.words(at), times={partition: list(times)})
        return [None if pair is None else (pair[0], pair[1]) for pair in answers[str(partition)]]

    def bounds(self, at: At, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        answers = self.worker.call("bounds", **self.words(at), partitions=list(partitions))
        return {int(partition): (pair[0], pair[1]) for partition, pair in answers.items()}

    def close(self) -> None:
        self.worker.close()

    def words(self, at: At, group: str | None = None) -> dict[str, Any]:
        """What every command says."""
        return {
            "bootstrap": at.bootstrap,
            "topic": at.topic,
            "committed": at.committed,
            "protocol": at.protocol,
            "group": group,
        }


def to_record(line: Sequence[Any]) -> Record:
    """A record out of an answer."""
    partition, offset, time, key, value, headers = line
    return Record(partition, offset, _bytes(key), _bytes(value), tuple((n, _bytes(v)) for n, v in headers), time)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
