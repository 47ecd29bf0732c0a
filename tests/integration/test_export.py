"""An archive's topic as files, checked by Kafka's own tools and against what was produced."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Stage
from tests.kit.kafka import dump_log
from tests.kit.processes import wait_for
from tests.kit.producing import CODECS, Recorder, merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import Log, Record, assert_same, drafts, ends


@pytest.fixture(scope="module")
def archived(stage: Stage, proxied: Proxy) -> tuple[str, Log]:
    """A topic that is archived whole and still whole on the broker, a codec per partition, with transactions; what is
    committed of it."""
    topic = stage.topic("kept.export", partitions=len(CODECS))
    plain = merged(
        *(
            produce(stage.broker, topic, drafts(400, partition=p, seed=31), compression_type=codec)
            for p, codec in enumerate(CODECS)
        )
    )
    transactions = Recorder(stage.broker, topic, transactional=True)
    for turn in range(4):
        transactions.begin()
        transactions.send(draft for p in range(len(CODECS)) for draft in drafts(30, partition=p, seed=32 + turn))
        if turn % 2:
            transactions.abort()
        else:
            transactions.commit()
    last = merged(*(produce(stage.broker, topic, drafts(5, partition=p, seed=40)) for p in range(len(CODECS))))
    log = merged(plain, transactions.log, last)

    def complete() -> bool:
        found = proxied.manifests(topic)
        return all(p in found and int(found[p]["end_offset"]) > end for p, end in ends(log).items())

    wait_for(complete, seconds=120, what="complete archive", pause=0.1)
    return topic, log


def test_log_files_are_the_brokers_own_bytes_and_kafkas_tool_reads_them(
    stage: Stage, proxied: Proxy, archived: tuple[str, Log], tmp_path: Path
) -> None:
    topic, log = archived
    said = json.loads(proxied.cli("archive", "export", topic, "--output", str(tmp_path), "--json").stdout)
    assert [each["partition"] for each in said["partitions"]] == list(range(len(CODECS)))
    for partition in log:
        files = sorted((tmp_path / f"{topic}-{partition}").iterdir())
        entries = proxied.manifests(topic)[partition]["segments"]
        assert [file.name for file in files] == [f"{entry['base_offset']:020}.log" for entry in entries]
        on_broker = b"".join(
            file.read_bytes() for file in sorted((stage.kafka.nodes[0].data / f"{topic}-{partition}").glob("*.log"))
        )
        assert b"".join(file.read_bytes() for file in files) == on_broker
    shown = dump_log(tmp_path / f"{topic}-2" / f"{0:020}.log")
    assert "compresscodec: snappy" in shown
    assert "isvalid: true" in shown
    assert "isvalid: false" not in shown


def test_json_lines_are_the_committed_records(proxied: Proxy, archived: tuple[str, Log], tmp_path: Path) -> None:
    topic, log = archived
    proxied.cli("archive", "export", topic, "--output", str(tmp_path), "--format", "jsonl")
    got: Log = {}
    for partition in log:
        lines = (tmp_path / f"{topic}-{partition}.jsonl").read_text().splitlines()
        got[partition] = [_record(json.loads(line)) for line in lines]
    assert_same(log, got)


def _record(line: dict[str, Any]) -> Record:
    def content(of: dict[str, Any], name: str) -> bytes | None:
        if f"{name}_base64" in of:
            return base64.b64decode(of[f"{name}_base64"])
        text: str | None = of[name]
        return None if text is None else text.encode()

    headers = tuple((header["name"], content(header, "value")) for header in line["headers"])
    return Record(
        line["partition"], line["offset"], content(line, "key"), content(line, "value"), headers, line["timestamp"]
    )
