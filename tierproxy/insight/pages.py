"""HTML of pictures. Pure: everything is handed in; the templates lay it out, and escape all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from urllib.parse import urlencode

from jinja2 import Environment, FunctionLoader, StrictUndefined

from tierproxy import __version__
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.config import Config, Keep
from tierproxy.config.patterns import takes
from tierproxy.config.units import format_size
from tierproxy.costs import money
from tierproxy.insight import shapes, traffic
from tierproxy.insight.overview import Overview
from tierproxy.insight.picture import Level, PartitionPicture, TopicPicture, Where, retention
from tierproxy.insight.told import Told
from tierproxy.insight.traffic import Passing
from tierproxy.insight.words import counted, duration, time_text
from tierproxy.insight.worth import worth

TOPICS_A_PAGE = 50
PARTITIONS_A_PAGE = 20
ATTENTION = 12
PROBLEMS = 30
SEGMENTS_LISTED = 20
LINE_HEIGHT = 40.0

SORTS = {
    "name": ("name", lambda topic: ()),
    "state": ("what needs you", lambda topic: (-topic.level,)),
    "behind": ("how far behind", lambda topic: (-topic.lag,)),
    "size": ("archived size", lambda topic: (-topic.sums.plain_size,)),
}
"""Of topics: the word in the address → what people read, and the order; equals are in the order of their names."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the address of the front page asks for. `page` counts from 1."""

    match: str = ""
    sort: str = "state"
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Choice":
        """Nonsense is taken for nothing."""
        sort = query.get("sort", "")
        return cls(query.get("q", "").strip()[:249], sort if sort in SORTS else "state", page_number(query))

    def link(self, **changes: str | int) -> str:
        asked = {"q": self.match, "sort": self.sort, "page": self.page} | changes
        return "/?" + urlencode({key: value for key, value in asked.items() if value not in ("", 1)})


def page_number(query: Mapping[str, str]) -> int:
    text = query.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 7 else 1


@dataclass(frozen=True, slots=True)
class TopicDetail:
    """Manifests of the partitions that are shown; a partition that isn't there has none, or it can't be read."""

    manifests: Mapping[int, Manifest]


def front(
    config: Config, overview: Overview | None, passing: Passing, told: Sequence[Told], choice: Choice, now_ms: int
) -> str:
    """The page of all topics; `overview` None: the first survey goes on."""
    about = _about(config, overview, now_ms)
    sorts = {name: label for name, (label, _) in SORTS.items()}
    about |= {"passing": passing, "told": told, "troubles": _troubles(told), "choice": choice, "sorts": sorts}
    if overview is None:
        return _render("front.html", about)
    found = [topic for topic in overview.topics if _matches(choice.match, topic.name)]
    found.sort(key=SORTS[choice.sort][1])
    first = (min(choice.page, _pages(len(found), TOPICS_A_PAGE)) - 1) * TOPICS_A_PAGE
    urgent = overview.at_least(Level.WARNING)
    return _render(
        "front.html",
        about
        | {
            "found": len(found),
            "first": first,
            "shown": found[first : first + TOPICS_A_PAGE],
            "page": first // TOPICS_A_PAGE + 1,
            "pages": _pages(len(found), TOPICS_A_PAGE),
            "urgent": urgent[:ATTENTION],
            "urgent_more": max(0, len(urgent) - ATTENTION),
            "saving": worth(config, overview.topics),
            "lag_seconds": max(passing.lag_seconds.values(), default=None),
        },
    )


def topic_page(
    config: Config,
    overview: Overview | None,
    topic: TopicPicture | None,
    name: str,
    passing: Passing,
    told: Sequence[Told],
    detail: TopicDetail,
    page: int,
    now_ms: int,
) -> str:
    """One topic, called `name`; None: the first survey goes on."""
    about = _about(config, overview, now_ms) | {"name": name, "topic": topic, "troubles": _troubles(told, name)}
    if topic is None:
        return _render("topic.html", about)
    parts = shown_partitions(topic, page)
    drawn = {number: shapes.runs(each.pages, each.segments) for number, each in detail.manifests.items()}
    from_ms = min((run.first_ms for runs in drawn.values() for run in runs), default=now_ms)
    to_ms = max((run.last_ms for runs in drawn.values() for run in runs), default=now_ms)
    settings = topic.facts.settings
    pages = _pages(len(topic.partitions), PARTITIONS_A_PAGE)
    return _render(
        "topic.html",
        about
        | {
            "parts": parts,
            "page": min(page, pages),
            "pages": pages,
            "bars": {number: shapes.bars(runs, from_ms, to_ms, _run_title) for number, runs in drawn.items()},
            "newest": {number: _newest(each) for number, each in detail.manifests.items()},
            "from_ms": from_ms,
            "to_ms": to_ms,
            "policy": topic.facts.policy,
            "keeps": {
                "keep_on_broker": keep_text(topic.facts.policy.keep_on_broker, "everything"),
                "keep_in_archive": keep_text(topic.facts.policy.keep_in_archive, "forever"),
                "brokers": _kafka_retention(settings),
            },
            "saving": worth(config, [topic]),
            "lag_seconds": passing.lag_seconds.get(name),
        },
    )


