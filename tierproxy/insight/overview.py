"""All topics together, and the one sentence about them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from tierproxy.archive.manifest import Sums
from tierproxy.insight.facts import Facts
from tierproxy.insight.picture import Level, PartitionPicture, TopicPicture, Verdict, picture_of_topic
from tierproxy.insight.words import counted


@dataclass(frozen=True, slots=True)
class Overview:
    """All topics together; `topics` in the order of their names."""

    facts: Facts
    now_ms: int
    topics: tuple[TopicPicture, ...]

    @property
    def partitions(self) -> int:
        return sum(len(topic.partitions) for topic in self.topics)

    @property
    def sums(self) -> Sums:
        return sum((topic.sums for topic in self.topics), Sums())

    @property
    def freed_bytes(self) -> int:
        return sum(topic.freed_bytes for topic in self.topics)

    @property
    def lag(self) -> int:
        return sum(topic.lag for topic in self.topics)

    def at_least(self, level: Level) -> list[PartitionPicture]:
        """Partitions that matter so much, the worst first."""
        found = [part for topic in self.topics for part in topic.partitions if part.level >= level]
        return sorted(found, key=lambda part: -part.level)

    @property
    def level(self) -> Level:
        return self._judged.level

    @property
    def verdict(self) -> str:
        """One sentence about everything."""
        return self._judged.text

    @property
    def _judged(self) -> Verdict:
        group, facts = self.facts.group, self.facts
        for level in (Level.BAD, Level.WARNING):
            parts = self.at_least(level)
            if level is Level.BAD and facts.problems:
                return Verdict(Level.BAD, facts.problems[0])
            if level is Level.BAD and group is not None and not group.problem and not group.members and self.topics:
                return Verdict(Level.BAD, f"no archiver is at work: group {group.name} has no members")
            if parts:
                topics = {part.topic for part in parts}
                bad, one = level is Level.BAD, len(parts) == 1
                needs = "needs you" if bad and one else "need you" if bad else "not as it should be"
                return Verdict(level, f"{counted(len(parts), 'partition')} of {counted(len(topics), 'topic')} {needs}")
        if facts.pending:
            return Verdict(Level.NOTE, f"looking: {counted(facts.pending, 'manifest')} still to be read")
        if not self.topics:
            return Verdict(Level.NOTE, "no topic is archived: no policy with an archive matches one")
        return Verdict(Level.OK, f"all is well with {counted(len(self.topics), 'topic')}")


def overview(facts: Facts, now_ms: int, states: Mapping[str, str]) -> Overview:
    topics = (picture_of_topic(topic, now_ms, states) for topic in facts.topics.values())
    return Overview(facts, now_ms, tuple(sorted(topics, key=lambda topic: topic.name)))
