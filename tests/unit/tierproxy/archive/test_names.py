import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.archive.errors import FormatError
from tierproxy.archive.names import (
    ZERO_TOPIC_ID,
    PartitionId,
    SegmentName,
    cluster_key,
    cluster_prefix,
    damaged_name,
    decode_part,
    encode_part,
    manifest_key,
    may_be_garbage,
    page_name,
    parse_key,
    parse_page_name,
    parse_segment_name,
    parse_topic_id,
    partition_prefix,
    segment_key,
    segment_name,
    topic_id_text,
)
from tierproxy.archive.store import check_key

TOPIC_ID = bytes.fromhex("33d08f38e4bd40ef86504602c0b936a7")
PID = PartitionId("flights", TOPIC_ID, 0)


def test_the_keys_of_an_ordinary_topic() -> None:
    folder = "prod/flights/M9CPOOS9QO-GUEYCwLk2pw/0/"
    assert cluster_key("prod") == "prod/cluster.json"
    assert cluster_prefix("prod") == "prod/"
    assert partition_prefix("prod", PID) == folder
    assert manifest_key("prod", PID) == folder + "manifest.json"
    assert segment_key("prod", PID, 0, 183_201, "5f1c9a3e") == (
        folder + "00000000000000000000-00000000000000183201-5f1c9a3e.log.zst"
    )


def test_topic_ids_as_kafka_writes_them() -> None:
    assert topic_id_text(TOPIC_ID) == "M9CPOOS9QO-GUEYCwLk2pw"
    assert topic_id_text(ZERO_TOPIC_ID) == "AAAAAAAAAAAAAAAAAAAAAA"  # Uuid.ZERO_UUID.toString()
    assert parse_topic_id("AAAAAAAAAAAAAAAAAAAAAQ") == bytes(15) + b"\x01"
    with pytest.raises(ValueError, match="16 bytes"):
        topic_id_text(b"short")


@given(st.binary(min_size=16, max_size=16))
def test_a_topic_id_there_and_back(topic_id: bytes) -> None:
    assert parse_topic_id(topic_id_text(topic_id)) == topic_id


@pytest.mark.parametrize(
    "text",
    ["", "AAAA", "A" * 21, "A" * 23, "AAAAAAAAAAAAAAAAAAAAAR", "AAAAAAAAAAAAAAAAAAAA+A", "ÄAAAAAAAAAAAAAAAAAAAAA"],
)
def test_texts_that_are_no_topic_id(text: str) -> None:
    with pytest.raises(FormatError):
        parse_topic_id(text)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("flights", "flights"),
        ("Flights_v2.all-1", "Flights_v2.all-1"),
        ("__consumer_offsets", "__consumer_offsets"),
        (".", "%2E"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("cluster.json", "cluster%2Ejson"),
        ("manifest.json", "manifest.json"),
        ("a/../b", "a%2F..%2Fb"),
        ("100%", "100%25"),
        ("%2E", "%252E"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("a\\b\x00c\nd", "a%5Cb%00c%0Ad"),
    ],
)
def test_names_that_could_do_harm_are_encoded_and_others_are_not(name: str, part: str) -> None:
    assert encode_part(name) == part
    assert decode_part(part) == name


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), st.integers(0, 1 << 31))
def test_any_name_makes_a_key_that_stores_can_keep_and_can_be_read_back(name: str, partition: int) -> None:
    pid = PartitionId(name, TOPIC_ID, partition)
    key = manifest_key(name, pid)
    check_key(key)
    assert parse_key(key) == (name, pid, "manifest.json")
    assert key.count("/") == 4
    assert not key.startswith(cluster_key(name))


def test_the_longest_name_that_kafka_allows_fits() -> None:
    check_key(segment_key("c" * 200, PartitionId("." + "t" * 248, TOPIC_ID, 1 << 31), 1 << 62, 1 << 62, "0" * 32))


@pytest.mark.parametrize("part", ["", "a b", "%2e", "%61", "a%2", ".", "..", "cluster.json", "%FF", "a/b"])
def test_parts_that_we_never_write(part: str) -> None:
    with pytest.raises(FormatError):
        decode_part(part)


