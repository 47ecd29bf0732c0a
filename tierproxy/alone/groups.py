"""Consumer groups in memory (Kafka's classic protocol), for as long as the process lives.

A group's members agree in two steps, and all of it begins anew whenever one comes or goes:

    EMPTY ──join──► JOINING ──all have joined, or time is up──► SYNCING ──the leader has assigned──► STABLE
                       ▲                                           │                                    │
                       └───────────── a member joins, leaves or is not heard of in time ────────────────┘

JoinGroup and SyncGroup are answered when the step is complete. As GroupCoordinator does it in Kafka, but that nothing
is written anywhere: not who is a member, and not what was committed.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from uuid import uuid4

from protocol.errors import ErrorCode
from protocol.serving_groups import Committed, JoinAnswer, JoinAsked, SyncAnswer

MOST_GROUPS = 1_000
MOST_OFFSETS = 100_000
"""Offsets that a group may have committed: nobody has more partitions."""
LONGEST_METADATA = 4096
SESSION_MS = (1_000, 1_800_000)
"""Shortest and longest session timeout (Kafka: group.min.session.timeout.ms and max, less strict below)."""


class Phase(Enum):
    EMPTY = "nobody is in it"
    JOINING = "members are waited for"
    SYNCING = "the leader's assignment is waited for"
    STABLE = "everybody knows their partitions"


@dataclass(eq=False)
class _Member:
    member_id: str
    asked: JoinAsked
    joining: asyncio.Future[JoinAnswer] | None = None
    syncing: asyncio.Future[SyncAnswer] | None = None
    assignment: bytes = b""
    expiry: asyncio.TimerHandle | None = None

    @property
    def protocols(self) -> dict[str, bytes]:
        return dict(self.asked.protocols)


@dataclass(eq=False)
class _Group:
    phase: Phase = Phase.EMPTY
    generation: int = 0
    protocol: str = ""
    leader: str = ""
    members: dict[str, _Member] = field(default_factory=dict)
    offsets: dict[tuple[str, int], Committed] = field(default_factory=dict)
    patience: asyncio.TimerHandle | None = None  # with those who haven't joined again

    def supports(self, asked: JoinAsked, but: str) -> bool:
        """Whether all members, without the one called `but`, have a protocol in common with `asked`."""
        others = [member for member in self.members.values() if member.member_id != but]
        if any(member.asked.protocol_type != asked.protocol_type for member in others):
            return False
        common = {name for name, _ in asked.protocols}
        for member in others:
            common &= set(member.protocols)
        return bool(common)


class Groups:
    """All groups of the process. Waits where members must be waited for; needs a running loop."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    async def join(self, group_id: str, asked: JoinAsked) -> JoinAnswer:
        group = self._group(group_id)
        if group is None:
            return JoinAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        if not SESSION_MS[0] <= asked.session_timeout_ms <= SESSION_MS[1]:
            return JoinAnswer(ErrorCode.INVALID_SESSION_TIMEOUT)
        if not asked.protocols or not asked.protocol_type or not group.supports(asked, asked.member_id):
            return JoinAnswer(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        if asked.member_id:
            member = group.members.get(asked.member_id)
            if member is None:
                return JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, member_id=asked.member_id)
            member.asked = asked
        else:
            for old in list(group.members.values()):
                if asked.instance_id is not None and old.asked.instance_id == asked.instance_id:
                    self._forget(group, old, ErrorCode.FENCED_INSTANCE_ID)
            member_id = f"{asked.client_id or 'member'}-{uuid4()}"
            member = group.members[member_id] = _Member(member_id, asked)
        if member.joining is not None and not member.joining.done():
            member.joining.set_result(JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID))  # asked again, on another connection
        joined: asyncio.Future[JoinAnswer] = asyncio.get_running_loop().create_future()
        member.joining = joined
        _stop(member.expiry)
        self._rebalance(group_id, group)
        return await joined

    async def sync(
        self, group_id: str, member_id: str, generation: int, assignments: Sequence[tuple[str, bytes]]
    ) -> SyncAnswer:
        group, error = self._known(group_id, member_id, generation)
        if group is None or error != ErrorCode.NONE:
            return SyncAnswer(error)
        member = group.members[member_id]
        self._heard_of(group_id, group, member)
        if group.phase is Phase.JOINING:
            return SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)
        if group.phase is Phase.SYNCING:
            if member_id != group.leader:
                member.syncing = asyncio.get_running_loop().create_future()
                return await member.syncing
            shares = dict(assignments)
            for each in group.members.values():
                each.assignment = shares.get(each.member_id, b"")
                if each.syncing is not None and not each.syncing.done():
                    each.syncing.set_result(self._share(group, each))
            group.phase = Phase.STABLE
        return self._share(group, member)

    def heartbeat(self, group_id: str, member_id: str, generation: int) -> ErrorCode:
        group, error = self._known(group_id, member_id, generation)
        if group is None or error != ErrorCode.NONE:
            return error
        self._heard_of(group_id, group, group.members[member_id])
        return ErrorCode.REBALANCE_IN_PROGRESS if group.phase is Phase.JOINING else ErrorCode.NONE

    def leave(self, group_id: str, member_id: str, instance_id: str | None) -> ErrorCode:
        group = self._groups.get(group_id)
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        found = group.members.get(member_id)
        if not member_id and instance_id is not None:
            found = next((m for m in group.members.values() if m.asked.instance_id == instance_id), None)
        if found is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        self._forget(group, found, ErrorCode.UNKNOWN_MEMBER_ID)
        self._rebalance(group_id, group)
        return ErrorCode.NONE

    def commit(
        self, group_id: str, member_id: str, generation: int, offsets: Sequence[tuple[str, int, Committed]]
    ) -> list[ErrorCode]:
        """An error for each of the offsets; they are (topic, partition, what is committed)."""
        group, error = self._known(group_id, member_id, generation)
        if generation < 0 and not member_id:  # a consumer that assigns itself its partitions
            group = self._group(group_id)
            error = ErrorCode.UNKNOWN_MEMBER_ID if group is not None and group.members else ErrorCode.NONE
        if group is None:
            return [error or ErrorCode.COORDINATOR_NOT_AVAILABLE] * len(offsets)
        if error != ErrorCode.NONE:
            return [error] * len(offsets)
        if generation >= 0:
            self._heard_of(group_id, group, group.members[member_id])
        errors = []
        for topic, partition, committed in offsets:
            fits = len(committed.metadata or "") <= LONGEST_METADATA and len(group.offsets) < MOST_OFFSETS
            if fits:
                group.offsets[topic, partition] = committed
            errors.append(ErrorCode.NONE if fits else ErrorCode.OFFSET_METADATA_TOO_LARGE)
        return errors

    def committed(self, group_id: str) -> dict[tuple[str, int], Committed]:
        """By (topic, partition)."""
        group = self._groups.get(group_id)
        return {} if group is None else group.offsets

    # -- what moves a group on --------------------------------------------------------------------------------------

    def _rebalance(self, group_id: str, group: _Group) -> None:
        """Somebody has come or gone: all must join (again)."""
        if not group.members:
            _stop(group.patience)
            group.phase, group.patience = Phase.EMPTY, None
            if not group.offsets:
                del self._groups[group_id]
            return
        if group.phase is not Phase.JOINING:
            group.phase = Phase.JOINING
            for member in group.members.values():
                if member.syncing is not None and not member.syncing.done():
                    member.syncing.set_result(SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS))
            longest = max(member.asked.rebalance_timeout_ms for member in group.members.values())
            group.patience = _later(longest, lambda: self._all_joined(group_id, group))
        if all(member.joining is not None for member in group.members.values()):
            self._all_joined(group_id, group)

    def _all_joined(self, group_id: str, group: _Group) -> None:
        """Or those who haven't are no members any more."""
        _stop(group.patience)
        group.patience = None
        for late in [member for member in group.members.values() if member.joining is None]:
            self._forget(group, late, ErrorCode.UNKNOWN_MEMBER_ID)
        if not group.members:
            self._rebalance(group_id, group)
            return
        group.phase = Phase.SYNCING
        group.generation += 1
        first = next(iter(group.members.values()))
        group.leader = group.leader if group.leader in group.members else first.member_id
        group.protocol = next(
            name for name, _ in first.asked.protocols if all(name in m.protocols for m in group.members.values())
        )
        everybody = [
            (member.member_id, member.asked.instance_id, member.protocols[group.protocol])
            for member in group.members.values()
        ]
        for member in group.members.values():
            joined, member.joining = member.joining, None
            self._heard_of(group_id, group, member)
            if joined is not None and not joined.done():
                leads = member.member_id == group.leader
                joined.set_result(
                    JoinAnswer(
                        ErrorCode.NONE,
                        group.generation,
                        member.asked.protocol_type,
                        group.protocol,
                        group.leader,
                        member.member_id,
                        everybody if leads else [],
                    )
                )

    def _heard_of(self, group_id: str, group: _Group, member: _Member) -> None:
        _stop(member.expiry)

        def expired() -> None:
            if member.joining is None and group.members.get(member.member_id) is member:
                self._forget(group, member, ErrorCode.UNKNOWN_MEMBER_ID)
                self._rebalance(group_id, group)

        member.expiry = _later(member.asked.session_timeout_ms, expired)

    @staticmethod
    def _forget(group: _Group, member: _Member, why: ErrorCode) -> None:
        _stop(member.expiry)
        del group.members[member.member_id]
        if member.joining is not None and not member.joining.done():
            member.joining.set_result(JoinAnswer(why))
        if member.syncing is not None and not member.syncing.done():
            member.syncing.set_result(SyncAnswer(why))

    # -- finding them -----------------------------------------------------------------------------------------------

    def _group(self, group_id: str) -> _Group | None:
        """Made if it isn't there; None if there are too many."""
        if group_id not in self._groups and len(self._groups) >= MOST_GROUPS:
            return None
        return self._groups.setdefault(group_id, _Group())

    def _known(self, group_id: str, member_id: str, generation: int) -> tuple[_Group | None, ErrorCode]:
        group = self._groups.get(group_id)
        if group is None or member_id not in group.members:
            return group, ErrorCode.UNKNOWN_MEMBER_ID
        return group, ErrorCode.NONE if generation == group.generation else ErrorCode.ILLEGAL_GENERATION

    @staticmethod
    def _share(group: _Group, member: _Member) -> SyncAnswer:
        return SyncAnswer(ErrorCode.NONE, member.asked.protocol_type, group.protocol, member.assignment)


def _later(milliseconds: int, do: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(milliseconds / 1000, do)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
