"""From a file to a `Config`, or to all that is wrong with it."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tierproxy.config.fields import FROM_FILE, kind_of
from tierproxy.config.files import take_in_files
from tierproxy.config.model import SASL_SECRET_KEYS, SECRET_KEYS, ClusterConfig, Config
from tierproxy.config.raw import did_you_mean
from tierproxy.config.rules import cross_check
from tierproxy.config.source import PathKeys, Source, parse_source, read_source
from tierproxy.errors import ConfigError


def load_config(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Config:
    """Read, check and freeze a configuration file.

    Raises ConfigError with every fault at once. Relative `*_file` paths are taken from the file's folder.
    `environ` stands in for the process's environment.
    """
    file = Path(path)
    return _finish(read_source(file, os.environ if environ is None else environ), file.parent)


def parse_config(text: str, name: str = "config", environ: Mapping[str, str] | None = None) -> Config:
    """As `load_config`, of text that is already there."""
    return _finish(parse_source(text, name, os.environ if environ is None else environ), Path())


def load_target(target: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> ClusterConfig:
    """The `cluster` section of a file that is about another cluster than ours (a path, or text with line breaks or
    braces); its name may be left out, and whatever else is in the file is nobody's business here.

    Raises ConfigError.
    """
    surroundings = os.environ if environ is None else environ
    if isinstance(target, str):
        source, folder = parse_source(target, "--into", surroundings), Path()
    else:
        file = Path(target)
        source, folder = read_source(file, surroundings), file.parent
    cluster = source.data.get("cluster")
    if isinstance(cluster, Mapping):
        cluster = {"name": "target", **cluster}
    source.data = {"cluster": cluster, "listen": {"advertised_host": "localhost"}}
    return _finish(source, folder).cluster


def _finish(source: Source, folder: Path) -> Config:
    source.faults.extend(source.fault(path, problem) for path, problem in cross_check(source.data))
    take_in_files(source, folder)
    told = {fault.path for fault in source.faults}
    try:
        config = Config.model_validate(source.data, context=FROM_FILE, by_alias=True, by_name=False)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            fault = source.fault(*_in_words(details))
            if fault.path not in told:  # one fault for one value: the rule across keys knows more
                source.faults.append(fault)
    if source.faults:
        ordered = sorted(source.faults, key=lambda fault: (fault.line or 0, fault.path))
        raise ConfigError(source.name, ordered)
    return config


def _in_words(details: ErrorDetails) -> tuple[PathKeys, str]:
    """What pydantic found, as the person who wrote the file would say it."""
    path, kind, value = details["loc"], details["type"], details["input"]
    is_secret = any(part in SECRET_KEYS + SASL_SECRET_KEYS for part in path)
    shown = kind_of(value) if is_secret or not isinstance(value, (str, int, float)) else repr(value)
    context = details.get("ctx", {})
    if kind == "value_error":
        return path, str(context["error"])
    if kind == "missing":
        return path, "is required"
    if kind == "extra_forbidden":
        known = _keys_of(_section_at(path[:-1]))
        return path, f"is not a known key{did_you_mean(str(path[-1]), known)}"
    if kind == "literal_error":
        return path, f"must be {context['expected']}, not {shown}"
    words = {
        "string_type": "must be text (put it in quotes)",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_from_float": "must be a whole number",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "tuple_type": "must be a list",
        "dict_type": "must be a mapping of names",
        "model_type": "must be a mapping (key: value)",
        "path_type": "must be a path",
    }.get(kind, details["msg"].lower())
    return path, f"{words}, not {shown}"


def _section_at(path: PathKeys) -> type[BaseModel] | None:
    """The section that stands at `path`: keys by alias, list indexes and names of mappings passed over."""
    section: type[BaseModel] | None = Config
    names_follow = False
    for key in path:
        if isinstance(key, int) or names_follow:
            names_follow = False
            continue
        if section is None:
            return None
        field = next((info for name, info in section.model_fields.items() if (info.alias or name) == key), None)
        if field is None:
            return None
        names_follow = getattr(field.annotation, "__origin__", None) is dict
        section = next(sections_in(field.annotation), None)
    return section


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field of this type may hold, however wrapped."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections_in(part)


def _keys_of(section: type[BaseModel] | None) -> list[str]:
    if section is None:
        return []
    return [info.alias or name for name, info in section.model_fields.items()]
