"""What happens to a topic: policies, and the defaults that they inherit from.

A policy inherits every key that it does not write itself. `segment` has two settings, which are inherited singly. A
`keep_…` is one statement and is taken whole: who writes `keep_in_archive: {time: 365d}` must not lose records to a
limit in bytes that stands elsewhere.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr

from tierproxy.config.fields import (
    ArchiveName,
    ByteRate,
    DurationMs,
    SizeBytes,
    StorageClass,
    TopicPattern,
    ZstdLevel,
    duration_within,
    size_within,
)
from tierproxy.config.patterns import takes
from tierproxy.config.section import Section


class Keep(Section):
    """How much stays in a place; whichever limit is reached first. None = no limit."""

    time_ms: Annotated[DurationMs | None, Field(alias="time")] = None
    """Counted from a segment's newest record, or from when it was archived if that was earlier."""
    bytes: SizeBytes | None = None
    """Bytes of log per partition, before compression."""


class SegmentPolicy(Section):
    """When a segment is closed and stored; whichever is reached first."""

    bytes: Annotated[SizeBytes, size_within(1024, 5 * 2**30)] = 128 * 2**20
    """Plain bytes of log, before compression."""
    age_ms: Annotated[DurationMs, Field(alias="age"), duration_within(10, 7 * 86_400_000)] = 600_000
    """Counted from the first batch in it: how far the archive may be behind a quiet topic."""


def _forever(value: object) -> object:
    if value == "forever":
        return Keep()
    if not isinstance(value, Keep | Mapping) or not value:
        raise ValueError("must be forever, or limits as in {time: 365d, bytes: 1TiB}")
    return value


KeepOrForever = Annotated[Keep, BeforeValidator(_forever, json_schema_input_type=Literal["forever"] | Keep)]


class PolicyDefaults(Section):
    """What policies say of their topics, and what those that don't say it inherit."""

    archive: ArchiveName = None
    """The name of an archive; None (written `none`) = just proxied. Each policy writes it, or `defaults` does."""
    keep_on_broker: KeepOrForever = Keep()
    """What stays on the brokers once it is archived; no limit is written `forever`."""
    storage_class: StorageClass | None = None
    """Of these topics' segments, instead of the archive's; S3 only."""
    keep_in_archive: KeepOrForever = Keep()
    """What older segments expire by, once the brokers have let them go; no limit is written `forever`."""
    segment: SegmentPolicy = SegmentPolicy()
    """When records are stored."""
    compression: ZstdLevel = 3
    """A zstd level, written `zstd-3`."""
    recompress: bool = False
    """Whether batches that producers have compressed are compressed once more. That makes those of lz4 and snappy about
    a fifth smaller, those of gzip and zstd not, and reading them back takes two to three times the CPU."""
    trim: Literal["delete-records", "never"] = "delete-records"
    """`never`: the brokers' own retention deletes, tierproxy only copies."""
    on_gap: Literal["skip", "halt"] = "skip"
    """What a reader meets where data was lost before it was archived: the next record, or a retriable
    error until an operator accepts the hole."""
    cold_read_rate: ByteRate = None
    """Most archived bytes of these topics that all clients together are sent in a second; None (`none`) = no limit."""


class TopicPolicy(PolicyDefaults):
    """What happens to the topics that `match` names. The first policy that matches a topic is the one."""

    match: TopicPattern
    """A topic, or a pattern with `*` and `?`, or a regular expression between slashes. Internal topics are matched by
    their exact name only."""
    _inherited: frozenset[str] = PrivateAttr(frozenset())

    def takes(self, topic: str, internal: bool) -> bool:
        """Whether `match` names this topic; `internal` is what the broker's Metadata says of it."""
        return self.match == topic or (not internal and takes(self.match, topic))

    def inheriting(self, defaults: PolicyDefaults) -> Self:
        """The same, completed from `defaults`."""
        taken: dict[str, object] = {
            name: getattr(defaults, name) for name in defaults.model_fields_set - self.model_fields_set
        }
        inherited = set(taken) - {"segment"}
        if "segment" in defaults.model_fields_set:
            singly = defaults.segment.model_fields_set - self.segment.model_fields_set
            from_defaults = {name: getattr(defaults.segment, name) for name in singly}
            taken["segment"] = self.segment.model_copy(update=from_defaults)
            inherited |= {f"segment.{name.removesuffix('_ms')}" for name in singly}
        complete = self.model_copy(update=taken)
        complete._inherited = frozenset(inherited)
        return complete

    def origin(self, key: str) -> Literal["policy", "defaults", "built in"]:
        """Who says what `key` is (`archive`, `segment.age`)."""
        if key in self._inherited:
            return "defaults"
        section, _, name = key.partition(".")
        written = self.model_fields_set
        if section == "segment":
            return "policy" if {name, f"{name}_ms"} & self.segment.model_fields_set else "built in"
        return "policy" if section in written else "built in"
