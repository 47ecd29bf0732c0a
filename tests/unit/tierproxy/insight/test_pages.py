"""What the pages say, and that nothing in them is taken for markup."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.unit.tierproxy.insight.pictures import CONFIG, NOW, archived, facts, gap, part, topic
from tierproxy.archive.manifest import Manifest
from tierproxy.insight import traffic
from tierproxy.insight.facts import Facts, GroupFacts, Member
from tierproxy.insight.overview import Overview, overview
from tierproxy.insight.pages import Choice, TopicDetail, front, message_page, topic_page
from tierproxy.insight.told import Told
from tierproxy.insight.traffic import Passing
from tierproxy.recent import Trouble

HOSTILE = "<script>alert('x')</script>\"' onload=x & \u202e"
QUIET = Passing(None, dict.fromkeys((traffic.COLD_FETCHES, traffic.COLD_BYTES, traffic.TO_CLIENTS), ()), 0, {}, {}, {})


class Read(HTMLParser):
    """The tags, ids and words of a page; complains of tags that do not close what is open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link", "input", "rect", "line", "polyline") or self.rawdata is None:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag in ("rect", "line", "polyline"):
            return
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def seen(*topics: object, **more: object) -> Overview:
    return overview(facts(*topics, **more), NOW, {})  # type: ignore[arg-type]


def words(page: str) -> str:
    return " ".join(Read(page).words.split())


def front_page(about: Overview | None, *told: Told, query: dict[str, str] | None = None) -> str:
    return front(CONFIG, about, QUIET, told, Choice.of(query or {}), NOW + 2000)


FINE = topic(part(80, 120, archived(0, 100)), name="payments")
HOLED = topic(part(100, 100, archived(0, 100, gap(10, 30))), name="clicks")
LOST = topic(part(200, 220, archived(0, 100), number=7), name="orders")


def test_the_front_page_says_what_matters_first() -> None:
    text = words(front_page(seen(FINE, HOLED, LOST)))
    order = ["1 partition of 1 topic needs you", "Look at these", "orders partition 7", "Topics", "payments"]
    assert [text.index(each) for each in order] == sorted(text.index(each) for each in order)
    assert "offsets 100 to 199 are neither archived nor on the broker" in text
    assert "2 partitions" not in text
    assert "just proxied" not in text
    assert "all is well with 1 topic" in words(front_page(seen(FINE)))


def test_before_the_first_survey_is_over_the_page_says_so_and_looks_again_soon() -> None:
    page = front_page(None)
    assert "The first look is under way." in words(page)
    assert "data-soon" in page
    assert "under way" in words(topic_page(CONFIG, None, None, "payments", QUIET, [], TopicDetail({}), 1, NOW))


def test_a_page_is_whole_without_scripts() -> None:
    page = front_page(seen(FINE))
    read = Read(page)
    assert '<noscript><meta http-equiv="refresh" content="15"></noscript>' in page
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    assert scripts == [""]
    assert not [name for name, _ in read.attributes if name.startswith("on") or name == "style"]
    links = [value for name, value in read.attributes if name in ("src", "href", "action", "xlink:href")]
    assert all(value is not None and re.match(r"/|#|$", value) for value in links), links


def test_nothing_that_others_say_becomes_markup() -> None:
    """Names and words of brokers, clients, stores and logs."""
    broken = part(0, 9, None, archive_problem=HOSTILE, damaged=True)
    holed = part(100, 100, archived(0, 100, replace(gap(10, 30), cause=HOSTILE)), number=1)
    member = Member(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: (0, 1)})
    about = topic(broken, holed, name=HOSTILE, settings={"retention.ms": HOSTILE})
    group = GroupFacts(HOSTILE, HOSTILE, (member,))
    told = Told(HOSTILE, {HOSTILE: 1}, {HOSTILE: HOSTILE}, [Trouble(HOSTILE, 30, HOSTILE, NOW, None)])
    whole = overview(Facts(NOW, HOSTILE, {HOSTILE: about}, 1, group, (HOSTILE, HOSTILE)), NOW, {})
    manifest = Manifest("prod", "id", HOSTILE, bytes(16), 1, 0, 100)
    pages = [
        front(CONFIG, whole, QUIET, [told], Choice.of({"q": HOSTILE}), NOW),
        front(CONFIG, whole, QUIET, [told], Choice.of({}), NOW),
        topic_page(CONFIG, whole, whole.topics[0], HOSTILE, QUIET, [told], TopicDetail({1: manifest}), 1, NOW),
        message_page(CONFIG, HOSTILE, HOSTILE, NOW),
        front(CONFIG, replace(whole, facts=replace(whole.facts, group=GroupFacts("g", problem=HOSTILE))), QUIET, [],
              Choice(), NOW),
    ]  # fmt: skip
    for page in pages:
        read = Read(page)
        assert "alert(" in read.words
        assert read.tags.count("script") == 1
        assert not [value for name, value in read.attributes if name.startswith("on")]


def test_what_nobody_knows_is_not_called_nothing() -> None:
    unread = topic(part(0, 0, None, archive_problem="damaged", damaged=True), part(0, 9, archived(0, 5), number=1))
    text = words(front_page(seen(unread)))
    assert "not known" in text[text.index("Look at these") : text.index("Topics")]
    assert "4 offsets behind, of 1 partition not known" in text
    assert "nothing behind" not in text
    assert "no records" not in text
    assert "nothing behind" in words(front_page(seen(HOLED)))


