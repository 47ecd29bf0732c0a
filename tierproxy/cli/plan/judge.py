"""`tierproxy plan`, second half: what the facts come to with this configuration. Pure."""

from collections.abc import Mapping

from protocol.errors import error_name
from protocol.messages import NO_TOPIC_ID
from tierproxy.cli.plan.facts import Facts, Sample
from tierproxy.cli.plan.numbers import ARCHIVE, OTHERS, SAMPLE, Estimate, Plan, TopicPlan
from tierproxy.cli.plan.shelve import Shelved
from tierproxy.cli.plan.topic import TopicJudge
from tierproxy.config import Config, Keep


def judge(config: Config, facts: Facts, months: int) -> Plan:
    """The whole plan; `months` from now lies what it calls later."""
    plan = Plan(months, troubles=list(facts.troubles))
    ratios = _ratios(facts)
    problems: dict[str, list[str]] = {}
    for name, policy in facts.topics.items():
        index = config.topics.index(policy)
        if name in facts.unfit:
            plan.topics.append(TopicPlan(name, index, excluded=facts.unfit[name]))
            continue
        judged = TopicJudge(config, facts, policy, facts.view.topics[name], ratios.get(name), months)
        partitions = tuple(judged.partition(number) for number in judged.topic.partitions)
        plan.topics.append(TopicPlan(name, index, "", ratios.get(name), judged.window_ms, partitions))
        for each in partitions:
            if each.problem:
                problems.setdefault(each.problem, []).append(f"{name}-{each.index}")
    for problem, names in problems.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        plan.troubles.append(f"{', '.join(names[:3])}{more}: {problem}")
    plan.notes += _notes(facts, plan)
    return plan


def _ratios(facts: Facts) -> dict[str, Estimate]:
    """How much smaller each topic is stored: by what is archived of it, or by a sample, or by its policy's samples."""
    archived: dict[str, list[Shelved]] = {}
    for tp, shelf in facts.shelves.items():
        if isinstance(shelf, Shelved) and shelf.stored_bytes:
            archived.setdefault(tp.topic, []).append(shelf)
    found: dict[str, Estimate] = {}
    sampled: dict[int, list[Sample]] = {}
    for name, policy in facts.topics.items():
        sample = facts.samples.get(name)
        if name in archived:
            plain = sum(each.plain_bytes for each in archived[name])
            found[name] = Estimate(plain / sum(each.stored_bytes for each in archived[name]), ARCHIVE)
        elif isinstance(sample, Sample):
            found[name] = Estimate(sample.plain_bytes / sample.stored_bytes, SAMPLE)
            sampled.setdefault(id(policy), []).append(sample)
    for name, policy in facts.topics.items():
        samples = sampled.get(id(policy))
        if name not in found and name not in facts.samples and samples:
            plain = sum(each.plain_bytes for each in samples)
            found[name] = Estimate(plain / sum(each.stored_bytes for each in samples), OTHERS)
    return found


def _notes(facts: Facts, plan: Plan) -> list[str]:
    """What the numbers don't say themselves."""
    notes = []
    total = plan.numbers
    if total.lost_offsets:
        notes.append(f"{total.lost_offsets} offsets were deleted before they were archived: gaps will be recorded")
    for name in sorted(facts.unclaimed):
        notes.append(
            f"archive {name} has nothing of this cluster yet; if it should have, see whether cluster.name and url are "
            "right, and a directory is mounted"
        )
    for reason, nodes in _by_reason(facts).items():
        notes.append(f"broker {', '.join(nodes)} does not tell how large its logs are ({reason})")
    for reason, names in _reasons(facts.samples).items():
        notes.append(f"no sample of {names}: {reason}")
    untold = [name for name in facts.topics if name not in facts.settings]
    if untold:
        notes.append(f"settings of {_some(untold)} can't be read: compaction and the brokers' retention are not known")
    nameless = [
        name
        for name, policy in facts.topics.items()
        if facts.view.topics[name].topic_id == NO_TOPIC_ID and policy.keep_on_broker != Keep()
    ]
    if nameless:
        why = "the brokers give no topic ids (Kafka has them from 2.8 on)"
        notes.append(f"{_some(nameless)} would not be trimmed: {why}")
    return notes


def _by_reason(facts: Facts) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node, said in sorted(facts.sizes.items()):
        reason = said if isinstance(said, str) else error_name(said.error) if said.error else ""
        if reason:
            found.setdefault(reason, []).append(str(node))
    return found


def _reasons(samples: Mapping[str, Sample | str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for name, sample in samples.items():
        if isinstance(sample, str):
            found.setdefault(sample, []).append(name)
    return {reason: _some(names) for reason, names in found.items()}


def _some(names: list[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
