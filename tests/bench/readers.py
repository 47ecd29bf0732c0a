"""The three readers, each a process of its own, all of them the same on every route.

- `raw`: asks for 8 MiB a partition and looks at batch headers only: what the server can give;
- `librdkafka`: confluent-kafka with larger queues and fetches than by default;
- `java`: ConsumerPerformance with larger fetches and buffers than by default; it checks CRCs, as by default.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench import reading
from tests.bench.meters import Meter, Usage
from tests.bench.programs import Program, java_tool, python
from tests.bench.raw import Read
from tests.bench.s3 import Page

JAVA_CONSUMER = {
    "max.partition.fetch.bytes": 8 << 20,
    "fetch.max.bytes": 50 << 20,
    "receive.buffer.bytes": 2 << 20,
    "max.poll.records": 2000,
}
TIMEOUT_MS = 60_000
SETTINGS = {
    "raw": {"partition_bytes": reading.RAW_PARTITION_BYTES},
    "librdkafka": reading.LIBRDKAFKA,
    "java": JAVA_CONSUMER,
}


@dataclass(frozen=True)
class Job:
    """What is to be read: all of a topic up to `ends`, by a client that is told `bootstrap`."""

    bootstrap: str
    topic: str
    ends: Mapping[int, int]

    @property
    def records(self) -> int:
        return sum(self.ends.values())


Command = Callable[[Job], list[str | Path]]
Parse = Callable[[Job, str], Read]


def _python(kind: str) -> Command:
    def command(job: Job) -> list[str | Path]:
        about = {"bootstrap": job.bootstrap, "topic": job.topic, "ends": dict(job.ends)}
        return python("tests.bench.reading", kind, json.dumps(about))

    return command


def _java(job: Job) -> list[str | Path]:
    return java_tool(
        "org.apache.kafka.tools.ConsumerPerformance",
        *("--bootstrap-server", job.bootstrap, "--topic", job.topic, "--num-records", str(job.records)),
        *("--fetch-size", str(JAVA_CONSUMER["max.partition.fetch.bytes"]), "--timeout", str(TIMEOUT_MS)),
        *("--socket-buffer-size", str(JAVA_CONSUMER["receive.buffer.bytes"]), "--hide-header"),
        *(part for key, value in JAVA_CONSUMER.items() for part in ("--command-property", f"{key}={value}")),
    )


def _parse_python(job: Job, said: str) -> Read:
    return Read(**json.loads(said))


def parse_java(job: Job, said: str) -> Read:
    """start, end, MB, MB/s, records, records/s, rebalance ms, fetch ms, …: the tool's line. Joining the group is not
    counted, as the tool itself doesn't in its last figures."""
    words = said.strip().splitlines()[-1].split(", ")
    return Read(float(words[7]) / 1e3, 0.0, int(float(words[2]) * (1 << 20)), int(words[4]))


READERS: dict[str, tuple[Command, Parse]] = {
    "java": (_java, parse_java),
    "librdkafka": (_python("librdkafka"), _parse_python),
    "raw": (_python("raw"), _parse_python),
}


def run(reader: str, jobs: list[Job], parties: Mapping[str, int], front: Page) -> tuple[list[Read], Usage]:
    """Reads each of the jobs by a process of its own, all at the same time; what each read, what it cost together.

    RuntimeError when one ends early, or with fewer records than there are.
    """
    command, parse = READERS[reader]
    with ExitStack() as stack:
        programs = [stack.enter_context(Program(f"the {reader} reader", command(job))) for job in jobs]
        clients = {f"client-{number}": program.pid for number, program in enumerate(programs)}
        meter = Meter({**parties, **clients}, front)
        meter.begin()
        for program in programs:
            program.begin()
        said = [program.result() for program in programs]
        usage = meter.end()
    reads = [parse(job, text) for job, text in zip(jobs, said, strict=True)]
    for job, read in zip(jobs, reads, strict=True):
        if read.records < job.records:
            raise RuntimeError(f"{reader} read {read.records} of {job.topic}'s {job.records} records")
    return reads, _together(usage, clients)


def _together(usage: Usage, clients: Mapping[str, int]) -> Usage:
    """With one party `client` instead of many."""
    cpu = {name: used for name, used in usage.cpu.items() if name not in clients}
    peaks = {name: peak for name, peak in usage.peaks.items() if name not in clients}
    cpu["client"] = sum(usage.cpu[name] for name in clients)
    peaks["client"] = sum(usage.peaks[name] for name in clients)
    return Usage(usage.seconds, cpu, usage.idle, usage.others, peaks, usage.s3)