def test_topics_are_found_by_a_part_of_their_names_or_a_pattern() -> None:
    about = seen(FINE, HOLED, LOST)
    for match, found in (("pay", "payments"), ("c*s", "clicks"), ("?rders", "orders")):
        text = words(front_page(about, query={"q": match}))
        assert f"1 topic that match {match}" in text
        assert found in text
    assert "0 topics" in words(front_page(about, query={"q": "nothing"}))


def names(page: str) -> list[str]:
    return re.findall(r'<h3><a href="/topic\?name=[^"]*">([^<]*)</a></h3>', page[page.index('id="topics"') :])


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", ["clicks", "orders", "payments"]),
        ("state", ["orders", "clicks", "payments"]),
        ("behind", ["orders", "payments", "clicks"]),
        ("nonsense", ["orders", "clicks", "payments"]),
    ],
)
def test_topics_are_sorted_as_asked(sort: str, order: list[str]) -> None:
    assert names(front_page(seen(FINE, HOLED, LOST), query={"sort": sort})) == order


def test_very_many_topics_are_shown_in_pages() -> None:
    about = seen(*(topic(part(0, 9, archived(0, 9)), name=f"t{n:03}") for n in range(120)))
    first = front_page(about, query={"sort": "name"})
    assert names(first) == [f"t{n:03}" for n in range(50)]
    assert 'rel="next" href="/?sort=name&amp;page=2"' in first
    assert 'rel="prev"' not in first
    last = front_page(about, query={"sort": "name", "page": "3", "q": "t"})
    assert names(last) == [f"t{n:03}" for n in range(100, 120)]
    assert 'rel="prev" href="/?q=t&amp;sort=name&amp;page=2"' in last
    assert names(front_page(about, query={"page": "999"})) == names(front_page(about, query={"page": "3"}))
    for nonsense in ("-1", "0", "x", "1e9", "99999999", "²"):
        assert names(front_page(about, query={"page": nonsense})) == names(front_page(about))


def test_a_topics_page_shows_its_worst_partitions_first_and_all_of_them_in_pages() -> None:
    parts = [part(0, 9, archived(0, 9), number=n) for n in range(30)]
    parts[25] = part(20, 30, archived(0, 9), number=25)
    (about,) = seen(topic(*parts)).topics

    def shown(page: int) -> list[int]:
        text = topic_page(CONFIG, seen(topic(*parts)), about, "payments", QUIET, [], TopicDetail({}), page, NOW)
        Read(text)
        return [int(number) for number in re.findall(r'<h3 id="p(\d+)">', text)]

    assert shown(1) == [25, *range(19)]
    assert shown(2) == [*range(19, 25), *range(26, 30)]
    assert shown(3) == shown(2)


def test_who_can_not_see_a_picture_is_told_what_is_in_it() -> None:
    page = front_page(seen(LOST))
    assert 'aria-label="archive only: 0 to 99; lost: 100 to 199; broker only: 200 to 219"' in page
    assert 'aria-label="archive only: 100 offsets; both: 0; broker only: 20; holes: 100"' in page


def test_open_problems_come_before_those_that_are_over() -> None:
    troubles = [
        Trouble("scout", 30, "this is over", NOW - 9000, NOW - 1000),
        Trouble("archiver", 40, "this goes on", NOW - 8000),
    ]
    text = words(front_page(seen(FINE), Told("gateway-1", {}, {}, troubles)))
    assert text.index("this goes on") < text.index("this is over")
    assert "open for 10s gateway-1 archiver" in text
    assert "over after 8s, 3s ago" in text


def test_a_topics_page_has_only_the_problems_that_name_it() -> None:
    troubles = [Trouble("archiver", 30, "payments-0: hm", NOW), Trouble("archiver", 30, "clicks-0: hm", NOW)]
    about = seen(FINE)
    page = topic_page(
        CONFIG, about, about.topics[0], "payments", QUIET, [Told("", {}, {}, troubles)], TopicDetail({}), 1, NOW
    )
    assert "payments-0: hm" in words(page)
    assert "clicks-0: hm" not in words(page)


def test_it_is_told_where_archived_records_came_from() -> None:
    speeds = dict.fromkeys(traffic._COUNTERS, 0.0) | {traffic.TO_CLIENTS: 2048.0}
    passing = replace(QUIET, speeds=speeds, sources={"store": 512.0, "memory": 1536.0, "disk": 0.0})
    text = words(front(CONFIG, seen(FINE), passing, [], Choice(), NOW))
    assert "archived records came from memory 75 %, 1.5 KiB/s store 25 %, 512 B/s" in text
    assert "sent to clients, hot and cold 2 KiB/s" in text
    assert "came from" not in words(front_page(seen(FINE)))


def test_what_is_old_says_so() -> None:
    assert "ago" not in words(front_page(seen(FINE)))[:200]
    page = front(CONFIG, seen(FINE), QUIET, [], Choice(), NOW + 300_000)
    assert "5m ago" in words(page)
