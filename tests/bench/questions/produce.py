"""What the proxy takes from producers: acks=all, 1 KiB records, batches up to 128 KiB (Java) and 1 MB (librdkafka)."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from rich.table import Table

from tests.bench import writing
from tests.bench.corpus import records
from tests.bench.meters import Meter, Usage
from tests.bench.programs import Program, java_tool, python
from tests.bench.results import PARTIES
from tests.bench.turns import Bench
from tests.kit import admin

ORDER = 15
TOPIC, PARTITIONS = "produced", 3
RECORDS, QUICK_RECORDS = 400_000, 150_000
JAVA_PRODUCER = {"acks": "all", "linger.ms": 5, "batch.size": 128 << 10, "buffer.memory": 64 << 20}
_LINE = re.compile(r"records sent, [\d.]+ records/sec \(([\d.]+) MB/sec\)")


@dataclass(frozen=True)
class Written:
    mb_per_second: float
    gigabytes: float
    usage: Usage


def ask(bench: Bench) -> Table:
    scene = bench.scene
    bootstrap = scene.backend.bootstrap
    admin.create_topic(bootstrap, TOPIC, PARTITIONS, retention_bytes=64 << 20, segment_bytes=64 << 20)
    payload = Path(scene.proxy.directory, "payload.jsonl")
    values = list(islice(records("produce"), writing.DIFFERENT))
    payload.write_bytes(b"\n".join(values))
    number = QUICK_RECORDS if bench.options.quick else RECORDS
    gigabytes = number * sum(map(len, values)) / len(values) / 1e9
    found: dict[tuple[str, str], list[Written]] = {}
    try:
        for turn in range(bench.options.rounds):
            for client, (command, parse) in _clients(payload, number).items():
                for route, (host, port) in (("direct", scene.direct), ("tierproxy", scene.proxied)):
                    bench.say(f"produce, round {turn + 1} of {bench.options.rounds}: {client}, {route}")
                    with Program(f"the {client} producer", command(f"{host}:{port}")) as program:
                        meter = Meter({**scene.parties, "client": program.pid}, scene.backend.front)
                        meter.begin()
                        program.begin()
                        speed = parse(program.result())
                        written = Written(speed, gigabytes, meter.end())
                    found.setdefault((client, route), []).append(written)
    finally:
        admin.delete_topic(bootstrap, TOPIC)
    return _table(bench, found)


Command = Callable[[str], list[str | Path]]


def _clients(payload: Path, number: int) -> dict[str, tuple[Command, Callable[[str], float]]]:
    def java(bootstrap: str) -> list[str | Path]:
        return java_tool(
            "org.apache.kafka.tools.ProducerPerformance",
            *("--topic", TOPIC, "--num-records", str(number), "--throughput", "-1", "--payload-file", str(payload)),
            *("--bootstrap-server", bootstrap),
            *("--command-property", *(f"{key}={value}" for key, value in JAVA_PRODUCER.items())),
        )

    def librdkafka(bootstrap: str) -> list[str | Path]:
        about = {"bootstrap": bootstrap, "topic": TOPIC, "records": number}
        return python("tests.bench.writing", json.dumps(about))

    return {"java": (java, parse_java), "librdkafka": (librdkafka, _parse_librdkafka)}


def parse_java(said: str) -> float:
    """MB/s (millions of bytes) in the tool's last line, which counts in MiB."""
    found = _LINE.findall(said)
    if not found:
        raise RuntimeError(f"the producer said: {said}")
    return float(found[-1]) * (1 << 20) / 1e6


def _parse_librdkafka(said: str) -> float:
    result = json.loads(said)
    return float(result["bytes"] / result["seconds"] / 1e6)


def _table(bench: Bench, found: dict[tuple[str, str], list[Written]]) -> Table:
    table = Table(title="Producing, acks=all, 1 KiB, a topic that is not archived")
    for column in ("", "MB/s", "of direct", "idle", *(party for party in PARTIES[:3])):
        table.add_column(column, justify="right" if column else "left")
    figure = bench.results.figure
    for (client, route), runs in found.items():
        path = f"produce/{client}" if route != "direct" else f"produce/{client}/direct"
        direct = found[client, "direct"]
        ratio = median(a.mb_per_second / b.mb_per_second for a, b in zip(runs, direct, strict=True))
        table.add_row(
            f"{client}: {route}",
            f"{figure(f'{path}/speed', median(run.mb_per_second for run in runs), 'MB/s'):,.0f}",
            f"{figure(f'{path}/ratio', ratio):.2f}",
            f"{figure(f'{path}/idle', median(run.usage.idle for run in runs)):.0%}",
            *(
                f"{figure(f'{path}/cpu {party}', median(r.usage.cpu[party] / r.gigabytes for r in runs), 's/GB'):.2f}"
                for party in PARTIES[:3]
            ),
        )
    return table
