"""What lies in the archive: the broker's bytes, readable without tierproxy, on either store; and the tools for it."""

import json
from pathlib import Path

import pytest

from tests.demo import segments
from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.processes import wait_for
from tests.kit.producing import CODECS, merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import Log, assert_same, drafts, ends


@pytest.fixture(scope="module")
def both_copies(stage: Stage, proxied: Proxy) -> tuple[str, Log]:
    """A topic that is archived whole and still whole on the broker; a codec per partition."""
    topic = stage.topic("kept.whole", partitions=len(CODECS))
    log = merged(
        *(
            produce(stage.broker, topic, drafts(600, partition=p, seed=12), compression_type=codec)
            for p, codec in enumerate(CODECS)
        )
    )
    last = ends(log)

    def archived() -> bool:
        found = proxied.manifests(topic)
        return all(p in found and int(found[p]["end_offset"]) > last[p] for p in last)

    wait_for(archived, seconds=60, what="complete archive", pause=0.1)
    return topic, log


def _segment_files(proxy: Proxy, topic: str, partition: int) -> list[Path]:
    return sorted((proxy.archive / proxy.cluster / topic).glob(f"*/{partition}/*.log.zst"))


def test_decompressed_segments_are_the_brokers_own_bytes(
    stage: Stage, proxied: Proxy, both_copies: tuple[str, Log], tmp_path: Path
) -> None:
    topic, log = both_copies
    for partition in log:
        on_broker = b"".join(
            file.read_bytes() for file in sorted((stage.kafka.nodes[0].data / f"{topic}-{partition}").glob("*.log"))
        )
        archived = b""
        for file in _segment_files(proxied, topic, partition):
            plain = tmp_path / "plain.log"
            segments.decompress(file, plain)
            archived += plain.read_bytes()
        # The broker's files may go on with preallocated zeros, never with other batches.
        assert archived == on_broker


def test_kafkas_own_tool_reads_a_decompressed_segment(
    proxied: Proxy, both_copies: tuple[str, Log], tmp_path: Path
) -> None:
    topic, _ = both_copies
    for partition in (0, 4):
        file = _segment_files(proxied, topic, partition)[0]
        entry = proxied.manifests(topic)[partition]["segments"][0]
        found = segments.check(file, tmp_path)
        assert found.all_valid
        assert (found.first_offset, found.last_offset) == (entry["base_offset"], entry["last_offset"])
        assert (found.records, found.plain_bytes) == (entry["records"], entry["plain_size"])


def test_command_line_lists_verifies_and_prints(proxied: Proxy, both_copies: tuple[str, Log]) -> None:
    topic, _ = both_copies
    listed = proxied.cli("archive", "ls", "--json").stdout
    assert topic in listed
    json.loads(listed.splitlines()[0])
    assert proxied.cli("archive", "verify").returncode == 0
    assert proxied.cli("check").returncode == 0


def test_verify_notices_one_changed_byte(proxied: Proxy, both_copies: tuple[str, Log]) -> None:
    topic, _ = both_copies
    file = _segment_files(proxied, topic, 1)[0]
    honest = file.read_bytes()
    mode = file.stat().st_mode
    try:
        file.chmod(0o644)
        file.write_bytes(honest[:2000] + bytes([honest[2000] ^ 1]) + honest[2001:])
        found = proxied.cli("archive", "verify", check=False)
        assert found.returncode != 0
        assert file.name in found.stdout + found.stderr
    finally:
        file.write_bytes(honest)
        file.chmod(mode)


def test_s3_instead_of_a_directory(stage: Stage, proxied: Proxy) -> None:
    topic = stage.topic("s3.history", partitions=2)
    log = merged(*(produce(stage.broker, topic, drafts(1000, partition=p, seed=13)) for p in range(2)))
    starts = stage.wait_trimmed(topic, log)
    assert all(start > 0 for start in starts.values())
    for client in ("librdkafka", "aiokafka", "java"):
        assert_same(log, READERS[client](stage.gateway, topic, log))
    assert admin.earliest(stage.gateway, topic, 2) == {0: 0, 1: 0}
