"""The archivers' group played by seed: some archivers, a coordinator, and everything that goes wrong between them.

The machine and the assignment are the real ones. The coordinator is a model of Kafka's, of the classic protocol:
members with sessions, a rebalance that waits for all of them, a leader that shares out. Archivers are killed, stand
still and come back; the coordinator is away, moves, and forgets all that it knew; topics grow.

What must hold: an archiver works on all that the group last gave it, until the group gives it something else. And when
the trouble ends, each partition is soon one living archiver's, in equal shares, whoever is left.
"""

import random
from dataclasses import dataclass, field

import pytest

from protocol.consumer_protocol import Subscription
from protocol.errors import ErrorCode
from tierproxy.cluster_view import TopicPartition
from tierproxy.tiering.membership import (
    Action,
    Alive,
    Away,
    Beat,
    Changed,
    Event,
    Find,
    Found,
    Join,
    Joined,
    Membership,
    Refused,
    Synced,
)

SESSION = 10.0
REBALANCE = 20.0
TURNS = 400
CALM_TURNS = 1500


@dataclass
class Known:
    """A member as the coordinator knows it. `joining`: whose JoinGroup waits; `syncing`: whose SyncGroup does."""

    seen: float
    subscription: Subscription | None = None
    joining: "Archiver | None" = None
    syncing: "Archiver | None" = None


class Coordinator:
    def __init__(self) -> None:
        self.node = 1
        self.up = True
        self.generation = 0
        self.members: dict[str, Known] = {}
        self.shares: dict[str, frozenset[TopicPartition]] | None = None
        """Of this generation; None while a rebalance goes on or its leader has not spoken yet."""
        self.rebalancing_since: float | None = None
        self._names = 0

    def forget(self) -> None:
        """As one that has lost its log: nobody is known, and whoever waits is cut off."""
        for known in self.members.values():
            for waiting in (known.joining, known.syncing):
                if waiting is not None:
                    waiting.answer = Away("cut off")
        self.members, self.shares, self.rebalancing_since = {}, None, None

    def ask(self, archiver: "Archiver", action: Action, now: float) -> Event | None:
        """The answer to a request; None if it comes later."""
        if not self.up:
            return Away("no answer")
        if isinstance(action, Find):
            return Found(self.node)
        if action.node_id != self.node:
            return Refused(ErrorCode.NOT_COORDINATOR)
        known = self.members.get(action.member_id)
        if isinstance(action, Join) and not action.member_id:
            self._names += 1
            self.members[f"m{self._names}"] = Known(now)
            return Refused(ErrorCode.MEMBER_ID_REQUIRED, f"m{self._names}")
        if known is None:
            return Refused(ErrorCode.UNKNOWN_MEMBER_ID)
        known.seen = now
        if isinstance(action, Join):
            known.subscription = Subscription(archiver.topics, action.owned, action.generation)
            known.joining = archiver
            self._rebalance(now)
            return None
        if self.rebalancing_since is not None:
            return Refused(ErrorCode.REBALANCE_IN_PROGRESS)
        if action.generation != self.generation:
            return Refused(ErrorCode.ILLEGAL_GENERATION)
        if isinstance(action, Beat):
            return Alive()
        known.syncing = archiver
        if action.shares:
            self.shares = dict(action.shares)
        return None

    def tick(self, now: float, partitions: dict[str, tuple[int, ...]]) -> None:
        for member, known in list(self.members.items()):
            if not (known.joining or known.syncing) and now - known.seen > SESSION:
                del self.members[member]
                self._rebalance(now)
        if self.rebalancing_since is not None:
            late = now - self.rebalancing_since > REBALANCE
            waited_for = {member: known for member, known in self.members.items() if known.subscription}
            for member, known in waited_for.items():
                if known.joining is None and late:
                    del self.members[member]
            here = [known for known in self.members.values() if known.joining]
            if here and len(here) == sum(member in self.members for member in waited_for):
                self._complete(now, partitions)
            elif not waited_for:
                self.rebalancing_since = None
        elif self.shares is not None:
            for member, known in self.members.items():
                if known.syncing is not None:
                    known.syncing.answer = Synced(self.shares.get(member, frozenset()))
                    known.syncing, known.seen = None, now

    def _rebalance(self, now: float) -> None:
        if self.rebalancing_since is None:
            self.rebalancing_since, self.shares = now, None
            for known in self.members.values():
                if known.syncing is not None:
                    known.syncing.answer = Refused(ErrorCode.REBALANCE_IN_PROGRESS)
                    known.syncing = None

    def _complete(self, now: float, partitions: dict[str, tuple[int, ...]]) -> None:
        self.generation += 1
        self.rebalancing_since = None
        everyone = {member: each.subscription for member, each in self.members.items() if each.subscription}
        leader = min(everyone)
        for member in everyone:
            known, leads = self.members[member], member == leader
            assert known.joining is not None
            known.joining.answer = Joined(self.generation, member, leads, everyone if leads else {}, partitions)
            known.joining, known.seen = None, now


