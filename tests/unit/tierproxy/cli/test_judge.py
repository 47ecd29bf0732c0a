"""What facts about brokers, topics, rights and archives mean for a configuration."""

from collections.abc import Mapping

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tierproxy.cli.check import keep_text, report_json
from tierproxy.cli.facts import DELETE, DESCRIBE, DESCRIBE_CONFIGS, READ, Facts, Versions
from tierproxy.cli.judge import NEEDED_APIS, Report, judge
from tierproxy.cli.lags import Lag
from tierproxy.config import Config, Keep, parse_config
from tierproxy.upstream import ClusterView, PartitionView, TopicView

GOOD: Versions = dict.fromkeys(NEEDED_APIS, (0, 18))
ID = "5L6g3nShT-eMCtK--X86sw"


def config(*policies: str, listen: str = "port: 9192, advertised_host: proxy", more: str = "") -> Config:
    listed = ", ".join(f"{{{policy}}}" for policy in policies or ("match: '*', archive: a",))
    return parse_config(
        "cluster: {name: prod, bootstrap: [kafka-0:9092, kafka-1:9092]}\n"
        f"listen: {{{listen}}}\narchives: {{a: {{url: file:///a}}}}\ntopics: [{listed}]\n{more}"
    )


def facts(*topics: TopicView, brokers: Mapping[int, tuple[str, int]] | None = None) -> Facts:
    brokers = {0: ("kafka-0", 9092)} if brokers is None else brokers
    return Facts(
        bootstrap={"kafka-0:9092": None, "kafka-1:9092": None},
        view=ClusterView(ID, brokers, {topic.name: topic for topic in topics}),
        brokers=dict.fromkeys(brokers, GOOD),
        archives={"a": None},
    )


def topic(
    name: str, *, leader: int = 0, partitions: int = 1, internal: bool = False, topic_id: bytes = b"i" * 16
) -> TopicView:
    return TopicView(name, topic_id, internal, {n: PartitionView(leader, 0) for n in range(partitions)})


def told(report: Report, level: str) -> list[str]:
    return [
        f"{each.area} {each.subject}: {each.text}"
        for each in report.findings
        if each.level == level and each.area != "configuration"
    ]


def test_nothing_wrong() -> None:
    report = judge(config(), facts(topic("t")))
    assert report.ok
    assert (told(report, "fault"), told(report, "warning")) == ([], [])
    assert told(report, "ok") == [
        "bootstrap kafka-0:9092: answers",
        "bootstrap kafka-1:9092: answers",
        "broker broker 0 at kafka-0:9092: answers; Fetch up to version 18",
        "archive a: can be read and written, and honours conditional writes",
    ]
    assert report.cluster_id == ID


def test_one_of_the_bootstrap_addresses_may_be_down() -> None:
    known = facts(topic("t"))
    known.bootstrap["kafka-1:9092"] = "refused"
    report = judge(config(), known)
    assert report.ok
    assert told(report, "warning") == ["bootstrap kafka-1:9092: refused"]


def test_all_of_them_may_not() -> None:
    known = Facts(bootstrap=dict.fromkeys(("kafka-0:9092", "kafka-1:9092"), "refused"), archives={"a": None})
    report = judge(config(), known)
    assert told(report, "fault") == ["bootstrap kafka-0:9092: refused", "bootstrap kafka-1:9092: refused"]
    assert report_json(config(), report)["ok"] is False


def test_a_cluster_that_answers_and_then_fails_is_a_fault() -> None:
    known = Facts(bootstrap={"kafka-0:9092": None, "cluster": "no answer within 30 s"}, archives={"a": None})
    assert told(judge(config(), known), "fault") == ["bootstrap cluster: no answer within 30 s"]


def test_an_advertised_address_that_does_not_work_is_a_fault() -> None:
    known = facts(topic("t"), brokers={0: ("kafka-0", 9092), 7: ("inside", 9092)})
    known.brokers[7] = "broker inside:9092: unknown name"
    assert told(judge(config(), known), "fault") == [
        "broker broker 7 at inside:9092: advertises an address that can't be used: broker inside:9092: unknown name"
    ]


@pytest.mark.parametrize(
    ("versions", "lacking"),
    [
        ({key: span for key, span in GOOD.items() if key != ApiKey.DELETE_RECORDS}, "DELETE_RECORDS 0"),
        ({**GOOD, ApiKey.FETCH: (0, 3)}, "FETCH 4"),
        ({}, "FETCH 4, LIST_OFFSETS 1, METADATA 1, DELETE_RECORDS 0, OFFSET_FOR_LEADER_EPOCH 2, DESCRIBE_CONFIGS 1"),
    ],
)
def test_brokers_that_are_too_old(versions: Versions, lacking: str) -> None:
    known = facts(topic("t"))
    known.brokers[0] = versions
    (fault,) = told(judge(config(), known), "fault")
    assert fault.endswith(f": {lacking}")


