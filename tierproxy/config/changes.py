"""What differs between two configurations, key by key, in the words of the file; and what of it needs a restart. Pure.

Policies are told apart by their `match`: one that is put before the others does not change them all. A key that both
have from `defaults` is said there, once. No secret is shown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, get_args, get_origin

from pydantic import SecretStr, WithJsonSchema
from pydantic.fields import FieldInfo

from tierproxy.config.fields import RATE_PATTERN
from tierproxy.config.model import Config
from tierproxy.config.policies import Keep, TopicPolicy
from tierproxy.config.section import Section
from tierproxy.config.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration_ms,
    parse_size,
)

FOLLOWED = (
    "defaults",
    "topics",
    "prices",
    "archives.*.prices",
    "limits.cold_read_rate",
    "limits.cold_clients",
    "archiver.read_rate",
    "archiver.write_rate",
    "archiver.upkeep_interval",
    "archiver.merge",
    "archiver.merge_after",
    "archiver.garbage",
    "log.level",
)
"""What may change while we run, with all that is below it. Everything else needs a restart."""

NOTHING = "(nothing)"


@dataclass(frozen=True, slots=True)
class Change:
    """One key that has another value: `path` as in the file, values as a person would write them."""

    path: str
    before: str
    after: str

    @property
    def needs_restart(self) -> bool:
        return not any(fnmatchcase(self.path, f"{each}{end}") for each in FOLLOWED for end in ("", ".*", "[[]*"))

    def __str__(self) -> str:
        return f"{self.path}: {self.before} → {self.after}"


def changes(old: Config, new: Config) -> list[Change]:
    """All of them, in the order of the file's sections."""
    found = [*_sections("", old, new)]
    found += _policies(old.topics, new.topics)
    return found


def text_of(section: type[Section], name: str, value: object) -> str:
    """A field's value as it is written in the file; no secret."""
    return _text(section.model_fields[name], value)


def _sections(at: str, old: Section, new: Section) -> Iterator[Change]:
    for name, info in type(old).model_fields.items():
        if isinstance(old, Config) and name == "topics":
            continue
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield from _values(f"{at}{info.alias or name}", info, before, after)


def _values(path: str, info: FieldInfo, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, Section) and type(before) is type(after) and not isinstance(before, Keep):
        yield from _sections(f"{path}.", before, after)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            if before.get(key) != after.get(key):
                below = f"{path}[{key}]" if "." in key else f"{path}.{key}"  # or it could pass for a key of its own
                yield from _values(below, info, before.get(key), after.get(key))
    elif isinstance(before, tuple) and isinstance(after, tuple) and _holds_sections(before + after):
        for index in range(max(len(before), len(after))):
            one, two = (each[index] if index < len(each) else None for each in (before, after))
            if one != two:
                yield from _values(f"{path}[{index}]", info, one, two)
    else:
        one, two = _text(info, before), _text(info, after)
        if one == two:
            two = "(another one)"
        yield Change(path, one, two)


def _policies(old: tuple[TopicPolicy, ...], new: tuple[TopicPolicy, ...]) -> Iterator[Change]:
    before, after = ({policy.match: policy for policy in each} for each in (old, new))
    for match in dict.fromkeys([*before, *after]):
        one, two, path = before.get(match), after.get(match), f"topics[{match}]"
        if one is None or two is None:
            yield Change(path, *(NOTHING if each is None else _written(each) for each in (one, two)))
        else:
            for change in _sections(f"{path}.", one, two):
                key = change.path.removeprefix(f"{path}.")
                if not one.origin(key) == two.origin(key) == "defaults":
                    yield change
    kept = [[match for match in each if match in before and match in after] for each in (before, after)]
    if kept[0] != kept[1]:
        yield Change("topics", *(f"in the order {', '.join(each)}" for each in kept))


def _holds_sections(values: tuple[Any, ...]) -> bool:
    return any(isinstance(each, Section) for each in values)


def _text(info: FieldInfo, value: Any) -> str:
    if isinstance(value, Keep) and value == Keep():
        return "forever"
    if isinstance(value, Section):
        return _written(value)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"[{', '.join(_text(info, each) for each in value)}]"
    if value is None:
        return "none"
    if isinstance(value, SecretStr):
        return "(secret)"
    if isinstance(value, bool):
        return str(value).lower()
    return _with_unit(info, value) if isinstance(value, int) else str(value)


def _written(section: Section) -> str:
    """All that is not the default."""
    parts = [
        f"{info.alias or name}: {_text(info, value)}"
        for name, info in type(section).model_fields.items()
        if (value := getattr(section, name)) != info.get_default(call_default_factory=True)
    ]
    return f"{{{', '.join(parts)}}}"


def _with_unit(info: FieldInfo, value: int) -> str:
    pattern = next(_patterns(info.annotation, info.metadata), "")
    if pattern == DURATION_PATTERN:
        text = format_duration(value)
        return text if parse_duration_ms(text) == value else f"{value}ms"
    if pattern in (SIZE_PATTERN, RATE_PATTERN):
        text = format_size(value).replace(" ", "")
        text = text if parse_size(text) == value else f"{value}B"
        return f"{text}/s" if pattern == RATE_PATTERN else text
    return f"zstd-{value}" if pattern.startswith("^zstd") else str(value)


def _patterns(annotation: Any, metadata: list[Any]) -> Iterator[str]:
    """The patterns of what is written there, however the type is wrapped: they tell the unit."""
    for each in metadata:
        if isinstance(each, WithJsonSchema) and each.json_schema is not None:
            yield str(each.json_schema.get("pattern", ""))
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        yield from _patterns(inner, more)
    else:
        for each in get_args(annotation):
            yield from _patterns(each, [])
