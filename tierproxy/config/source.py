"""A YAML file as plain values, with the line of each key and every fault of the text itself.

PyYAML's own constructor lets the second of two equal keys win in silence and forgets where things stood,
so the node tree is walked here instead. Two conventions of ours: a key with an empty value counts as not
written (people comment out children and leave the parent), and `${NAME}` in any value is replaced from the
environment after parsing, so that what it holds can't be read as YAML.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tierproxy.errors import ConfigError, Fault

PathKeys = tuple[str | int, ...]
"""Where a value stands: keys of mappings and indexes of lists."""

_VARIABLE: Final = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_VARIABLE_NAME: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def path_text(path: PathKeys) -> str:
    """`("topics", 2, "match")` → `topics[2].match`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += f".{key}" if text else key
    return text


@dataclass
class Source:
    """What was read: `data` is as complete as the faults allow."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[PathKeys, int] = field(default_factory=dict)
    """Line (from 1) of each key and list item."""
    substituted: dict[str, str] = field(default_factory=dict)
    """Values that came from the environment → what the file says, so that no message shows them."""
    faults: list[Fault] = field(default_factory=list)

    def fault(self, path: PathKeys, problem: str) -> Fault:
        """A fault at `path`, with the nearest line that is known, and without what the environment held."""
        for value, written in self.substituted.items():
            problem = problem.replace(repr(value), repr(written))
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return Fault(path_text(path), problem, self.lines.get(known))


def read_source(path: Path, environ: Mapping[str, str]) -> Source:
    """Read and parse. Raises ConfigError where nothing more can be said: no such file, broken YAML."""
    name = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        hint = "; start from config.example.yaml" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(name, [Fault("", f"can't be read: {error.strerror or error}{hint}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(name, [Fault("", f"is not UTF-8 text (byte {error.start})")]) from None
    return parse_source(text, name, environ)


def parse_source(text: str, name: str, environ: Mapping[str, str]) -> Source:
    """As `read_source`, of text that is already there. `name` is what messages call it."""
    source = Source(name)
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                raise ConfigError(name, [Fault("", "is empty; start from config.example.yaml")])
            if not isinstance(root, yaml.MappingNode):
                raise ConfigError(name, [Fault("", "must be a mapping at the top: cluster:, listen:, …", 1)])
            source.data = _Walk(loader, source, environ).value(root, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(name, [_syntax_fault(error)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            name, [Fault("", f"is not valid YAML: character #x{error.character:02x} is not allowed", line)]
        ) from None
    return source


def _syntax_fault(error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "it can't be parsed"
    if "\\t" in problem:
        problem += "; indent with spaces, not tabs"
    elif "mapping values are not allowed" in problem:
        problem += "; is there a ': ' inside a value that needs quotes, or wrong indentation above?"
    where = f" (column {mark.column + 1})" if mark else ""
    return Fault("", f"is not valid YAML: {problem}{where}", mark.line + 1 if mark else None)


class _Walk:
    """Turns nodes into values; one for each file."""

    def __init__(self, loader: yaml.SafeLoader, source: Source, environ: Mapping[str, str]) -> None:
        self._loader = loader
        self._source = source
        self._environ = environ
        self._open: list[yaml.Node] = []
        self._flattened: set[int] = set()

    def value(self, node: yaml.Node, path: PathKeys) -> Any:
        self._source.lines.setdefault(path, node.start_mark.line + 1)
        if node in self._open:
            self._source.faults.append(self._source.fault(path, "refers to itself"))
            return None
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: PathKeys) -> dict[str, Any]:
        if id(node) not in self._flattened:  # an alias brings the same node again
            self._flattened.add(id(node))
            self._tell_duplicates(node, path)
            self._loader.flatten_mapping(node)  # resolves `<<`; merged keys come first, so own ones win
        result = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                shown = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "this key"
                fault = Fault(path_text(path), f"{shown!r} is not a name here; put it in quotes", line)
                self._source.faults.append(fault)
                continue
            self._source.lines[(*path, key_node.value)] = line
            value = self.value(value_node, (*path, key_node.value))
            if value is not None:
                result[key_node.value] = value
            else:
                result.pop(key_node.value, None)
        return result

    def _tell_duplicates(self, node: yaml.MappingNode, path: PathKeys) -> None:
        first: dict[str, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in first:
                where = path_text((*path, key_node.value))
                problem = f"is written twice, first in line {first[key_node.value]}"
                self._source.faults.append(Fault(where, problem, line))
            first.setdefault(key_node.value, line)

    def _scalar(self, node: yaml.Node, path: PathKeys) -> Any:
        try:
            value = self._loader.construct_object(node, deep=True)
        except ValueError as error:  # a date such as 2024-13-45
            self._source.faults.append(self._source.fault(path, f"can't be read: {error}"))
            return None
        return self._substitute(value, path) if isinstance(value, str) and "${" in value else value

    def _substitute(self, text: str, path: PathKeys) -> str | None:
        def replace(match: re.Match[str]) -> str:
            if match.group(1) is None:
                return "${"
            name = _VARIABLE_NAME.fullmatch(match.group(1))
            if name is None:
                self._tell(path, f"{match.group(0)!r} is not a variable; write ${{NAME}} (or $${{ for a plain ${{)")
                return ""
            value = self._environ.get(name.group(1))
            if value is None:
                value = name.group(2)
            if value is None:
                self._tell(path, f"the environment variable {name.group(1)} is not set")
                return match.group(0)
            return value

        result = _VARIABLE.sub(replace, text)
        if not result and text.endswith(":-}"):
            return None  # `${NAME:-}` says: leave it out when NAME is not set
        if result != text and result:
            self._source.substituted[result] = text
        return result

    def _tell(self, path: PathKeys, problem: str) -> None:
        self._source.faults.append(self._source.fault(path, problem))
