import logging

from tierproxy.recent import MOST_ENDED, MOST_OPEN, RECENT, Recent
from tierproxy.telemetry import OncePerChange


def shown(recent: Recent) -> list[tuple[str, bool]]:
    return [(each.message, each.ended_ms is not None) for each in recent.all]


def test_open_ones_come_first_and_the_newest_of_each() -> None:
    recent = Recent()
    for name in "abcd":
        recent.began(name, "scout", logging.WARNING, name)
    recent.ended("b")
    recent.ended("a")
    recent.ended("nobody knows it")
    recent.ended("c", told=False)
    assert shown(recent) == [("d", False), ("a", True), ("b", True)]


def test_it_is_bounded() -> None:
    recent = Recent()
    for n in range(MOST_OPEN + 10):
        recent.began(n, "scout", logging.WARNING, str(n))
    assert shown(recent) == [(str(n), False) for n in reversed(range(10, MOST_OPEN + 10))]
    for n in range(MOST_OPEN + 10):
        recent.ended(n)
    assert len(recent.all) == MOST_ENDED
    assert all(each.ended_ms is not None for each in recent.all)


def test_what_the_log_says_is_remembered() -> None:
    troubles = OncePerChange(logging.getLogger("tierproxy.remembered"))
    others = OncePerChange(logging.getLogger("tierproxy.others"))

    def ours() -> list[tuple[str, bool]]:
        return [(each.message, each.ended_ms is not None) for each in RECENT.all if each.part == "remembered"]

    troubles.began("a", "a is away", logging.ERROR)
    troubles.began("a", "a is away still")
    others.ended("a", "another's a")
    assert ours() == [("a is away", False)]
    troubles.began("b 1", "b is away")
    troubles.ended("a", "a is back")
    troubles.forget("b ")
    assert ours() == [("a is away", True)]