@pytest.mark.parametrize(
    ("listen", "more", "brokers", "words"),
    [
        ("port: 65000, advertised_host: proxy", "", {600: ("k", 1)}, "would be served at port 65601: choose a lower"),
        ("port: 9100, advertised_host: proxy", "admin: {port: 9108}", {7: ("k", 1)}, "port 9108, which is admin.port"),
        ("port: 9092, advertised_host: kafka-0", "", {0: ("kafka-0", 9092)}, "is where tierproxy itself listens"),
        ("port: 9091, advertised_host: kafka-0", "", {0: ("kafka-0", 9092)}, "is where tierproxy itself listens"),
    ],
)
def test_ports_that_can_not_be(listen: str, more: str, brokers: dict[int, tuple[str, int]], words: str) -> None:
    (fault,) = told(judge(config(listen=listen, more=more), facts(topic("t"), brokers=brokers)), "fault")
    assert words in fault


def test_topics_are_counted_under_the_first_policy_that_matches() -> None:
    chosen = config("match: 'pay.*', archive: a", "match: none-such, archive: a", "match: 'x*', archive: none")
    topics = [topic("pay.b", partitions=3), topic("pay.a", partitions=2), topic("other")]
    report = judge(chosen, facts(*topics, topic("__offsets", internal=True)))
    assert [(use.topics, use.partitions) for use in report.policies] == [(("pay.a", "pay.b"), 5), ((), 0), ((), 0)]
    assert report.unmatched == 2
    assert told(report, "warning") == [
        "topics topics[1]: 'none-such' matches no topic that exists and that tierproxy may see"
    ]


def test_partitions_without_a_leader_are_named() -> None:
    report = judge(config(), facts(topic("t", leader=-1, partitions=6)))
    (warning,) = told(report, "warning")
    assert warning == "topics t-0, t-1, t-2, t-3 and 2 more: has no leader, so it can't be archived now"


@pytest.mark.parametrize(
    ("more", "warned"),
    [("keep_on_broker: {time: 1d}", True), ("trim: never", False), ("compression: 3", False)],
)
def test_topics_without_ids_are_not_trimmed(more: str, warned: bool) -> None:
    known = facts(topic("new"), *(topic(f"old{n}", topic_id=bytes(16)) for n in (1, 2)))
    found = told(judge(config(f"match: '*', archive: a, {more}"), known), "warning")
    assert len(found) == warned
    if warned:
        assert found[0].startswith("topics old1, old2: will be archived but not trimmed")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, []),
        ({"cleanup.policy": "delete", "retention.ms": "-1"}, []),
        ({"cleanup.policy": "delete", "retention.ms": "86400000"}, []),
        ({"cleanup.policy": ""}, []),
        ({"cleanup.policy": "compact"}, ["is not archived: it is compacted (cleanup.policy=compact)"]),
        ({"cleanup.policy": "compact", "retention.ms": "1"}, ["is not archived: it is compacted"]),
        ({"cleanup.policy": "compact,delete"}, ["is not archived: it is compacted (cleanup.policy=compact,delete)"]),
        ({"remote.storage.enable": "true"}, ["is not archived: the brokers tier it themselves"]),
        ({"retention.bytes": "-1"}, []),
        ({"retention.bytes": "268435455"}, ["retention.bytes is 256 MiB, segment.bytes 128 MiB: a busy"]),
        ({"retention.bytes": "1073741823"}, ["before keep_on_broker.bytes (1 GiB) is reached"]),
        ({"retention.bytes": "1073741824"}, []),
        ({"retention.ms": "119999"}, ["may delete records before they are archived"]),
        ({"retention.ms": "3600000"}, ["the broker deletes before keep_on_broker.time (1d) is over"]),
        ({"retention.ms": "soon"}, []),
    ],
)
def test_settings_of_a_topic(settings: dict[str, str], words: list[str]) -> None:
    known = facts(topic("t"))
    known.settings["t"] = settings
    chosen = config("match: t, archive: a, segment: {age: 1m}, keep_on_broker: {time: 1d, bytes: 1GiB}")
    found = told(judge(chosen, known), "warning")
    assert len(found) == len(words)
    assert all(word in warning for word, warning in zip(words, found, strict=True))


def test_a_policy_whose_topics_others_take() -> None:
    chosen = config(*(f"match: '{match}', archive: a" for match in ("a.*", "/b|c/", "d?", "?*")))
    report = judge(chosen, facts(topic("a.x"), topic("b"), topic("c")))
    assert told(report, "warning") == [
        "topics topics[2]: 'd?' matches no topic that exists and that tierproxy may see",
        "topics topics[3]: '?*' is not used: each of the 3 topics that it matches, such as a.x, is taken by a policy "
        "before it (topics[0], topics[1])",
    ]


