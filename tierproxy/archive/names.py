"""Keys: where each object of an archive lies in its store.

    prod/cluster.json                                                         whose archive this is
    prod/flights/7s9mFq3kQ1-wYzVtL2xAbg/0/manifest.json                       a partition's manifest
    prod/flights/7s9mFq3kQ1-wYzVtL2xAbg/0/00000000000000000000-00000000000000183201-5f1c9a3e.log.zst
                                          a segment: first offset, last offset, tag
    prod/flights/7s9mFq3kQ1-wYzVtL2xAbg/0/manifest/00000000000000000000-00000000000091600999-77aa01cd.json.zst
                                          a page of the manifest's older entries: first offset, last offset, tag
    prod/flights/7s9mFq3kQ1-wYzVtL2xAbg/0/garbage.json                        objects that may be removed soon

Keys are relative to the place that an archive's URL names, and their parts are separated by "/". A topic
that was deleted and created again has another topic id, and so another folder: archives of namesakes never
mix. Brokers before 2.8 have no topic ids; theirs is all zeros ("AAAAAAAAAAAAAAAAAAAAAA").

Kafka's own rule for topic names ([a-zA-Z0-9._-], not "." or "..") makes good folder names; other brokers
may allow more, and a store must not be tricked by them. So each part is percent-encoded as UTF-8 where it
is not of [A-Za-z0-9._-], and so is a leading dot (names with one are the stores' own: temporary files,
locks) and the dot of the one topic name that would collide, "cluster.json". The encoding is reversible and
leaves ordinary names alone.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from tierproxy.archive.errors import FormatError

ZERO_TOPIC_ID = bytes(16)
"""The topic id of a topic whose broker knows none."""

CLUSTER_FILE = "cluster.json"
MANIFEST_FILE = "manifest.json"
GARBAGE_FILE = "garbage.json"
SEGMENT_SUFFIX = ".log.zst"
PAGE_FOLDER = "manifest/"
PAGE_SUFFIX = ".json.zst"

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_SEGMENT = re.compile(r"(\d{20})-(\d{20})-([a-z0-9]{1,32})\.log\.zst", re.ASCII)
_PAGE = re.compile(r"manifest/(\d{20})-(\d{20})-([a-z0-9]{1,32})\.json\.zst", re.ASCII)
_TAG = re.compile(r"[a-z0-9]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PartitionId:
    """One partition of one topic, for ever: `topic_id` is Kafka's, 16 bytes, all zeros if there is none."""

    topic: str
    topic_id: bytes
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class SegmentName(NamedTuple):
    """What a segment's file name says: first and last offset (inclusive) and what makes it unique."""

    base_offset: int
    last_offset: int
    tag: str


def topic_id_text(topic_id: bytes) -> str:
    """Kafka's own text for a topic id: base64url without padding, 22 characters (Uuid.toString)."""
    if len(topic_id) != 16:
        raise ValueError(f"a topic id has 16 bytes, not {len(topic_id)}")
    return urlsafe_b64encode(topic_id)[:22].decode("ascii")


def parse_topic_id(text: str) -> bytes:
    """The 16 bytes of a topic id from Kafka's text; FormatError if it is none."""
    try:
        topic_id = urlsafe_b64decode(text.encode("ascii") + b"==")
    except (Base64Error, UnicodeEncodeError):
        topic_id = b""
    if len(topic_id) != 16 or topic_id_text(topic_id) != text:
        raise FormatError(f"{text!r} is no topic id")
    return topic_id


def encode_part(text: str) -> str:
    """One part of a key: `text` itself where that is harmless, percent-encoded where not. Never empty."""
    if not text:
        raise ValueError("a part of a key can't be empty")
    plain = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode())
    if plain.startswith("."):
        plain = "%2E" + plain[1:]
    return "cluster%2Ejson" if plain == CLUSTER_FILE else plain


def decode_part(part: str) -> str:
    """The text that encode_part() made `part` from; FormatError if it made nothing like it."""
    try:
        text = unquote(part, errors="strict")
    except UnicodeDecodeError:
        text = ""
    if not text or encode_part(text) != part:
        raise FormatError(f"{part!r} is no part of a key of ours")
    return text


def cluster_prefix(cluster: str) -> str:
    """Where everything of a cluster lies: "prod/"."""
    return f"{encode_part(cluster)}/"


def cluster_key(cluster: str) -> str:
    """The object that says whose archive this is: "prod/cluster.json"."""
    return f"{encode_part(cluster)}/{CLUSTER_FILE}"


