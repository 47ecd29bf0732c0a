import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from tierproxy.telemetry import OncePerChange, Seldom, setup_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("tierproxy")
    handlers, levels = list(root.handlers), (root.level, own.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def count(name: str, part: str) -> float:
    return REGISTRY.get_sample_value(name, {"part": part}) or 0.0


def test_a_condition_is_said_once_when_it_begins_and_once_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trouble = OncePerChange(logging.getLogger("tierproxy.onceperchange"))
    with caplog.at_level(logging.INFO, "tierproxy"):
        said = [
            trouble.ended("a", "a is back"),
            trouble.began("a", "a is gone"),
            trouble.began("a", "a is gone, again"),
            trouble.began("b", "b is gone", logging.ERROR),
            trouble.ended("a", "a is back"),
            trouble.ended("a", "a is back"),
            trouble.began("a", "a is gone once more"),
        ]
    assert said == [False, True, False, True, True, False, True]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "a is gone"),
        ("ERROR", "b is gone"),
        ("INFO", "a is back"),
        ("WARNING", "a is gone once more"),
    ]
    assert count("tierproxy_troubles_total", "onceperchange") == 3
    assert count("tierproxy_troubles_open", "onceperchange") == 2


def test_conditions_of_what_is_gone_end_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    trouble = OncePerChange(logging.getLogger("tierproxy.forgets"))
    for key in ("a copy", "a trim", "ab copy"):
        trouble.began(key, "?")
    with caplog.at_level(logging.DEBUG, "tierproxy"):
        trouble.forget("a ")
        trouble.forget("c ")
    assert caplog.messages == ["?", "?", "?"]
    assert count("tierproxy_troubles_open", "forgets") == 1
    assert trouble.began("a copy", "again")
    assert not trouble.began("ab copy", "still")


def test_a_text_line_stays_one_line() -> None:
    stream = io.StringIO()
    setup_logging("info", "text", stream)
    logging.getLogger("tierproxy.listener").warning("client id %s", "x\nERROR fake\x1b[2J")
    (line,) = stream.getvalue().splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING listener: client id x\\nERROR fake\\x1b\[2J", line
    )


def test_a_json_line_is_json() -> None:
    stream = io.StringIO()
    setup_logging("debug", "json", stream)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("tierproxy.app").exception("line one\nline two")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == (
        "error",
        "tierproxy.app",
        "line one\nline two",
    )
    assert "ValueError: boom" in entry["exception"]


def test_of_several_processes_each_says_its_name() -> None:
    stream = io.StringIO()
    for format in ("text", "json"):
        setup_logging("info", format, stream, process="gateway-1")
        logging.getLogger("tierproxy.listener").info("open")
    text, line = stream.getvalue().splitlines()
    assert text.endswith(" INFO    gateway-1 listener: open")
    assert json.loads(line)["process"] == "gateway-1"


def test_level_is_for_our_own_lines_only() -> None:
    stream = io.StringIO()
    setup_logging("debug", "text", stream)
    setup_logging("info", "text", stream)
    logging.getLogger("tierproxy.a").debug("ours, too fine")
    logging.getLogger("tierproxy.a").info("ours")
    logging.getLogger("botocore.auth").info("credentials!")
    logging.getLogger("botocore.auth").warning("theirs")
    assert [line.split(": ")[1] for line in stream.getvalue().splitlines()] == ["ours", "theirs"]


def test_what_strangers_can_cause_is_said_seldom_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    seldom = Seldom(logging.getLogger("tierproxy.seldom"), lambda: now[0], every=60)
    caplog.set_level("INFO", "tierproxy.seldom")

    def said() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    for number in range(4):
        seldom.say("a", f"a{number}")
    seldom.say("b", "b0")
    assert said() == ["a0", "b0"]
    now[0] += 59.9
    seldom.say("a", "a4")
    assert said() == []
    now[0] += 0.1
    seldom.say("a", "a5")
    seldom.say("b", "b1")
    assert said() == ["a5 (and 4 more like it since the last line)", "b1"]


def test_kinds_are_few_even_if_a_caller_has_many(caplog: pytest.LogCaptureFixture) -> None:
    seldom = Seldom(logging.getLogger("tierproxy.seldom"), lambda: 100.0)
    caplog.set_level("INFO", "tierproxy.seldom")
    for number in range(Seldom.KINDS + 100):
        seldom.say(f"kind {number}", f"{number}")
    assert len(caplog.records) == Seldom.KINDS + 1
