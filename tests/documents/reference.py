"""docs/config.md and docs/cli.md, made of the configuration's model and of the commands themselves.

`python -m tests.documents.reference` writes them (`make reference` all pages that are made); a unit test fails while
they are other than they would be.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from tests.kit import PROJECT
from tierproxy.cli import common, main
from tierproxy.config import Config, json_schema
from tierproxy.config.fields import RATE_PATTERN, Within
from tierproxy.config.load import sections_in
from tierproxy.config.units import DURATION_PATTERN, DURATION_UNITS_MS, SIZE_PATTERN, SIZE_UNITS

MADE = "<!-- made by `make reference`: change what it is made of, not this -->\n"

_CONFIG = f"""\
# Every key of the configuration

{MADE}
[config.example.yaml](../config.example.yaml) is a file to start from, [policies.md](policies.md) says more about
`topics`; `tierproxy check` says what is wrong with yours, and `tierproxy schema` prints this page as a JSON schema for
editors.

- A **size** is a number with a unit: {", ".join(SIZE_UNITS)} (KB in thousands, KiB in 1024s).
- A **duration** is a number with a unit: {", ".join(DURATION_UNITS_MS)}; parts may follow each other: `1h30m`.
- A **rate** is a size a second: `50MiB/s`, or `none`.
- `${{NAME}}` in any value is taken from the environment, `${{NAME:-x}}` is x where NAME is not set. The newline at the
  end of a file that holds a secret is not part of it. Paths of such files and of certificates are relative to this one.
- A default of — means that nothing is there unless you write it. A key that doesn't exist is a fault, so is a key
  written twice.
"""
_CLI = f"""\
# Every command

{MADE}
A command ends with status 0 when all is well, with {common.WRONG} when something is not, and with {common.BAD_CONFIG} \
when it was asked wrongly: a bad
option, or a bad configuration file. What is wrong stands on standard error, in one sentence.
"""


def config_page() -> str:
    """docs/config.md."""
    definitions: Mapping[str, Any] = {**json_schema()["$defs"], "Config": json_schema()}
    return _CONFIG + "".join(_section(Config, "", definitions))


def _section(section: type[BaseModel], path: str, definitions: Mapping[str, Any]) -> Iterator[str]:
    """A heading, a sentence and a table, then the same for the sections in it."""
    about_it = f"{_wrapped(_plain(section.__doc__ or ''))}\n\n" if path else ""
    yield f"\n## {path or 'The file'}\n\n{about_it}"
    yield "| key | value | default | |\n|---|---|---|---|\n"
    about = definitions[section.__name__]
    inner: list[tuple[type[BaseModel], str]] = []
    for name, info in section.model_fields.items():
        key = info.alias or name
        schema = about["properties"][key]
        below = [(each, _path(path, key, schema)) for each in sections_in(info.annotation)]
        inner += below
        value = f"[section](#{_anchor(below[0][1])})" if below else _value(schema, info)
        if "forever" in str(schema):
            value = f"`forever`, or {value}"
        default = "**required**" if info.is_required() else _default(schema)
        yield f"| `{key}` | {value} | {default} | {_plain(info.description or '')} |\n"
    for each, where in inner:
        yield from _section(each, where, definitions)


def _path(path: str, key: str, schema: Mapping[str, Any]) -> str:
    many = "[]" if "items" in schema else ".NAME" if "additionalProperties" in schema else ""
    return f"{path}.{key}{many}".lstrip(".")


def _anchor(path: str) -> str:
    return re.sub(r"[^\w\- ]", "", path.lower()).replace(" ", "-")


def _value(schema: Mapping[str, Any], info: FieldInfo) -> str:
    """What may be written there."""
    choices = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    words = " or ".join(_kind(each) for each in choices)
    bounds = [each.func for each in info.metadata if isinstance(each, AfterValidator) and isinstance(each.func, Within)]
    return f"{words}, between {bounds[0]}" if bounds else words


def _kind(schema: Mapping[str, Any]) -> str:
    pattern = schema.get("pattern", "")
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if schema.get("type") == "integer":
        top = schema.get("maximum")
        return "port" if top == 65535 else "number" + (f" from {schema['minimum']} to {top}," if top else "")
    if pattern.startswith("^zstd"):
        return "`zstd-1` … `zstd-19`"
    by_pattern = {SIZE_PATTERN: "size", DURATION_PATTERN: "duration", RATE_PATTERN: "rate"}
    by_format = {"path": "path", "password": "secret"}
    by_type = {"boolean": "`true`, `false`", "string": "text", "number": "number"}
    word = by_pattern.get(pattern) or by_format.get(schema.get("format", "")) or by_type[schema["type"]]
    examples = schema.get("examples", []) if word == "text" else []
    return word + "".join(f", such as `{each}`" for each in examples)


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    if default in (None, [], {}):
        return "`none`" if schema.get("pattern") == RATE_PATTERN else "—"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def cli_page() -> str:
    """docs/cli.md."""
    return _CLI + "".join(_command(main, "tierproxy", click.Context(main)))


def _command(command: click.Command, name: str, context: click.Context) -> Iterator[str]:
    yield f"\n## {name}\n\n{_paragraphs(command.help or '')}\n"
    if isinstance(command, click.Group):
        shown = command.list_commands(context)
        yield "\n" + _wrapped(", ".join(f"[{each}](#{_anchor(f'{name} {each}')})" for each in shown)) + "\n"
    else:
        yield f"\n`{name} {' '.join(command.collect_usage_pieces(context))}`\n"
    options = [each for each in command.params if isinstance(each, click.Option) and not each.is_eager]
    if options:
        yield "\n| option | |\n|---|---|\n"
        yield from map(_option, options)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            assert inner is not None
            yield from _command(inner, f"{name} {each}", click.Context(inner, parent=context))


def _option(option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.metavar or _choices(option.type)}"
    notes = ["required"] if option.required else []
    if option.show_default and option.default is not None:
        notes.append(f"default: `{option.default}`")
    text = " ".join([_text(option.help or ""), *(f"({note})" for note in notes)])
    return f"| `{', '.join(option.opts)}{value.replace('|', ' or ')}` | {text} |\n"


def _choices(kind: object) -> str:
    return " or ".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else "NUMBER"


def _paragraphs(text: str) -> str:
    return "\n\n".join(map(_wrapped, inspect.cleandoc(text).split("\n\n")))


def _plain(docstring: str) -> str:
    """A docstring's words with YAML's values in the place of Python's."""
    text = re.sub(r"\bNone \((?:written )?`none`\)", "`none`", _text(docstring))
    text = re.sub(r"\bNone = ", "not given: ", text)
    return re.sub(r"\b(True|False):", lambda found: f"`{found[1].lower()}`:", text)


def _text(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def _wrapped(text: str) -> str:
    return textwrap.fill(_text(text), 120, break_long_words=False, break_on_hyphens=False)


PAGES: Mapping[str, Callable[[], str]] = {"config.md": config_page, "cli.md": cli_page}


if __name__ == "__main__":
    for file, page in PAGES.items():
        (PROJECT / "docs" / file).write_text(page())