def shown_partitions(topic: TopicPicture, page: int) -> Sequence[PartitionPicture]:
    """Those of one page, in the order of what needs somebody, then of their numbers."""
    ordered = sorted(topic.partitions, key=lambda part: (-part.level, part.partition))
    first = (min(page, _pages(len(ordered), PARTITIONS_A_PAGE)) - 1) * PARTITIONS_A_PAGE
    return ordered[first : first + PARTITIONS_A_PAGE]


def message_page(config: Config, title: str, text: str, now_ms: int) -> str:
    return _render("message.html", _about(config, None, now_ms) | {"title": title, "text": text})


# ---- words -------------------------------------------------------------------------------------------------


def keep_text(keep: Keep, all_of_it: str) -> str:
    if 0 in (keep.time_ms, keep.bytes):
        return "nothing"
    limits = [] if keep.time_ms is None else [duration(keep.time_ms)]
    limits += [] if keep.bytes is None else [f"{format_size(keep.bytes)} a partition"]
    return " or ".join(limits) or all_of_it


def _kafka_retention(settings: Mapping[str, str]) -> str:
    if not settings:
        return "not known"
    most_ms, most_bytes = retention(settings, "retention.ms"), retention(settings, "retention.bytes")
    limits = [] if most_ms is None else [duration(most_ms)]
    limits += [] if most_bytes is None else [f"{format_size(most_bytes)} a partition"]
    return " or ".join(limits) or "forever"


def _iso(ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, OSError, ValueError):
        return ""


def where_text(part: PartitionPicture) -> str:
    """A picture's words, for those who don't see it."""
    words = {
        Where.ARCHIVE: "archive only",
        Where.BOTH: "archive and broker",
        Where.BROKER: "broker only",
        Where.HOLE: "hole",
        Where.LOST: "lost",
    }
    spans = [f"{words[span.where]}: {span.start:,} to {span.end - 1:,}" for span in part.spans[:8]]
    return "; ".join(spans) or "no records"


def _run_title(run: shapes.Run) -> str:
    many = f"{run.segments:,} segments, " if run.segments > 1 else ""
    return (
        f"{many}offsets {run.base_offset:,} to {run.last_offset:,}, {time_text(run.first_ms)} to "
        f"{time_text(run.last_ms)}, {format_size(run.plain_size)} stored as {format_size(run.stored_size)}"
    )


def _newest(manifest: Manifest) -> Sequence[SegmentEntry]:
    return manifest.segments[: -SEGMENTS_LISTED - 1 : -1]


def _troubles(told: Sequence[Told], about: str = "") -> list[tuple[str, object]]:
    """(who, trouble), open ones first; only those that name the topic `about`, if one is given."""
    found = [(each.who, trouble) for each in told for trouble in each.troubles if about in trouble.message]
    found.sort(key=lambda each: (each[1].ended_ms is not None, -(each[1].ended_ms or each[1].began_ms)))
    return list(found[:PROBLEMS])


def _matches(match: str, topic: str) -> bool:
    return not match or match in topic or takes(match, topic)


def _pages(items: int, a_page: int) -> int:
    return max(1, -(-items // a_page))


# ---- templates ---------------------------------------------------------------------------------------------


def _about(config: Config, overview: Overview | None, now_ms: int) -> dict[str, object]:
    return {
        "cluster": config.cluster.name,
        "currency": config.prices.currency,
        "overview": overview,
        "now_ms": now_ms,
        "version": __version__,
    }


def _render(name: str, values: Mapping[str, object]) -> str:
    return _templates().get_template(name).render(values)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    folder = files("tierproxy.insight") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": format_size,
        "duration": duration,
        "time": time_text,
        "iso": _iso,
        "clock": lambda ms: _iso(ms)[11:19] + " UTC",
        "money": money,
        "where": where_text,
        "grouped": lambda number: f"{number:,}",
        "counted": counted,
    }
    environment.globals |= {
        "lanes": shapes.lanes,
        "lanes_of_sums": shapes.lanes_of_sums,
        "line": lambda values: shapes.line(values, LINE_HEIGHT, traffic.SAMPLES),
        "link": lambda path, **query: f"{path}?{urlencode(query)}",
        "traffic": traffic,
        "Where": Where,
    }
    return environment
