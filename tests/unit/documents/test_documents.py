"""README.md and the pages beside it are a promise: what they tell people to write and to type works.

Every block has a language, and every language has its check here, so a block that no check knows fails.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

from tests.clients.tools import TOOLS
from tests.documents import DOCUMENTS, Block, blocks, commands, headings, inline, prose
from tests.documents.sayings import sayings
from tests.documents.settings import complaints, exists, is_path, piece
from tests.documents.shell import OTHERS, complaint, program, targets, typed
from tests.kit import PROJECT
from tests.walk import snippets

BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
README = PROJECT / "README.md"
KAFKA_SCRIPTS = {*TOOLS, "kafka-console-producer", "kafka-dump-log"}
ADDRESS = "tierproxy.example.com:9192"
"""Where the examples' clients connect."""


def shell(block: Block) -> None:
    for line in commands(block):
        for words in typed(line):
            check_command(words)


def check_command(words: list[str]) -> None:
    name = program(words)
    if name == "tierproxy":
        assert complaint(words[1:]) is None, " ".join(words)
    elif name == "make":
        asked = [word for word in words[1:] if "=" not in word]
        assert set(asked) <= targets(), " ".join(words)
    else:
        assert name in OTHERS | KAFKA_SCRIPTS, f"nobody checks what {name} does"
        if name in ("helm", "podman"):
            ours = [word for word in words if word.startswith("helm/") or word == "Containerfile"]
            assert all((PROJECT / word).exists() for word in ours), " ".join(words)


def configuration(block: Block) -> None:
    """Tierproxy's own, whole or a piece, unless a comment before it says that it is for something else."""
    if block.note.startswith("for "):
        assert list(yaml.safe_load_all(block.text))
    else:
        assert complaints(block.text) == []


def data(block: Block) -> None:
    json.loads(block.text)


def picture(block: Block) -> None:
    """No language: a drawing or a calculation, so nothing that could be typed."""
    for line in block.text.splitlines():
        assert line.split()[:1] not in (["tierproxy"], ["make"], ["$"]), f"{line!r} wants ```sh"


SPARK = {"kafka.bootstrap.servers", "subscribe", "startingOffsets"}
FLINK = {"setBootstrapServers", "setTopics", "setStartingOffsets", "setValueOnlyDeserializer", "build"}
"""What Spark's and Flink's pages on Kafka name; neither is here to be asked."""


def python(block: Block) -> None:
    """Those that the walk runs (`walk: consume`) need no more than that they compile; Spark isn't here."""
    code = compile(block.text, str(block), "exec")
    assert ADDRESS in block.text
    if block.note != "walk: consume":
        spark = Spark()
        exec(code, {"spark": spark})
        assert spark.options.keys() == SPARK
        assert (spark.kind, spark.loaded) == ("kafka", True)


class Spark:
    """Stands for a session, its stream reader, and what that returns."""

    def __init__(self) -> None:
        self.readStream = self
        self.kind, self.loaded = "", False
        self.options: dict[str, str] = {}

    def format(self, kind: str) -> "Spark":
        self.kind = kind
        return self

    def option(self, name: str, value: str) -> "Spark":
        self.options[name] = value
        return self

    def load(self) -> "Spark":
        self.loaded = True
        return self


def go(block: Block) -> None:
    assert f'"{ADDRESS}"' in block.text
    assert block.note == "walk: consume", "only the walk can tell whether it builds"


def java(block: Block) -> None:
    assert f'setBootstrapServers("{ADDRESS}")' in block.text
    assert set(re.findall(r"^    \.(\w+)\(", block.text, re.MULTILINE)) == FLINK


def properties(block: Block) -> None:
    """Names that Kafka knows: a consumer's, perhaps behind what Connect and MirrorMaker put before them."""
    pairs = snippets.properties(block.text)
    own = {key.removeprefix("consumer.override.").removeprefix("source.") for key in pairs}
    assert own <= {"bootstrap.servers", "auto.offset.reset"}
    assert ADDRESS in pairs.values()


CHECKS: dict[str, Callable[[Block], None]] = {
    "sh": shell,
    "yaml": configuration,
    "json": data,
    "": picture,
    "python": python,
    "go": go,
    "java": java,
    "properties": properties,
}


