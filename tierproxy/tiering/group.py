"""The archivers' group: carries out what `membership` decides, one action at a time.

The archiver says by `want` what there is to do and asks by `mine` what of it to do here; `changed` tells it that the
answers are others now. A rebalance is one line in the log, however many partitions it moves.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

from protocol.consumer_protocol import (
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from protocol.errors import ErrorCode, MalformedError
from tierproxy import telemetry
from tierproxy.broker_connection import Unreachable, UnsupportedBroker
from tierproxy.clock import Clock
from tierproxy.cluster_view import TopicPartition
from tierproxy.config import ArchiveConfig
from tierproxy.coordinator import Coordinator
from tierproxy.errors import TierproxyError
from tierproxy.telemetry import OncePerChange
from tierproxy.tiering.assignment import by_topic
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
    Sync,
    Synced,
    Unfit,
)

log = logging.getLogger("tierproxy.archiver")

ASSIGNOR = "tierproxy-sticky"
"""What `assignment` does."""
REBALANCE_TIMEOUT = 20.0
"""Seconds that a rebalance waits for members; their heartbeats tell them of it well before."""
LEAVE_TIMEOUT = 2.0


def assignor(archives: Mapping[str, ArchiveConfig]) -> str:
    """The name of the protocol that a group must have in common: of archivers with the same archives only.

    Who archives elsewhere does other work, and half of each would be done. The coordinator refuses them.
    """
    places = sorted(f"{about.url} {about.endpoint_url or ''}" for about in archives.values())
    return f"{ASSIGNOR}-{sha256(chr(10).join(places).encode()).hexdigest()[:8]}"


class ArchiverGroup:
    """This process's membership. `run` it as a task; it leaves the group when it is cancelled."""

    def __init__(
        self,
        coordinator: Coordinator,
        session_timeout: float,
        clock: Clock,
        troubles: OncePerChange,
        changed: Callable[[], None],
    ) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._troubles = troubles
        self._changed = changed
        self._membership = Membership(session_timeout)
        self._topics: tuple[str, ...] = ()
        self._partitions: dict[str, tuple[int, ...]] = {}
        self._told: tuple[str, ...] | None = None  # the topics that we joined for; None: for none so far
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()  # by then we know what to join for

    # ---- the archiver's side -------------------------------------------------------------------------------

    def want(self, topics: Iterable[str], partitions: Mapping[str, Iterable[int]]) -> None:
        """The topics that our policies want archived, and the partitions of every topic: the others may want more."""
        self._topics = tuple(sorted(topics))
        self._partitions = {topic: tuple(sorted(each)) for topic, each in partitions.items()}
        self._news.set()
        self._wanted.set()

    def mine(self, tp: TopicPartition) -> bool:
        """Whether to archive this partition here."""
        return self._membership.mine(tp)

    # ---- the task ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Be a member until cancelled."""
        await self._wanted.wait()
        action = self._membership.begin(self._clock.monotonic())
        try:
            while True:
                event = await self._carry_out(action)
                before, alone = self._membership.share, self._membership.alone
                action = await self._next(event)
                self._say(event, before)
                if self._membership.share != before or self._membership.alone != alone or isinstance(event, Synced):
                    self._changed()
        finally:
            await self._leave()

    async def _next(self, event: Event) -> Action:
        now = self._clock.monotonic()
        if isinstance(event, Joined) and event.leads:  # sharing out many partitions takes too long for clients to wait
            return await asyncio.to_thread(self._membership.on, event, now)
        return self._membership.on(event, now)

    async def _carry_out(self, action: Action) -> Event:
        try:
            match action:
                case Find(not_before):
                    await self._pause(not_before)
                    answer = await self._coordinator.find()
                    return Found(answer.node_id) if answer.error == ErrorCode.NONE else Refused(answer.error)
                case Join():
                    return await self._join(action)
                case Sync():
                    return await self._sync(action)
                case Beat():
                    return await self._beat(action)
        except UnsupportedBroker as error:
            return Unfit(str(error))
        except MalformedError as error:
            return Unfit(f"others than archivers are in the group (choose another archiver.group): {error}")
        except Unreachable as error:
            return Away(str(error))

    async def _join(self, action: Join) -> Event:
        await self._pause(action.not_before)
        topics = self._topics
        told = encode_subscription(Subscription(topics, action.owned, action.generation))
        answer = await self._coordinator.join(action.node_id, action.member_id, told)
        if answer.error != ErrorCode.NONE:
            return Refused(answer.error, answer.member_id)
        self._told = topics
        leads = answer.leader == answer.member_id
        members = {member: decode_subscription(bytes_) for member, bytes_ in answer.members} if leads else {}
        return Joined(answer.generation, answer.member_id, leads, members, self._partitions)

    async def _sync(self, action: Sync) -> Event:
        shares = {member: encode_assignment(by_topic(share)) for member, share in action.shares.items()}
        answer = await self._coordinator.sync(action.node_id, action.generation, action.member_id, shares)
        if answer.error != ErrorCode.NONE:
            return Refused(answer.error)
        found = decode_assignment(answer.assignment)
        return Synced(frozenset(TopicPartition(topic, i) for topic, indexes in found.items() for i in indexes))

    async def _beat(self, action: Beat) -> Event:
        """Wait until it is time for the next heartbeat, or until there is something else to tell the group."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, action.at - self._clock.monotonic())):
                while True:
                    self._news.clear()
                    if self._told != self._topics or self._membership.outdated(self._partitions):
                        return Changed()
                    await self._news.wait()
        error = await self._coordinator.heartbeat(action.node_id, action.generation, action.member_id)
        return Alive() if error == ErrorCode.NONE else Refused(error)

    async def _pause(self, until: float) -> None:
        await asyncio.sleep(max(0.0, until - self._clock.monotonic()))

    async def _leave(self) -> None:
        """So that the others need not wait for our session to time out."""
        member = self._membership
        if member.member_id:
            with contextlib.suppress(TierproxyError, TimeoutError):
                async with asyncio.timeout(LEAVE_TIMEOUT):
                    await self._coordinator.leave(member.node_id, member.member_id)

    # ---- what is said --------------------------------------------------------------------------------------

    def _say(self, event: Event, before: frozenset[TopicPartition]) -> None:
        member, group = self._membership, self._coordinator.group
        if isinstance(event, Synced):
            telemetry.REBALANCES.inc()
            log.info(
                "group %s, generation %d: %d partitions are ours, %d of them new, and %d went to others%s",
                group,
                member.generation,
                len(member.share),
                len(member.share - before),
                len(before - member.share),
                "; we lead the group" if member.leads else "",
            )
        telemetry.PARTITIONS_ASSIGNED.set(len(member.share))
        if member.alone is not None:
            self._troubles.ended("group away", f"group {group}: this archiver does not wait for it any longer")
            self._troubles.began(
                "group alone",
                f"group {group} can't be used: {member.alone}. This archiver works on everything alone; work is done "
                "twice where there are others, and nothing is lost",
            )
            return
        self._troubles.ended("group alone", f"group {group} can be used: archivers share the work")
        if member.trouble is not None:
            self._troubles.began(
                "group away", f"group {group}: {member.trouble}; this archiver keeps what it has, and tries again"
            )
        else:
            self._troubles.ended("group away", f"group {group}: the coordinator answers again")
