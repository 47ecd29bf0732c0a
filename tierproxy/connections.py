"""The service account's open connections to brokers: made when asked for, one for each address and purpose.

A connection whose authentication is about to expire is replaced; who still waits on the old one gets their answer. An
address that failed is left alone for a moment, and whoever asks meanwhile gets the last reason at once; where it is our
account or certificate that was refused, the moment grows, because that takes a person, and trying may lock the account.
"""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from tierproxy.access import Access
from tierproxy.broker_connection import AccessRefused, Address, BrokerConnection, Unreachable
from tierproxy.clock import Clock

log = logging.getLogger("tierproxy.upstream")

PAUSE = 0.5
"""Seconds for which an address that can't be reached is not tried again."""
REFUSED_PAUSES = (1.0, 30.0)
"""First and longest such pause where we are refused; each is twice the one before."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """The last attempt to connect to an address."""

    at: float
    pause: float
    error: Unreachable


class Connections:
    def __init__(self, access: Access, client_id: str, clock: Clock) -> None:
        self._access = access
        self._client_id = client_id
        self._clock = clock
        self._open: dict[tuple[Address, str], BrokerConnection] = {}
        self._opening: dict[tuple[Address, str], asyncio.Lock] = {}
        self._leaving: set[BrokerConnection] = set()  # replaced, but still waited for
        self._failed: dict[Address, _Failure] = {}
        self._closed = False

    def has(self, address: Address, purpose: str) -> bool:
        return (address, purpose) in self._open

    async def to(self, address: Address, purpose: str) -> BrokerConnection:
        """The open connection to `address` for `purpose`, or a new one. Raises Unreachable."""
        key = (address, purpose)
        async with self._opening.setdefault(key, asyncio.Lock()):
            connection = self._open.get(key)
            if connection is not None and not connection.closed:
                if not connection.stale:
                    return connection
                connection.retire()
                self._leaving = {each for each in (*self._leaving, connection) if not each.closed}
            connection = await self._connect(address)
            if self._closed:
                connection.close()
                raise Unreachable("the connection to the cluster is closed")
            self._open[key] = connection
            return connection

    async def _connect(self, address: Address) -> BrokerConnection:
        failed = self._failed.get(address)
        if failed is not None and self._clock.monotonic() - failed.at < failed.pause:
            raise type(failed.error)(str(failed.error))
        connection = BrokerConnection(*address, self._client_id, self._access)
        try:
            await connection.connect()
        except Unreachable as error:
            if failed is None or type(failed.error) is not type(error):
                log.warning("%s; trying again", error)
            self._failed[address] = _Failure(self._clock.monotonic(), _pause(error, failed), error)
            raise
        if self._failed.pop(address, None) is not None:
            log.info("broker %s:%d is reachable again", *address)
        return connection

    def keep_only(self, known: Collection[Address]) -> None:
        """Close connections to addresses that are nobody's any more, so that moving brokers leave nothing."""
        for key in [key for key in self._open if key[0] not in known]:
            self._open.pop(key).close()
        for address in [address for address in self._failed if address not in known]:
            del self._failed[address]

    def close(self) -> None:
        """Close every connection; whoever waits for an answer gets Unreachable."""
        self._closed = True
        for connection in (*self._open.values(), *self._leaving):
            connection.close()
        self._open.clear()


def _pause(error: Unreachable, before: _Failure | None) -> float:
    if not isinstance(error, AccessRefused):
        return PAUSE
    first, longest = REFUSED_PAUSES
    if before is None or not isinstance(before.error, AccessRefused):
        return first
    return min(longest, 2 * before.pause)
