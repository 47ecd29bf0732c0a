"""What a plan is made of: what brokers and archives have said."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tierproxy.cli.plan.shelve import LogFacts, Shelved
from tierproxy.cluster_view import ClusterView, LogSizes, TopicPartition
from tierproxy.config import TopicPolicy

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Sample:
    """A piece of a topic's log, as it would be stored. Bytes; `offsets` is how many it covers."""

    plain_bytes: int
    stored_bytes: int
    offsets: int


@dataclass
class Facts:
    """What was found. A str in place of an answer is the reason why there is none."""

    at_ms: int
    view: ClusterView
    topics: dict[str, TopicPolicy] = field(default_factory=dict)
    """Those that the plan is about, with an archive."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Of them those that can't be archived, and why not."""
    settings: dict[str, Mapping[str, str]] = field(default_factory=dict)
    logs: dict[TopicPartition, LogFacts] = field(default_factory=dict)
    sizes: dict[int, LogSizes | str] = field(default_factory=dict)
    """Of the logs on each broker."""
    shelves: dict[TopicPartition, Shelved | str | None] = field(default_factory=dict)
    """None: nothing is archived."""
    unclaimed: list[str] = field(default_factory=list)
    """Archives in which nothing says that they are this cluster's."""
    samples: dict[str, Sample | str] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    """What kept the plan from being complete."""

    def partitions(self) -> Iterator[TopicPartition]:
        """Of the topics that can be archived."""
        for name in self.topics:
            if name not in self.unfit:
                for index in self.view.topics[name].partitions:
                    yield TopicPartition(name, index)