@pytest.mark.parametrize(
    ("lags", "words"),
    [
        ([], []),
        ([Lag(0, archived_to=50, log_start=0, log_end=100, old_to=50)], []),
        ([Lag(0, archived_to=100, log_start=100, log_end=100, old_to=100)], []),
        (
            [Lag(0, 90, 0, 100, 95), Lag(3, 50, 0, 100, 60), Lag(4, 100, 0, 100, 90)],
            ["the archive is behind: partition 3 is archived up to offset 50 of 100, and records behind"],
        ),
        (
            [Lag(1, 50, 70, 100, 80)],
            ["has deleted what was not archived: partition 1 is archived up to offset 50, its log begins at 70"],
        ),
    ],
)
def test_an_archive_that_is_behind(lags: list[Lag], words: list[str]) -> None:
    known = facts(topic("t"))
    known.settings["t"], known.lags["t"] = {"retention.ms": "604800000"}, lags
    found = told(judge(config("match: t, archive: a"), known), "warning")
    assert len(found) == len(words)
    assert all(word in warning for word, warning in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("right", "error", "level", "words"),
    [
        (READ, ErrorCode.NONE, "ok", "granted"),
        (READ, ErrorCode.TOPIC_AUTHORIZATION_FAILED, "fault", "denied to tierproxy's own account"),
        (DESCRIBE, ErrorCode.TOPIC_AUTHORIZATION_FAILED, "fault", "denied to tierproxy's own account"),
        (DELETE, ErrorCode.TOPIC_AUTHORIZATION_FAILED, "fault", "denied to tierproxy's own account"),
        (DELETE, ErrorCode.POLICY_VIOLATION, "warning", "trims no topic with this cleanup.policy"),
        (DESCRIBE_CONFIGS, ErrorCode.TOPIC_AUTHORIZATION_FAILED, "warning", "can't be looked at"),
        (READ, ErrorCode.NETWORK_EXCEPTION, "warning", "could not be tried: NETWORK_EXCEPTION"),
        (READ, 9999, "warning", "could not be tried: error 9999"),
    ],
)
def test_rights(right: str, error: int, level: str, words: str) -> None:
    known = facts(topic("a"), topic("b"))
    known.rights = {"a": {right: error}, "b": {right: error}}
    (found,) = [line for line in told(judge(config(), known), level) if line.startswith("rights ")]
    assert found.startswith(f"rights {right} on a, b: ")
    assert words in found


def test_an_archive_that_does_not_do() -> None:
    known = facts(topic("t"))
    known.archives["a"] = "the store ignores conditional writes"
    assert told(judge(config(), known), "fault") == ["archive a: the store ignores conditional writes"]


def test_an_archive_of_another_cluster() -> None:
    known = facts(topic("t"))
    known.owners["a"] = ID
    assert judge(config(), known).ok
    known.owners["a"] = "another"
    (fault,) = told(judge(config(), known), "fault")
    assert fault == f"archive a: holds, as 'prod', Kafka cluster another, not {ID}: change cluster.name"


@pytest.mark.parametrize(
    ("keep", "text"),
    [
        (Keep(), "everything"),
        (Keep(time_ms=0), "0s"),
        (Keep(time_ms=604_800_000, bytes=200 * 2**30), "7d or 200 GiB a partition"),
    ],
)
def test_what_stays_in_words(keep: Keep, text: str) -> None:
    assert keep_text(keep) == text


@pytest.mark.parametrize(
    ("error", "level", "words"),
    [
        (ErrorCode.NONE, "ok", "granted"),
        (
            ErrorCode.GROUP_AUTHORIZATION_FAILED,
            "warning",
            "denied to tierproxy's own account: this archiver would",
        ),
        (ErrorCode.COORDINATOR_NOT_AVAILABLE, "warning", "could not be tried: COORDINATOR_NOT_AVAILABLE"),
        ("too old", "warning", "could not be tried: too old; without it this archiver would work on everything alone"),
    ],
)
def test_the_right_on_the_group(error: int | str, level: str, words: str) -> None:
    known = facts(topic("t"))
    known.group = "tierproxy-archiver-prod", error
    (finding,) = [each for each in judge(config(), known).findings if each.area == "rights"]
    assert (finding.level, finding.subject) == (level, "READ on group tierproxy-archiver-prod")
    assert finding.text.startswith(words)


DISK = "cache: {disk: {path: /var/cache/tierproxy, size: 10GiB}}"


@pytest.mark.parametrize(
    ("found", "level", "text"),
    [
        ((8 << 30, 2 << 30), "ok", "has room for 10 GiB"),
        ((8 << 30, 1 << 30), "warning", "has room for 9 GiB only, cache.disk.size is 10 GiB"),
        ("can't be used: Permission denied", "fault", "can't be used: Permission denied"),
    ],
)
def test_the_disk_cache_has_room(found: tuple[int, int] | str, level: str, text: str) -> None:
    known = facts(topic("t"))
    known.disk_cache = found
    report = judge(config(more=DISK), known)
    assert told(report, level)[-1] == f"disk cache /var/cache/tierproxy: {text}"
    assert report.ok == (level != "fault")
