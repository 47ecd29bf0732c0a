"""What the service account asks a consumer group's coordinator, mostly as a member of the group.

Each question is asked once and its answer handed on as it is: what to do about it is `tiering.membership`'s business.
Every method raises Unreachable when there is no answer, and UnsupportedBroker when the broker and we have no version in
common.
"""

from collections.abc import Mapping

from protocol import group_codec as codec
from protocol.apis import ApiKey
from protocol.consumer_protocol import PROTOCOL_TYPE
from protocol.errors import ErrorCode
from protocol.group_codec import CoordinatorAnswer, GroupDescription, JoinAnswer, SyncAnswer
from tierproxy.upstream import GROUP, REQUEST_TIMEOUT, Cluster


class Coordinator:
    """The coordinator of `group`, wherever it is.

    `protocol` names how partitions are shared out: all members must have it in common. Who doesn't join needs none.
    """

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        protocol: str = "",
        session_timeout_ms: int = 10_000,
        rebalance_timeout_ms: int = 10_000,
    ) -> None:
        self.group = group
        self._protocol = protocol
        self._cluster = cluster
        self._session_ms = session_timeout_ms
        self._rebalance_ms = rebalance_timeout_ms

    async def find(self) -> CoordinatorAnswer:
        """Ask any broker."""
        answer = await self._cluster.ask_any(
            ApiKey.FIND_COORDINATOR,
            lambda version: codec.encode_find_coordinator_request(version, self.group),
            codec.decode_find_coordinator_response,
        )
        if answer.error == ErrorCode.NONE and answer.node_id not in self._cluster.view.brokers:
            await self._cluster.refresh([])  # a broker that has just come
        return answer

    async def join(self, node_id: int, member_id: str, told: bytes) -> JoinAnswer:
        """Waits for a rebalance to come together. `told`: our subscription."""
        return await self._cluster.ask_broker(
            node_id,
            ApiKey.JOIN_GROUP,
            lambda version: codec.encode_join_request(
                version,
                self.group,
                member_id,
                (self._protocol, told),
                protocol_type=PROTOCOL_TYPE,
                session_timeout_ms=self._session_ms,
                rebalance_timeout_ms=self._rebalance_ms,
            ),
            codec.decode_join_response,
            self._rebalance_ms / 1000 + REQUEST_TIMEOUT,
            GROUP,
        )

    async def sync(self, node_id: int, generation: int, member_id: str, shares: Mapping[str, bytes]) -> SyncAnswer:
        """Waits for the leader's `shares`; who isn't the leader has none to give."""
        return await self._cluster.ask_broker(
            node_id,
            ApiKey.SYNC_GROUP,
            lambda version: codec.encode_sync_request(
                version,
                self.group,
                generation,
                member_id,
                shares.items(),
                protocol_type=PROTOCOL_TYPE,
                protocol=self._protocol,
            ),
            codec.decode_sync_response,
            self._rebalance_ms / 1000 + REQUEST_TIMEOUT,
            GROUP,
        )

    async def heartbeat(self, node_id: int, generation: int, member_id: str) -> int:
        """The error code."""
        return await self._cluster.ask_broker(
            node_id,
            ApiKey.HEARTBEAT,
            lambda version: codec.encode_heartbeat_request(version, self.group, generation, member_id),
            codec.decode_heartbeat_response,
            self._session_ms / 1000,  # after that it is too late anyway
            GROUP,
        )

    async def leave(self, node_id: int, member_id: str) -> int:
        """The error code. Not on the connection where we may be waiting to join."""
        return await self._cluster.ask_broker(
            node_id,
            ApiKey.LEAVE_GROUP,
            lambda version: codec.encode_leave_request(version, self.group, member_id),
            codec.decode_leave_response,
        )

    async def describe(self, node_id: int) -> GroupDescription:
        """Who is in the group, asked by whoever wants to know. Needs DESCRIBE on it, which READ implies."""
        return await self._cluster.ask_broker(
            node_id,
            ApiKey.DESCRIBE_GROUPS,
            lambda version: codec.encode_describe_group_request(version, self.group),
            codec.decode_describe_group_response,
        )
