import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.config.model import pattern
from tierproxy.config.rules import covers, did_you_mean


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
    ],
)
def test_which_pattern_hides_which(earlier: str, later: str, covered: bool) -> None:
    assert covers(earlier, later) is covered


patterns = st.text("ab*?", min_size=1, max_size=6)


@given(patterns, patterns, st.text("ab", max_size=6))
def test_covered_means_that_no_topic_is_left(earlier: str, later: str, topic: str) -> None:
    if covers(earlier, later) and pattern(later).fullmatch(topic):
        assert pattern(earlier).fullmatch(topic)


@given(patterns, st.text("ab", min_size=1, max_size=6))
def test_for_a_plain_name_covering_is_matching(earlier: str, topic: str) -> None:
    assert covers(earlier, topic) == bool(pattern(earlier).fullmatch(topic))


def test_letters_that_regular_expressions_know_are_plain() -> None:
    assert not pattern("a.b").fullmatch("axb")
    assert re.fullmatch(pattern("a.*"), "a.b")


def test_did_you_mean() -> None:
    assert did_you_mean("matc", ["match", "archive"]) == "; did you mean 'match'?"
    assert did_you_mean("zzz", ["match", "archive"]) == "; known here: archive, match"
    assert did_you_mean("zzz", []) == ""
