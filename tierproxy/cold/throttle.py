"""Wait for a rate of cold reads within the time that a client waits, and tell it when to come back.

What is held and what is told add up: a client that obeys throttle_time_ms comes when there is something for it, one
that doesn't (librdkafka, aiokafka, all below Fetch v8) comes at once and is held.
"""

import asyncio
import logging

from tierproxy.cold.limits import Claim, ColdLimits
from tierproxy.routing import fetch as fetch_routing
from tierproxy.routing.holds import FetchHold
from tierproxy.telemetry import COLD_THROTTLE_SECONDS, COLD_THROTTLED, Seldom

log = logging.getLogger("tierproxy.cold")

HOT_PATIENCE = 0.05
"""Seconds that an answer waits for a rate if hot partitions were asked for, too: what is written to them meanwhile is
not in it. The broker has answered at once, for it has refused the cold ones, so there is no long poll to wait in."""

MOST_TOLD = 1.0
"""Seconds that a client is told to stay away at the most: it obeys for all partitions of that broker, and may be given
hot ones meanwhile."""

LEAST_NAP = 0.002


class Throttle:
    def __init__(self, limits: ColdLimits) -> None:
        self._limits = limits
        self._lines = Seldom(log, lambda: asyncio.get_running_loop().time())

    async def admit(self, hold: FetchHold) -> Claim:
        """What the answer may take, at the latest when the time is over that it may wait for that."""
        loop = asyncio.get_running_loop()
        began = now = loop.time()
        claim = self._limits.claim(hold.client, hold.refused, now)
        limit = claim.blocked
        if limit is None:
            return claim
        deadline = hold.asked_at + hold.request.max_wait_ms / 1000
        if fetch_routing.enough_hot(hold.response, hold.request):
            deadline = now
        elif not hold.all_cold:
            deadline = min(deadline, now + HOT_PATIENCE)
        while claim.wait and now < deadline:
            # Half of it, because it is a guess: those before may not come.
            await asyncio.sleep(min(max(claim.wait / 2, LEAST_NAP), deadline - now))
            now = loop.time()
            claim = self._limits.claim(hold.client, hold.refused, now)
        claim.held_by, claim.held = limit, now - began
        return claim

    def tell(self, hold: FetchHold, claim: Claim) -> None:
        """The answer is complete. Who reads nothing but archives hears how long to stay away until there is more."""
        now = asyncio.get_running_loop().time()
        claim.close(now)
        limit, seconds = claim.held_by, claim.held
        if hold.all_cold and not hold.reads_hot:
            wait, next_limit = (claim.wait, claim.blocked) if claim.wait else claim.next_wait(now)
            told = min(wait, MOST_TOLD)
            hold.response.throttle_ms = max(hold.response.throttle_ms, round(told * 1000))
            limit, seconds = limit or next_limit, seconds + told
        if limit is not None and (claim.held_by is not None or seconds):
            COLD_THROTTLED.labels(limit.kind).inc()
            COLD_THROTTLE_SECONDS.labels(limit.kind).inc(seconds)
            self._lines.say(limit.name, f"{limit.name} holds archived records up (said once a minute)")
