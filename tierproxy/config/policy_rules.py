"""Rules for policies: what their keys mean for each other, for `archives`, `defaults` and the policies before them."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tierproxy.config.patterns import covers, is_name, topic_pattern
from tierproxy.config.raw import Problem, did_you_mean, is_directory, mapping
from tierproxy.config.units import format_duration, format_size

if TYPE_CHECKING:
    from tierproxy.config.model import Config

_ARCHIVE_ONLY_KEYS = (
    "keep_on_broker",
    "keep_in_archive",
    "storage_class",
    "segment",
    "compression",
    "recompress",
    "trim",
    "on_gap",
    "cold_read_rate",
)


def policy_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Every broken rule of `defaults` and `topics` in the raw `data`."""
    archives, defaults, topics = mapping(data, "archives"), mapping(data, "defaults"), data.get("topics")
    by_default = defaults.get("archive")
    if isinstance(by_default, str) and by_default != "none" and by_default not in archives:
        yield ("defaults", "archive"), _not_defined(by_default, archives)
    if not isinstance(topics, list):
        return
    before: list[tuple[int, str]] = []
    for index, policy in enumerate(topics):
        if not isinstance(policy, Mapping):
            continue
        path = ("topics", index)
        archive = policy.get("archive", by_default)
        if archive is None:
            yield (*path, "archive"), "is required, here or under defaults: the name of an archive, or none"
        elif archive == "none":
            for key in _ARCHIVE_ONLY_KEYS:
                if key in policy:
                    yield (*path, key), "has no effect: 'archive: none' topics are just proxied"
        elif isinstance(archive, str) and archive not in archives:
            if "archive" in policy:  # else it was said of the defaults
                yield (*path, "archive"), _not_defined(archive, archives)
        elif isinstance(archive, str) and "storage_class" in policy and is_directory(archives[archive]):
            yield (*path, "storage_class"), f"means nothing for {archive!r}, which is a file:// archive"
        match = policy.get("match")
        if not isinstance(match, str) or not _can_match(match):
            continue
        for earlier_index, earlier in before:
            if covers(earlier, match) and not _internal(match, earlier):
                yield (
                    (*path, "match"),
                    f"{match!r} can never match: topics[{earlier_index}] {earlier!r} takes its topics first",
                )
                break
        before.append((index, match))


def policy_warnings(config: "Config") -> Iterator[Problem]:
    """What is allowed but hardly meant."""
    used = {policy.archive for policy in config.topics}
    for name in config.archives:
        if name not in used:
            yield ("archives", name), "is defined, but no policy under topics uses it"
    if not used - {None}:
        yield ("topics",), "no policy names an archive: nothing will be archived, only proxied"
    if config.defaults.model_fields_set and not config.topics:
        yield ("defaults",), "has no effect: there is no policy under topics that could inherit it"
    for index, policy in enumerate(config.topics):
        keep, archived = policy.keep_on_broker, policy.keep_in_archive
        if policy.archive is None:
            continue
        limited = keep.time_ms is not None or keep.bytes is not None
        if policy.trim == "never" and limited and policy.origin("keep_on_broker") == "policy":
            yield ("topics", index, "keep_on_broker"), "has no effect with 'trim: never'"
        for key, least, most, words in (
            ("time", archived.time_ms, keep.time_ms, format_duration),
            ("bytes", archived.bytes, keep.bytes, format_size),
        ):
            if least is not None and most is not None and least < most:
                yield (
                    ("topics", index, "keep_in_archive", key),
                    f"is less than keep_on_broker ({words(least)}, {words(most)}): nothing expires in the archive "
                    "before the brokers have let it go",
                )


def _can_match(match: str) -> bool:
    try:
        topic_pattern(match)
    except ValueError:
        return False
    return True


def _not_defined(name: str, archives: Mapping[str, Any]) -> str:
    if not archives:
        return f"{name!r} is not defined: no archives are"
    return f"{name!r} is not defined under archives{did_you_mean(name, list(archives))}"


def _internal(match: str, earlier: str) -> bool:
    """No pattern takes Kafka's internal topics, which only an exact name matches."""
    return match.startswith("__") and is_name(match) and match != earlier
