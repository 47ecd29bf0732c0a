"""Kafka's own console consumer as a reader: its output, with every part of a record printed, parsed back.

The parts are told apart by control characters that the kit's records do not contain.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.kit.kafka import tool_command
from tests.kit.login import Login
from tests.kit.processes import Process
from tests.kit.records import Log, Record, count

CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
_PART, RECORD, _HEADER, _NULL = b"\x1d", b"\x1e", b"\x1f", b"\x15null"


def read_with_java(
    bootstrap: str,
    topic: str,
    expected: Mapping[int, list[Record]],
    *,
    starts: Mapping[int, int] | None = None,
    committed: bool = False,
    login: Login | None = None,
    jvm: Sequence[str] = (),
) -> Log:
    """A `Reader`; `jvm`: options of Java's. Stops after as many records as are expected: only then the tool flushes."""
    level = [
        *("--isolation-level", "read_committed" if committed else "read_uncommitted"),
        *(f"--command-property={key}={value}" for key, value in (login.java() if login is not None else {}).items()),
    ]
    if starts is None:
        records = _run(bootstrap, topic, count(expected), "--from-beginning", *level, jvm=jvm)
    else:
        records = []
        for p, wanted in expected.items():
            where = ("--partition", str(p), "--offset", str(starts.get(p, 0)))
            records += _run(bootstrap, topic, len(wanted), *where, *level, jvm=jvm)
    log: Log = {partition: [] for partition in expected}
    for record in records:
        log.setdefault(record.partition, []).append(record)
    return log


def read_as_group(
    bootstrap: str, topic: str, group: str, number: int, *, protocol: str, seconds: float = 90
) -> list[Record]:
    """`number` records as a member of `group`, which commits them on leaving. `protocol`: classic or consumer."""
    return _run(
        *(bootstrap, topic, number, "--from-beginning", "--group", group),
        *("--command-property", f"group.protocol={protocol}"),
        seconds=seconds,
    )


def console_command(bootstrap: str, topic: str, number: int, *more: str, jvm: Sequence[str] = ()) -> list[str]:
    """The tool's command line: it ends after `number` records, each followed by `RECORD` (see `parse`)."""
    properties = {
        **dict.fromkeys(("print.timestamp", "print.partition", "print.offset", "print.headers"), "true"),
        "print.key": "true",
        "key.separator": _PART.decode(),
        "line.separator": RECORD.decode(),
        "headers.separator": _HEADER.decode(),
        "null.literal": _NULL.decode(),
    }
    return tool_command(
        CONSOLE_CONSUMER,
        *("--bootstrap-server", bootstrap, "--topic", topic, "--max-messages", str(number), *more),
        *(f"--formatter-property={key}={value}" for key, value in properties.items()),
        jvm=jvm,
    )


def _run(
    bootstrap: str, topic: str, number: int, *more: str, jvm: Sequence[str] = (), seconds: float = 90
) -> list[Record]:
    command = console_command(bootstrap, topic, number, *more, jvm=jvm)
    with TemporaryDirectory() as directory:
        # Its words go to standard error, which would mix with the records; a shell splits them.
        printed, said = Path(directory, "out"), Path(directory, "err")
        process = Process("console consumer", ["sh", "-c", 'exec "$@" >"$0"', printed, *command], log=said)
        try:
            process.wait_until(lambda: not process.alive, seconds=seconds, what="end")
        finally:
            process.kill()
        if process.returncode != 0:
            raise AssertionError(f"the console consumer ended with {process.returncode}:\n{process.tail()}")
        return [parse(line) for line in printed.read_bytes().split(RECORD)[:-1]]


def parse(line: bytes) -> Record:
    """`CreateTime:1·Partition:0·Offset:5·a:1,b:2·key·value`, as the tool's DefaultMessageFormatter has it."""
    time, partition, offset, headers, key, value = line.split(_PART)
    pairs = [] if headers == b"NO_HEADERS" else [part.split(b":", 1) for part in headers.split(_HEADER)]
    return Record(
        int(partition.removeprefix(b"Partition:")),
        int(offset.removeprefix(b"Offset:")),
        _or_none(key),
        _or_none(value),
        tuple((name.decode(), _or_none(content)) for name, content in pairs),
        int(time.removeprefix(b"CreateTime:")),
    )


def _or_none(part: bytes) -> bytes | None:
    return None if part == _NULL else part