@lru_cache(4096)  # of a cold answer's work it was a tenth
def topic_prefix(cluster: str, topic: str, topic_id: bytes) -> str:
    """Where everything of a topic lies: "prod/flights/7s9mFq3kQ1-wYzVtL2xAbg/"."""
    return f"{encode_part(cluster)}/{encode_part(topic)}/{topic_id_text(topic_id)}/"


def partition_prefix(cluster: str, pid: PartitionId) -> str:
    """Where everything of a partition lies: "prod/flights/7s9mFq3kQ1-wYzVtL2xAbg/0/"."""
    if pid.partition < 0:
        raise ValueError(f"partition {pid.partition} is negative")
    return f"{topic_prefix(cluster, pid.topic, pid.topic_id)}{pid.partition}/"


def manifest_key(cluster: str, pid: PartitionId) -> str:
    """A partition's manifest: "prod/flights/7s9mFq3kQ1-wYzVtL2xAbg/0/manifest.json"."""
    return partition_prefix(cluster, pid) + MANIFEST_FILE


def garbage_key(cluster: str, pid: PartitionId) -> str:
    """What was seen to be garbage, and since when: "prod/flights/7s9mFq3kQ1-wYzVtL2xAbg/0/garbage.json"."""
    return partition_prefix(cluster, pid) + GARBAGE_FILE


def may_be_garbage(name: str) -> bool:
    """Whether an object of that name in a partition's folder is removed when no manifest names it.

    Only what archivers leave behind; never the folder's documents, nor anything that is somebody else's.
    """
    return _SEGMENT.fullmatch(name) is not None or _PAGE.fullmatch(name) is not None


def is_tag(text: str) -> bool:
    """Whether `text` may make a name unique."""
    return _TAG.fullmatch(text) is not None


def segment_name(base_offset: int, last_offset: int, tag: str) -> str:
    """A segment's file name: "00000000000000000000-00000000000000183201-5f1c9a3e.log.zst".

    Offsets are those of the first and last record. `tag` is [a-z0-9]{1,32}, drawn afresh for each upload: two
    archivers that race never write the same object.
    """
    if not 0 <= base_offset <= last_offset:
        raise ValueError(f"no segment goes from offset {base_offset} to {last_offset}")
    if not is_tag(tag):
        raise ValueError(f"{tag!r} is no tag")
    return f"{base_offset:020}-{last_offset:020}-{tag}{SEGMENT_SUFFIX}"


def parse_segment_name(name: str) -> SegmentName:
    """Offsets and tag from a segment's file name; FormatError if it is none."""
    match = _SEGMENT.fullmatch(name)
    if match is None or int(match[1]) > int(match[2]):
        raise FormatError(f"{name!r} is no segment's name")
    return SegmentName(int(match[1]), int(match[2]), match[3])


def segment_key(cluster: str, pid: PartitionId, base_offset: int, last_offset: int, tag: str) -> str:
    """A segment: partition_prefix() and segment_name()."""
    return partition_prefix(cluster, pid) + segment_name(base_offset, last_offset, tag)


def page_name(base_offset: int, last_offset: int, tag: str) -> str:
    """A page's name below the partition's folder; offsets and tag as those of a segment."""
    return PAGE_FOLDER + segment_name(base_offset, last_offset, tag).removesuffix(SEGMENT_SUFFIX) + PAGE_SUFFIX


def parse_page_name(name: str) -> SegmentName:
    """Offsets and tag from a page's name; FormatError if it is none."""
    match = _PAGE.fullmatch(name)
    if match is None or int(match[1]) > int(match[2]):
        raise FormatError(f"{name!r} is no page's name")
    return SegmentName(int(match[1]), int(match[2]), match[3])


def damaged_name(now_ms: int) -> str:
    """Where a damaged manifest is kept when another takes its place: "manifest.json.damaged-1700000000000"."""
    return f"{MANIFEST_FILE}.damaged-{now_ms}"


def parse_key(key: str) -> tuple[str, PartitionId, str]:
    """Cluster, partition and file name of any object in a partition's folder; FormatError for other keys."""
    parts = key.split("/", 4)
    if len(parts) != 5 or not parts[4]:
        raise FormatError(f"{key!r} is not in a partition's folder")
    cluster, topic, topic_id, partition, name = parts
    if not (partition.isascii() and partition.isdecimal() and str(int(partition)) == partition):
        raise FormatError(f"{key!r} is not in a partition's folder: {partition!r} is no partition")
    pid = PartitionId(decode_part(topic), parse_topic_id(topic_id), int(partition))
    return decode_part(cluster), pid, name
