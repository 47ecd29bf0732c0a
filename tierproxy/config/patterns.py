"""Patterns of names: what a policy's `match` takes, and when one of them leaves nothing to another.

    payments.eu              this topic
    payments.*               a glob: * is any number of characters, ? is one
    /orders\\.(eu|us)-[0-9]+/  between slashes a regular expression, of the whole name, as in Kafka's own subscriptions

Names come from clients, so no pattern may take long for any of them, whatever an operator has written. Regular
expressions are RE2's, as those of Kafka's newer consumer groups (KIP-848): its time grows with the name's length only,
for which it has no backreferences and no lookaround. Globs don't go back either: a `*` is done with once what follows
it has been found.
"""

import re
from functools import lru_cache
from typing import Any

import re2

LONGEST_NAME = 249
"""Of a topic, says Kafka. A longer one that a client asks for can't exist."""
_GLOB = re.compile(r"[A-Za-z0-9._*?-]{1,249}")
_LONGEST_REGEX = 1_000
_REMEMBERED = 16_384
_EVERYTHING = ("/.*/", "/.+/")


def is_regex(match: str) -> bool:
    return len(match) >= 2 and match.startswith("/") and match.endswith("/")


def is_name(match: str) -> bool:
    """Whether it can only be the one topic that is called so."""
    return not is_regex(match) and "*" not in match and "?" not in match


def topic_pattern(match: str) -> str:
    """`match` as it is. ValueError says why no topic can be meant by it."""
    if match.startswith("/"):
        if not is_regex(match):
            raise ValueError(f"{match!r} begins as a regular expression and does not end as one: write /…/")
        if len(match) > _LONGEST_REGEX:
            raise ValueError(f"is a regular expression of more than {_LONGEST_REGEX} characters")
        _regex(match)
    elif not _GLOB.fullmatch(match):
        raise ValueError(
            f"{match!r} can match no topic: names are made of letters, digits, '.', '_' and '-' "
            "(at most 249); '*' stands for any number of characters and '?' for one, and /…/ is a regular expression"
        )
    return match


def takes(match: str, topic: str) -> bool:
    """Whether a topic, which isn't internal, is taken by a `topic_pattern`."""
    if len(topic) > LONGEST_NAME:
        return False
    return _regex_takes(match, topic) if is_regex(match) else glob(match).fullmatch(topic) is not None


@lru_cache(maxsize=1024)
def glob(match: str) -> re.Pattern[str]:
    """The regular expression that a glob stands for; use its `fullmatch`."""
    first, *more = match.split("*")
    text = _plain(first)
    if more:
        # As early as it can be found is as good as anywhere, so nothing that was found is ever looked for again.
        text += "".join(f"(?>.*?{_plain(part)})" for part in more[:-1] if part) + f".*{_plain(more[-1])}"
    return re.compile(text, re.DOTALL)


def covers(earlier: str, later: str) -> bool:
    """Whether every topic that `later` matches is matched by `earlier` as well.

    What it calls covered is covered; some rare overlaps of globs it leaves alone, and all of regular expressions but
    the plainest.
    """
    if earlier == later or earlier in _EVERYTHING:
        return True
    if is_regex(earlier):
        return is_name(later) and takes(earlier, later)
    if is_regex(later):
        return not earlier.strip("*")
    return _glob_covers(earlier, later)


def _glob_covers(earlier: str, later: str) -> bool:
    """Decided by matching `earlier` against the text of `later`, whose wildcards only a wildcard of at least the same
    reach may stand for."""
    reach = {0}
    for letter in earlier:
        if letter == "*":
            reach = set(range(min(reach), len(later) + 1)) if reach else reach
        else:
            reach = {
                at + 1
                for at in reach
                if at < len(later) and (later[at] == letter or (letter == "?" and later[at] != "*"))
            }
    return len(later) in reach


def _plain(part: str) -> str:
    return "".join("." if letter == "?" else re.escape(letter) for letter in part)


@lru_cache(maxsize=1024)
def _regex(match: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(match[1:-1], options=options)
    except re2.error as error:
        said = error.args[0]
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        hint = "; RE2 has no lookaround" if "perl operator" in text else ""
        hint = (
            "; RE2 has no backreferences, and a \\ of YAML's double quotes is written \\\\"
            if "escape" in text
            else hint
        )
        raise ValueError(f"{match!r} is not a regular expression: {text}{hint}") from None


@lru_cache(maxsize=_REMEMBERED)
def _regex_takes(match: str, topic: str) -> bool:
    """Some microseconds, which all topics of a large cluster are worth remembering."""
    return _regex(match).fullmatch(topic) is not None