def test_a_part_can_not_be_empty() -> None:
    with pytest.raises(ValueError, match="empty"):
        partition_prefix("prod", PartitionId("", TOPIC_ID, 0))
    with pytest.raises(ValueError, match="negative"):
        partition_prefix("prod", PartitionId("t", TOPIC_ID, -1))


@pytest.mark.parametrize(
    "key",
    [
        "prod/cluster.json",
        "prod/flights/M9CPOOS9QO-GUEYCwLk2pw/0",
        "prod/flights/M9CPOOS9QO-GUEYCwLk2pw/0/",
        "prod/flights/M9CPOOS9QO-GUEYCwLk2pw/00/manifest.json",
        "prod/flights/M9CPOOS9QO-GUEYCwLk2pw/-1/manifest.json",
        "prod/flights/M9CPOOS9QO-GUEYCwLk2pw/²/manifest.json",
        "prod/flights/some-folder/0/manifest.json",
        "prod/fli ghts/M9CPOOS9QO-GUEYCwLk2pw/0/manifest.json",
    ],
)
def test_keys_that_are_not_in_a_partition_s_folder(key: str) -> None:
    with pytest.raises(FormatError):
        parse_key(key)


def test_what_may_be_removed_as_garbage() -> None:
    assert may_be_garbage("00000000000000000000-00000000000000183201-5f1c9a3e.log.zst")
    assert may_be_garbage("manifest/00000000000000000000-00000000000000183201-5f1c9a3e.json.zst")
    for name in ("manifest.json", "garbage.json", "README", "x/00000000000000000000-00000000000000183201-5f.log.zst"):
        assert not may_be_garbage(name)


def test_pages_lie_in_the_partition_s_folder_too() -> None:
    name = page_name(0, 4096, "5f1c9a3e")
    assert name == "manifest/00000000000000000000-00000000000000004096-5f1c9a3e.json.zst"
    assert parse_page_name(name) == (0, 4096, "5f1c9a3e")
    assert parse_key(partition_prefix("prod", PID) + name) == ("prod", PID, name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "manifest.json",
        segment_name(0, 9, "a"),
        page_name(0, 9, "a").removeprefix("manifest/"),
        page_name(0, 9, "a") + "x",
        page_name(0, 9, "a").replace("-a", "-A"),
        "manifest/00000000000000000009-00000000000000000008-a.json.zst",
    ],
)
def test_names_that_are_no_page_s(name: str) -> None:
    with pytest.raises(FormatError):
        parse_page_name(name)


def test_a_damaged_manifest_is_kept_under_a_name_that_every_store_can_keep() -> None:
    key = partition_prefix("prod", PID) + damaged_name(1_700_000_000_000)
    check_key(key)
    assert parse_key(key) == ("prod", PID, "manifest.json.damaged-1700000000000")


@given(st.integers(0, (1 << 63) - 1), st.integers(0, 1 << 40), st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True))
def test_a_segment_s_name_there_and_back(base: int, more: int, tag: str) -> None:
    last = min(base + more, (1 << 63) - 1)
    assert parse_segment_name(segment_name(base, last, tag)) == SegmentName(base, last, tag)


def test_segments_sort_by_offset() -> None:
    names = [segment_name(base, base + 5, "t") for base in (0, 9, 10, 99, 100, 10**18)]
    assert names == sorted(names)


@pytest.mark.parametrize(("base", "last", "tag"), [(5, 4, "a"), (-1, 4, "a"), (0, 4, ""), (0, 4, "A"), (0, 4, "a/b")])
def test_segments_that_can_not_be_named(base: int, last: int, tag: str) -> None:
    with pytest.raises(ValueError):
        segment_name(base, last, tag)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "manifest.json",
        "0-9-a.log.zst",
        "00000000000000000009-00000000000000000000-a.log.zst",
        "00000000000000000000-00000000000000000009-a.log.zst.tmp",
        "00000000000000000000-00000000000000000009-A.log.zst",
    ],
)
def test_names_that_are_no_segment_s(name: str) -> None:
    with pytest.raises(FormatError):
        parse_segment_name(name)


def test_a_partition_is_told_as_kafka_tells_it() -> None:
    assert str(PID) == "flights-0"