def check(block: Block) -> None:
    assert block.language in CHECKS, f"{block}: no check knows ```{block.language}"
    CHECKS[block.language](block)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_right(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERPROXY_CONFIG", "config.yaml")
    check(block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_stands_between_backticks_is_right(document: Path) -> None:
    for text in inline(document):
        if text.split()[0] in ("tierproxy", "make") and " " in text:
            words = typed(text.split("…")[0])[0]
            if words[0] == "tierproxy":
                assert complaint([*words[1:], "--help"]) is None, text
            else:
                check_command(words)
        elif (configured := piece(text)) is not None:
            assert complaints(configured) == [], text
        elif is_path(text):
            assert exists(text), f"there is no key {text}"
        elif re.fullmatch(r"(docs|protocol|tests|tierproxy)/[\w./-]+", text):
            assert (PROJECT / text).exists(), text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_metrics_it_names_exist(document: Path) -> None:
    known = {name for metric in REGISTRY.collect() for name in (metric.name, f"{metric.name}_total")}
    named = {text for text in inline(document) if re.fullmatch(r"tierproxy_\w+", text)}
    assert named <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_it_links_to_exists(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document).replace("\n", " ")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        where = (document.parent / file).resolve() if file else document
        assert where.is_relative_to(PROJECT), target
        assert where.exists(), target
        assert not anchor or anchor in headings(where), target


def test_the_log_lines_it_explains_are_ours() -> None:
    """In the table of symptoms, what is quoted with `…` must be what the code says, with `…` for what is put in."""
    table = README.read_text().split("## When something is wrong")[1].split("\n## ")[0]
    symptoms = " ".join(re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE))
    lines = [text for text in re.findall(r"`([^`]+)`", symptoms) if "…" in text or "?" in text]
    assert len(lines) > 12
    for line in lines:
        assert any(line.strip("… ") in said for said in sayings()), f"tierproxy never says {line!r}"


def test_comments_before_blocks_are_understood() -> None:
    """`walk …` (see tests/walk), or `for Kubernetes`, `for Prometheus` and the like before YAML that is not ours."""
    for block in BLOCKS:
        assert re.fullmatch(r"|walk(: .+)?|for [A-Z]\w+.*", block.note), block


def test_no_block_is_overlooked() -> None:
    fences = sum(document.read_text().count("```") for document in DOCUMENTS)
    assert fences == 2 * len(BLOCKS)


def test_a_wrong_line_is_found() -> None:
    assert complaint(["archive", "ls", "--fast", "--config", "c"]) == "No such option '--fast'."
    assert complaint(["archive", "sl", "--config", "c"]) == "No such command 'sl'."
    assert complaint(["archive", "export", "t", "--output", "o", "--format", "csv", "--config", "c"]) is not None
    assert complaints("limits: {conections: 1}") != []
    assert piece("trim: never") is not None
    assert is_path("limits.conections")
    assert not exists("limits.conections")
    assert exists("topics[].segment.age")
    with pytest.raises(AssertionError, match="nobody checks what sudo does"):
        check_command(["sudo", "rm", "x"])


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("rust", "fn main() {}\n"),
        ("sh", "tierproxy serv --config c\n"),
        ("sh", "make everything\n"),
        ("sh", "kafka-topic.sh --list\n"),
        ("", "$ make demo\n"),
        ("yaml", "topics: [{match: a, archive: nowhere}]\n"),
        ("python", "from kafka import\n"),
        ("python", f"spark.readStream.format('kafka').option('kafka.bootstrap', '{ADDRESS}').load()\n"),
        ("go", f'kgo.SeedBrokers("{ADDRESS}")\n'),
        ("java", f'KafkaSource.builder().setBootstrap("{ADDRESS}")\n'),
        ("properties", f"bootstrap.server={ADDRESS}\n"),
        ("json", "{a: 1}\n"),
    ],
)
def test_a_wrong_block_is_found(language: str, text: str) -> None:
    with pytest.raises((AssertionError, SyntaxError, ValueError)):
        check(Block(README, 1, language, text))


def test_there_is_something_to_test() -> None:
    assert {block.language for block in BLOCKS} >= {"sh", "yaml"}
    assert len(BLOCKS) > 10
