"""`tierproxy check`, second half: what the facts mean for this configuration. Pure.

A *fault* keeps tierproxy from doing what the configuration says; a *warning* is allowed but hardly meant.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from protocol.apis import ApiKey
from protocol.errors import ErrorCode, error_name
from tierproxy.cli.facts import DELETE, DESCRIBE_CONFIGS, Facts, Versions
from tierproxy.cli.judge_topics import Finding, PolicyUse, judge_topics, names_text
from tierproxy.config import Config, warnings
from tierproxy.config.units import format_size

NEEDED_APIS: Mapping[ApiKey, int] = {
    ApiKey.FETCH: 4,
    ApiKey.LIST_OFFSETS: 1,
    ApiKey.METADATA: 1,
    ApiKey.DELETE_RECORDS: 0,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: 2,
    ApiKey.DESCRIBE_CONFIGS: 1,
}
"""What a broker must offer, with the lowest version that will do: Kafka 2.1 has all of them."""


@dataclass
class Report:
    findings: list[Finding] = field(default_factory=list)
    policies: list[PolicyUse] = field(default_factory=list)
    unmatched: int = 0
    """Topics that no policy matches: they are just proxied."""
    cluster_id: str | None = None

    @property
    def ok(self) -> bool:
        return not any(finding.level == "fault" for finding in self.findings)


def judge(config: Config, facts: Facts) -> Report:
    """The whole report, in the order in which a person would look for trouble."""
    report = Report()
    for fault in warnings(config):
        report.findings.append(Finding("warning", "configuration", fault.path, fault.problem))
    report.findings += _brokers(config, facts)
    if facts.view is not None:
        report.cluster_id = facts.view.cluster_id
        _match_topics(config, facts, report)
        report.findings += judge_topics(config, facts, report.policies)
    report.findings += _rights(facts)
    report.findings += _group(facts)
    report.findings += _archives(config, facts)
    report.findings += _disk_cache(config, facts)
    return report


def _disk_cache(config: Config, facts: Facts) -> Iterator[Finding]:
    about, found = config.cache.disk, facts.disk_cache
    if about is None or found is None:
        return
    subject, wanted = str(about.path), format_size(about.size)
    if isinstance(found, str):
        yield Finding("fault", "disk cache", subject, found)
    elif sum(found) < about.size:
        text = f"has room for {format_size(sum(found))} only, cache.disk.size is {wanted}"
        yield Finding("warning", "disk cache", subject, text)
    else:
        yield Finding("ok", "disk cache", subject, f"has room for {wanted}")


def _archives(config: Config, facts: Facts) -> Iterator[Finding]:
    for name in config.archives:
        reason = facts.archives.get(name)
        owner, cluster = facts.owners.get(name), facts.view.cluster_id if facts.view is not None else None
        if reason is not None:
            yield Finding("fault", "archive", name, reason)
        elif None not in (owner, cluster) and owner != cluster:
            text = f"holds, as {config.cluster.name!r}, Kafka cluster {owner}, not {cluster}: change cluster.name"
            yield Finding("fault", "archive", name, text)
        else:
            yield Finding("ok", "archive", name, "can be read and written, and honours conditional writes")


def _brokers(config: Config, facts: Facts) -> Iterator[Finding]:
    some = None in facts.bootstrap.values()
    for address, reason in facts.bootstrap.items():
        if reason is None:
            yield Finding("ok", "bootstrap", address, "answers")
        else:
            yield Finding("warning" if some and address != "cluster" else "fault", "bootstrap", address, reason)
    if facts.view is None:
        return
    for node, (host, port) in sorted(facts.view.brokers.items()):
        subject = f"broker {node} at {host}:{port}"
        found = facts.brokers.get(node, "was not asked")
        if isinstance(found, str):
            yield Finding("fault", "broker", subject, f"advertises an address that can't be used: {found}")
            continue
        missing = list(_missing(found))
        if missing:
            text = f"lacks what tierproxy needs (Kafka 2.1 or newer has it): {', '.join(missing)}"
            yield Finding("fault", "broker", subject, text)
        else:
            yield Finding("ok", "broker", subject, f"answers; Fetch up to version {found[ApiKey.FETCH][1]}")
        yield from _port(config, node, subject, (host, port))


def _missing(versions: Versions) -> Iterator[str]:
    for key, lowest in NEEDED_APIS.items():
        if key not in versions or versions[key][1] < lowest:
            yield f"{key.name} {lowest}"


def _port(config: Config, node: int, subject: str, address: tuple[str, int]) -> Iterator[Finding]:
    listen, admin = config.listen, config.admin
    if not listen.enabled:
        return
    port = listen.port + 1 + node if listen.sni is None else listen.port
    host = listen.advertised_host if listen.sni is None else listen.sni.broker.replace("{node}", str(node))
    if port > 65535:
        yield Finding("fault", "broker", subject, f"would be served at port {port}: choose a lower listen.port")
    if admin is not None and admin.port == port:
        yield Finding("fault", "broker", subject, f"would be served at port {port}, which is admin.port")
    if address[0] == host and address[1] in (port, listen.port):
        text = "is where tierproxy itself listens: bootstrap must name the brokers' own addresses"
        yield Finding("fault", "broker", subject, text)


def _match_topics(config: Config, facts: Facts, report: Report) -> None:
    assert facts.view is not None
    matched: dict[int, list[str]] = {id(policy): [] for policy in config.topics}
    for topic in facts.view.topics.values():
        policy = config.policy_for(topic.name, topic.internal)
        if policy is None:
            report.unmatched += 1
        else:
            matched[id(policy)].append(topic.name)
    for index, policy in enumerate(config.topics):
        names = sorted(matched[id(policy)])
        partitions = sum(len(facts.view.topics[name].partitions) for name in names)
        report.policies.append(PolicyUse(index, policy, tuple(names), partitions))


def _rights(facts: Facts) -> Iterator[Finding]:
    by_outcome: dict[tuple[str, int], list[str]] = {}
    for topic, rights in sorted(facts.rights.items()):
        for right, error in rights.items():
            by_outcome.setdefault((right, error), []).append(topic)
    for (right, error), topics in sorted(by_outcome.items()):
        subject = f"{right} on {names_text(topics)}"
        if error == ErrorCode.NONE:
            yield Finding("ok", "rights", subject, "granted")
        elif error == ErrorCode.TOPIC_AUTHORIZATION_FAILED and right == DESCRIBE_CONFIGS:
            yield Finding("warning", "rights", subject, "denied: cleanup.policy and retention can't be looked at")
        elif error == ErrorCode.TOPIC_AUTHORIZATION_FAILED:
            yield Finding("fault", "rights", subject, "denied to tierproxy's own account")
        elif error == ErrorCode.POLICY_VIOLATION and right == DELETE:
            yield Finding("warning", "rights", subject, "the broker trims no topic with this cleanup.policy")
        else:
            yield Finding("warning", "rights", subject, f"could not be tried: {error_name(error)}")


def _group(facts: Facts) -> Iterator[Finding]:
    if facts.group is None:
        return
    name, error = facts.group
    subject, alone = f"READ on group {name}", "this archiver would work on everything alone"
    if error == ErrorCode.NONE:
        yield Finding("ok", "rights", subject, "granted")
    elif error == ErrorCode.GROUP_AUTHORIZATION_FAILED:
        yield Finding("warning", "rights", subject, f"denied to tierproxy's own account: {alone}")
    else:
        said = error if isinstance(error, str) else error_name(error)
        yield Finding("warning", "rights", subject, f"could not be tried: {said}; without it {alone}")