@dataclass
class Archiver:
    topics: tuple[str, ...]
    membership: Membership = field(default_factory=lambda: Membership(SESSION))
    action: Action | None = None
    answer: Event | None = None
    waits: bool = False
    stands_still: bool = False
    share: frozenset[TopicPartition] = frozenset()

    def turn(self, coordinator: Coordinator, now: float, partitions: dict[str, tuple[int, ...]]) -> None:
        if self.stands_still:
            return
        if self.action is None:
            self.action = self.membership.begin(now)
        if self.waits and self.answer is None:
            return
        event, self.answer = self.answer, None
        if not self.waits:
            action = self.action
            if isinstance(action, Beat) and self.membership.outdated(partitions):
                event = Changed()
            elif now < (action.at if isinstance(action, Beat) else getattr(action, "not_before", 0.0)):
                return
            else:
                event = coordinator.ask(self, action, now)
        self.waits = event is None
        if event is None:
            return
        self.action = self.membership.on(event, now)
        if isinstance(event, Synced):
            self.share = event.share
        assert self.membership.share == self.share
        assert all(self.membership.mine(tp) for tp in self.share)


class Play:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.coordinator = Coordinator()
        self.partitions: dict[str, tuple[int, ...]] = {"a": tuple(range(7)), "b": (0, 1)}
        self.archivers = [self._new() for _ in range(3)]

    def _new(self) -> Archiver:
        return Archiver(("a", "b"))

    def turn(self) -> None:
        self.now += self.chance.choice([0.0, 0.1, 0.5])
        self.coordinator.tick(self.now, self.partitions)
        self.chance.choice(self.archivers).turn(self.coordinator, self.now, self.partitions)

    def trouble(self) -> None:
        coordinator, some = self.coordinator, self.chance.randrange(len(self.archivers))
        match self.chance.randrange(40):
            case 0:
                self.archivers[some] = self._new()  # killed; the coordinator is left with a ghost
            case 1:
                self.archivers[some].stands_still = True
            case 2 | 3:
                self.archivers[some].stands_still = False
            case 4:
                coordinator.up = False
            case 5 | 6:
                coordinator.up = True
            case 7:
                coordinator.node += 1
            case 8:
                coordinator.forget()
            case 9:
                self.now += self.chance.uniform(1, 30)
            case 10:
                self.partitions = {**self.partitions, "a": (*self.partitions["a"], len(self.partitions["a"]))}
            case 11 if len(self.archivers) < 5:
                self.archivers.append(self._new())
            case 12 if len(self.archivers) > 1:
                del self.archivers[some]


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_whatever_happens_the_living_share_everything_in_the_end(first: int) -> None:
    for seed in range(first, first + 20):
        play = Play(seed)
        for _ in range(TURNS):
            play.trouble()
            play.turn()
        play.coordinator.up = True
        for archiver in play.archivers:
            archiver.stands_still = False
        for _ in range(CALM_TURNS):
            play.turn()
        everything = [TopicPartition(topic, index) for topic, all_of in play.partitions.items() for index in all_of]
        shares = [[tp for tp in everything if each.membership.mine(tp)] for each in play.archivers]
        assert sorted(tp for share in shares for tp in share) == sorted(everything), seed
        assert max(map(len, shares)) - min(map(len, shares)) <= 1, seed
        assert all(each.membership.trouble is None for each in play.archivers), seed
