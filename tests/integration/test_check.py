"""`tierproxy check` at a real Kafka which grants tierproxy's account some things and not others.

A cluster of its own: the stage's has no access rules. On it everybody may do everything with topics without
rules; a rule on a topic forbids all that it does not allow.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.kit import admin
from tests.kit.kafka import Cluster
from tests.kit.producing import produce
from tests.kit.proxy import Proxy
from tests.kit.records import drafts

RULES = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("kafka"), properties=RULES) as cluster:
        admin.create_topic(cluster.bootstrap, "open", 3, retention_ms=-1)
        admin.create_topic(cluster.bootstrap, "compacted", cleanup_policy="compact")
        admin.create_topic(cluster.bootstrap, "both", cleanup_policy="compact,delete", retention_ms=1000)
        admin.create_topic(cluster.bootstrap, "short", retention_ms=1000)
        admin.create_topic(cluster.bootstrap, "locked")
        admin.create_topic(cluster.bootstrap, "other")
        allow(cluster.bootstrap, "locked", AclOperation.DESCRIBE)
        yield cluster


def allow(bootstrap: str, name: str, operation: AclOperation, resource: ResourceType = ResourceType.TOPIC) -> None:
    binding = AclBinding(
        resource,
        name,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        operation,
        AclPermissionType.ALLOW,
    )
    client = AdminClient({"bootstrap.servers": bootstrap})  # its futures end with it
    client.create_acls([binding])[binding].result(90)


def check(proxy: Proxy, status: int) -> dict[str, Any]:
    done = proxy.cli("check", "--json", check=False)
    assert done.returncode == status, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def findings(answer: dict[str, Any], area: str) -> dict[str, tuple[str, str]]:
    return {each["subject"]: (each["level"], each["text"]) for each in answer["findings"] if each["area"] == area}


def test_all_is_well(kafka: Cluster, tmp_path: Path) -> None:
    policies: list[dict[str, Any]] = [
        {"match": "open", "archive": "local", "keep_on_broker": {"time": "1d"}},
        {"match": "*", "archive": "none"},
    ]
    answer = check(Proxy(tmp_path, kafka.bootstrap, policies), 0)
    assert {each["level"] for each in answer["findings"]} == {"ok"}
    assert answer["cluster"] == {"name": "kit", "id": kafka.cluster_id}
    rights = ("DELETE", "DESCRIBE", "DESCRIBE_CONFIGS", "READ")
    group = "READ on group tierproxy-archiver-kit"
    assert set(findings(answer, "rights")) == {f"{right} on open" for right in rights} | {group}
    assert len(findings(answer, "bootstrap")) == len(findings(answer, "broker")) == 1
    first, second = answer["policies"]
    assert (first["topics"], first["partitions"]) == (["open"], 3)
    assert set(second["topics"]) >= {"compacted", "locked", "other"}


def test_what_is_denied_is_named(kafka: Cluster, tmp_path: Path) -> None:
    answer = check(Proxy(tmp_path, kafka.bootstrap, [{"match": "locked", "archive": "local"}]), 1)
    rights = findings(answer, "rights")
    assert rights["DESCRIBE on locked"] == ("ok", "granted")
    assert rights["READ on locked"] == ("fault", "denied to tierproxy's own account")
    assert rights["DELETE on locked"] == ("fault", "denied to tierproxy's own account")
    assert rights["DESCRIBE_CONFIGS on locked"][0] == "warning"


def test_delete_is_not_needed_where_nothing_is_trimmed(kafka: Cluster, tmp_path: Path) -> None:
    answer = check(Proxy(tmp_path, kafka.bootstrap, [{"match": "open", "archive": "local", "trim": "never"}]), 0)
    assert "DELETE on open" not in findings(answer, "rights")


def test_settings_that_do_not_go_with_an_archive_are_warned_of(kafka: Cluster, tmp_path: Path) -> None:
    policies = [{"match": match, "archive": "local"} for match in ("comp*", "bo?h", "no-such", "short")]
    answer = check(Proxy(tmp_path, kafka.bootstrap, policies), 0)
    topics = [(each["subject"], each["text"]) for each in answer["findings"] if each["area"] == "topics"]
    compacted = "is not archived: it is compacted (cleanup.policy=compact): the broker keeps its latest records itself"
    assert ("compacted", compacted) in topics
    assert any(subject == "both" and text.startswith("is not archived: it is compacted") for subject, text in topics)
    assert any(
        subject == "short" and text.startswith("retention.ms is 1s, segment.age 10m") for subject, text in topics
    )
    assert ("topics[2]", "'no-such' matches no topic that exists and that tierproxy may see") in topics
    assert findings(answer, "rights")["DELETE on compacted"][0] == "warning"


def test_which_policy_a_topic_has_and_why(kafka: Cluster, tmp_path: Path) -> None:
    policies = [{"match": "/o.*n/", "compression": "zstd-9"}, {"match": "*", "archive": "none"}]
    proxy = Proxy(tmp_path, kafka.bootstrap, policies, settings={"defaults": {"archive": "local"}})
    done = proxy.cli("check", "--json", "--topic", "o*", "--topic", "to.come", "--topic", "__consumer_offsets")
    opened, other, to_come, internal = json.loads(done.stdout)["topics"]
    assert (opened["topic"], opened["known"], opened["policy"]) == (
        "open",
        "3 partitions",
        {"index": 0, "match": "/o.*n/"},
    )
    assert opened["values"]["archive"] == {"value": "local", "from": "defaults"}
    assert (other["topic"], other["policy"]["index"]) == ("other", 1)
    assert other["before"] == [{"index": 0, "match": "/o.*n/", "reason": "does not match the whole name"}]
    assert (to_come["policy"]["index"], to_come["known"]) == (1, "does not exist, or tierproxy may not see it")
    assert internal["policy"] is None
    text = proxy.cli("check", "--topic", "open").stdout
    assert text.startswith("open: topics[0] '/o.*n/'\n  3 partitions\n")
    failed = proxy.cli("check", "--topic", "no.*", check=False)
    assert (failed.returncode, failed.stderr) == (
        1,
        "tierproxy: 'no.*' matches no topic that exists and that tierproxy may see\n",
    )


def test_without_the_right_on_the_group_an_archiver_works_alone(kafka: Cluster, tmp_path: Path) -> None:
    """`check` warns of it, and `serve` says it once and archives."""
    allow(kafka.bootstrap, "tierproxy-archiver-shut-out", AclOperation.DESCRIBE, ResourceType.GROUP)
    admin.create_topic(kafka.bootstrap, "alone", 3, retention_ms=-1)
    for partition in range(3):
        produce(kafka.bootstrap, "alone", drafts(20, partition=partition, seed=2))
    policy = {"match": "alone", "archive": "local", "segment": {"age": "200ms"}}
    with Proxy(tmp_path, kafka.bootstrap, [policy], cluster="shut-out") as proxy:
        assert proxy.process is not None
        proxy.process.wait_until(lambda: len(proxy.manifests("alone")) == 3, seconds=60, what="archive")
        answer = check(proxy, 0)
        name = "READ on group tierproxy-archiver-shut-out"
        said = "denied to tierproxy's own account: this archiver would work on everything alone"
        assert findings(answer, "rights")[name] == ("warning", said)
        assert proxy.log().count("tierproxy's own account needs READ on the group") == 1


def test_checking_changes_nothing(kafka: Cluster, tmp_path: Path) -> None:
    produce(kafka.bootstrap, "open", drafts(30, partition=0, seed=1))
    before = (admin.earliest(kafka.bootstrap, "open", 3), admin.latest(kafka.bootstrap, "open", 3))
    proxy = Proxy(tmp_path, kafka.bootstrap, [{"match": "open", "archive": "local"}])
    check(proxy, 0)
    assert (admin.earliest(kafka.bootstrap, "open", 3), admin.latest(kafka.bootstrap, "open", 3)) == before
    assert [file for file in proxy.archive.rglob("*") if file.is_file() and not file.name.startswith(".")] == []


def test_a_plan_says_what_it_may_not_know(kafka: Cluster, tmp_path: Path) -> None:
    """`sealed` may be described and not read: its size is known, and not how well it compresses."""
    admin.create_topic(kafka.bootstrap, "sealed", retention_ms=-1)
    produce(kafka.bootstrap, "sealed", drafts(100, partition=0, seed=3))
    allow(kafka.bootstrap, "sealed", AclOperation.DESCRIBE)
    policy = {"match": "sealed", "archive": "local", "keep_on_broker": {"bytes": "0B"}}
    done = Proxy(tmp_path, kafka.bootstrap, [policy]).cli("plan", "--json", "--partitions")
    answer = json.loads(done.stdout)
    topic = answer["policies"][0]["topics"][0]
    assert topic["compression"] is None
    assert topic["partitions"][0]["offset_bytes"]["source"] == "measured"
    assert (topic["total"]["backlog_offsets"], topic["total"]["unpressed"]) == (100, 1)
    assert topic["total"]["freed_bytes"] == topic["total"]["disk_bytes"] > 0
    told = ("no sample of sealed: can't be fetched: TOPIC_AUTHORIZATION_FAILED", "settings of sealed can't be read")
    assert all(any(note.startswith(each) for note in answer["notes"]) for each in told)


def test_a_broker_that_is_down_is_a_fault_and_the_rest_is_still_checked(kafka: Cluster, tmp_path: Path) -> None:
    proxy = Proxy(tmp_path, kafka.bootstrap + ",127.0.0.1:1", [{"match": "open", "archive": "local"}])
    answer = check(proxy, 0)
    level, text = findings(answer, "bootstrap")["127.0.0.1:1"]
    assert (level, "127.0.0.1:1" in text) == ("warning", True)
    assert findings(answer, "archive") == {"local": ("ok", "can be read and written, and honours conditional writes")}


def test_nobody_there(tmp_path: Path) -> None:
    answer = check(Proxy(tmp_path, "127.0.0.1:1", [{"match": "*", "archive": "local"}]), 1)
    assert findings(answer, "bootstrap")["127.0.0.1:1"][0] == "fault"
    assert answer["cluster"]["id"] is None
