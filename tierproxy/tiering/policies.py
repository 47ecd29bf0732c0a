"""What a policy asks of the archiver, and which topics it can't be asked for. Pure."""

from collections.abc import Mapping

from tierproxy.config import Config, TopicPolicy
from tierproxy.tiering.steps import Rules

CHANGED_REST = 180.0
"""Seconds for which nothing is trimmed of a topic that was just proxied until the configuration changed. Gateways in
other processes may not have heard of it, and would pass on that what is trimmed is out of range. Kubernetes takes up to
two minutes to bring a changed ConfigMap to all of them."""


def rules(policy: TopicPolicy, trim_from: float = 0.0) -> Rules:
    """For a partition's machine. `trim_from`: see Rules."""
    return Rules(
        segment_bytes=policy.segment.bytes,
        segment_age=policy.segment.age_ms / 1000,
        keep_time_ms=policy.keep_on_broker.time_ms,
        keep_bytes=policy.keep_on_broker.bytes,
        trim=policy.trim == "delete-records",
        trim_from=trim_from,
    )


class Replaced:
    """Configurations that were in force until lately, and may still be in other processes. Times are monotonic."""

    def __init__(self) -> None:
        self._configs: list[tuple[float, Config]] = []  # until when

    def add(self, config: Config, now: float) -> None:
        """`config` was in force until `now`."""
        self._configs = [each for each in self._configs if each[0] > now]
        self._configs.append((now + CHANGED_REST, config))

    def trim_from(self, topic: str, internal: bool) -> float:
        """The time before which nothing of it is to be trimmed."""
        return max((until for until, config in self._configs if _passes(config, topic, internal)), default=0.0)


def _passes(config: Config, topic: str, internal: bool) -> bool:
    policy = config.policy_for(topic, internal)
    return policy is None or policy.archive is None


def trims(policy: TopicPolicy) -> bool:
    """Whether it ever lets something go from the brokers."""
    keep = policy.keep_on_broker
    return policy.trim == "delete-records" and (keep.time_ms is not None or keep.bytes is not None)


def unfit(settings: Mapping[str, str]) -> str | None:
    """Why a topic with these settings can't be archived; None if it can."""
    policies = {each.strip() for each in settings.get("cleanup.policy", "delete").split(",")}
    if "compact" in policies:
        if "delete" in policies:
            return "it is compacted (cleanup.policy=compact,delete), and an archive would show overwritten records"
        return "it is compacted (cleanup.policy=compact): the broker keeps its latest records itself"
    if settings.get("remote.storage.enable") == "true":
        return "the brokers tier it themselves (remote.storage.enable=true)"
    return None
