import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from tierproxy.telemetry import OncePerChange, Seldom, setup_logging
from tierproxy.telemetry.conditions import CHANGES, REMEMBERED
from tierproxy.telemetry.logs import FloodGuard


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


# -- what comes and goes ----------------------------------------------------------------------------------------------


def test_what_comes_and_goes_is_said_a_few_times_and_then_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tierproxy.flaps")
    now = 0.0
    trouble = OncePerChange(logging.getLogger("tierproxy.flaps"), lambda: now)
    for _ in range(10_000):
        trouble.began("a", "a is gone")
        trouble.ended("a", "a is back")
        now += 0.06  # ten minutes in all
    assert len(caplog.records) <= CHANGES + 10 + 1
    assert "changes since the last line)" in caplog.messages[-1]
    # Another condition isn't kept from being said by it.
    trouble.began("b", "b is gone")
    assert caplog.messages[-1] == "b is gone"


@pytest.mark.parametrize("holds", [True, False])
def test_what_holds_in_the_end_is_said(caplog: pytest.LogCaptureFixture, holds: bool) -> None:
    caplog.set_level("INFO", "tierproxy.flaps")
    now = 0.0
    trouble = OncePerChange(logging.getLogger("tierproxy.flaps"), lambda: now)
    for _ in range(100):
        trouble.ended("a", "a is back")
        trouble.began("a", "a is gone")
    if not holds:
        trouble.ended("a", "a is back")
    caplog.clear()
    for _ in range(100):
        now += 1
        if holds:
            trouble.began("a", "a is gone")
        else:
            trouble.ended("a", "a is back")
    (line,) = caplog.messages
    assert line.startswith("a is gone (it has" if holds else "a is back (it has")


def test_what_has_ended_is_not_remembered_for_ever() -> None:
    trouble = OncePerChange(logging.getLogger("tierproxy.flaps"))
    logging.getLogger("tierproxy.flaps").setLevel(logging.ERROR)
    for number in range(5_000):
        trouble.began(f"{number}", "gone")
        trouble.ended(f"{number}", "back")
    assert len(trouble._said) <= REMEMBERED + 2


# -- too many lines ---------------------------------------------------------------------------------------------------


def lines_of(count: int, stream: io.StringIO) -> list[str]:
    for number in range(count):
        logging.getLogger("tierproxy.archiver").info("partition %d is archived", number)
    logging.getLogger("tierproxy.archiver").info("something else")
    return [line.split(": ", 1)[1] for line in stream.getvalue().splitlines()]


def test_ten_thousand_lines_from_one_place_become_a_hundred() -> None:
    stream = io.StringIO()
    setup_logging("info", "text", stream)
    lines = lines_of(10_000, stream)
    assert len(lines) == FloodGuard.MOST + 1
    assert lines[0] == "partition 0 is archived"
    assert lines[-2] == "partition 99 is archived (more like it are left out for up to 60 s)"
    assert lines[-1] == "something else"


def test_what_was_left_out_is_counted_and_debug_has_all() -> None:
    guard, said = FloodGuard(), list[str]()
    record = logging.makeLogRecord({"name": "tierproxy.x", "levelno": logging.INFO, "msg": "line", "created": 100.0})

    def say(at: float, level: int = logging.INFO) -> None:
        again = logging.makeLogRecord({**record.__dict__, "created": at, "levelno": level})
        if guard.filter(again):
            said.append(again.getMessage())

    for _ in range(150):
        say(100.0)
    say(159.0)
    say(160.0)
    assert said[-1] == "line (and 51 more like the ones before, which were left out)"
    assert len(said) == 101
    say(50.0)  # the clock was set back
    assert said[-1] == "line"
    for _ in range(200):
        say(51.0, logging.DEBUG)
    assert len(said) == 302
