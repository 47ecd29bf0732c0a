import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.config.patterns import covers, glob, is_name, takes, topic_pattern


@pytest.mark.parametrize(
    ("earlier", "later", "covered"),
    [
        ("*", "a", True),
        ("*", "*", True),
        ("*", "a.*", True),
        ("a.*", "a.b.*", True),
        ("a.*", "a.?", True),
        ("a?c", "abc", True),
        ("a*c*", "abcd", True),
        ("**", "?*", True),
        ("a.*", "a*", False),
        ("a?", "a*", False),
        ("a", "b", False),
        ("a.*", "a", False),
        ("?", "*", False),
        ("a", "a?", False),
        ("a*b", "a*", False),
        ("/.*/", "a*", True),
        ("/.*/", "/a/", True),
        ("*", "/a|b/", True),
        ("/a|b/", "/a|b/", True),
        ("/a|b/", "a", True),
        ("/a|b/", "c", False),
        ("/a|b/", "a*", False),
        ("a*", "/ab/", False),
    ],
)
def test_which_pattern_hides_which(earlier: str, later: str, covered: bool) -> None:
    assert covers(earlier, later) is covered


patterns = st.text("ab*?", min_size=1, max_size=6)


@given(patterns, patterns, st.text("ab", max_size=6))
def test_covered_means_that_no_topic_is_left(earlier: str, later: str, topic: str) -> None:
    if covers(earlier, later) and takes(later, topic):
        assert takes(earlier, topic)


@given(patterns, st.text("ab", min_size=1, max_size=6))
def test_for_a_plain_name_covering_is_matching(earlier: str, topic: str) -> None:
    assert covers(earlier, topic) == takes(earlier, topic)


def test_letters_that_regular_expressions_know_are_plain() -> None:
    assert not takes("a.b", "axb")
    assert takes("a.*", "a.b")


@given(st.text("ab*?", min_size=1, max_size=8), st.text("ab", max_size=8))
def test_a_glob_takes_what_going_back_would_find(match: str, name: str) -> None:
    """The oracle tries everything; ours is done with a `*` once what follows it was found."""
    plain = re.compile("".join({"*": ".*", "?": "."}.get(letter, letter) for letter in match))
    assert bool(glob(match).fullmatch(name)) == bool(plain.fullmatch(name))


@pytest.mark.parametrize(
    ("match", "topic", "taken"),
    [
        ("/orders\\.(eu|us)/", "orders.eu", True),
        ("/^orders\\.(eu|us)$/", "orders.us", True),
        ("/orders\\.(eu|us)/", "orders.asia", False),
        ("/orders/", "old.orders.eu", False),
        ("/(?i)orders.*/", "ORDERS", True),
        ("/[^_].*/", "_schemas", False),
        ("/.*/", "x" * 249, True),
        ("/.*/", "x" * 250, False),
        ("*", "x" * 250, False),
    ],
)
def test_a_regular_expression_must_match_the_whole_name(match: str, topic: str, taken: bool) -> None:
    assert takes(topic_pattern(match), topic) is taken


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ("/orders", "begins as a regular expression and does not end as one: write /…/"),
        ("/", "does not end as one"),
        ("/(/", "is not a regular expression: missing \\): \\("),
        ("/a(?=b)/", "no lookaround"),
        ("/(a)\\1/", "invalid escape sequence: .* no backreferences"),
        ("/" + "a" * 1_000 + "/", "of more than 1000 characters"),
        ("orders/eu", "can match no topic"),
        ("", "can match no topic"),
    ],
)
def test_what_can_match_nothing_is_refused(match: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        topic_pattern(match)


def test_no_pattern_makes_a_name_expensive() -> None:
    """Each of these takes ages where every way is tried. A test that hangs has failed."""
    for match in ("/(a*)*b/", "/(a|a)*b/", "/((a+)+)+$b/"):
        assert not takes(topic_pattern(match), "a" * 249)
    assert not glob("*a" * 30 + "b").fullmatch("a" * 10_000)


def test_a_name_is_what_has_no_wildcard() -> None:
    assert [is_name(each) for each in ("a.b", "a.*", "a?", "/a/")] == [True, False, False, False]
