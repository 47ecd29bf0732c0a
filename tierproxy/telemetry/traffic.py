"""What clients ask and what they get, by API and tier: the only numbers that every request changes.

Counting with prometheus_client would cost a request 2 µs, where all else that a conversation does for a small one
costs 9. So requests are counted in plain lists (0.4 µs), which are emptied into the metrics now and then (`pulse.py`).
"""

from bisect import bisect_left
from typing import Literal

from prometheus_client import Counter

from protocol.apis import ApiKey
from tierproxy.telemetry.kinds import QUICK, Tally

Tier = Literal["hot", "cold"]

REQUESTS = Counter("tierproxy_requests", "Requests from clients, by API", ["api"])
REQUEST_BYTES = Counter("tierproxy_request_bytes", "Bytes of requests from clients, by API", ["api"])
ANSWER_BYTES = Counter(
    "tierproxy_answer_bytes",
    "Bytes of answers to clients, by API and tier: hot is the broker's answer, cold one that took the archive",
    ["api", "tier"],
)
REQUEST_SECONDS = Tally(
    "tierproxy_request_seconds",
    "From when a request had come until its answer began to come from the broker (hot), or was complete (cold), by API "
    "and tier. A Fetch may wait for records as long as the client says",
    ["api", "tier"],
    buckets=QUICK,
)

_BYTES, _SECONDS, _COUNTS = 0, 1, 2


def api_name(key: int) -> str:
    """As Kafka writes it: `ListOffsets`."""
    return ApiKey(key).name.title().replace("_", "")


class Traffic:
    """Counts that are not in the metrics yet."""

    def __init__(self) -> None:
        self._asked: dict[int, list[int]] = {}  # by API: how many, bytes
        self._answered: dict[Tier, dict[int, list[float]]] = {"hot": {}, "cold": {}}  # by API: bytes, seconds, counts

    def asked(self, api: int, size: int) -> None:
        """A request of `size` bytes has come."""
        seen = self._asked.get(api)
        if seen is None:
            seen = self._asked[api] = [0, 0]
        seen[0] += 1
        seen[1] += size

    def answered(self, api: int, size: int, seconds: float, tier: Tier = "hot") -> None:
        """An answer of `size` bytes is on its way, `seconds` after its request had come."""
        answers = self._answered[tier]
        seen = answers.get(api)
        if seen is None:
            seen = answers[api] = [0.0] * (_COUNTS + len(QUICK) + 1)
        seen[_BYTES] += size
        seen[_SECONDS] += seconds
        seen[_COUNTS + bisect_left(QUICK, seconds)] += 1

    def flush(self) -> None:
        """Have the metrics show everything."""
        asked, self._asked = self._asked, {}
        for api, (count, size) in asked.items():
            REQUESTS.labels(api_name(api)).inc(count)
            REQUEST_BYTES.labels(api_name(api)).inc(size)
        for tier, answers in self._answered.items():
            self._answered[tier] = {}
            for api, seen in answers.items():
                ANSWER_BYTES.labels(api_name(api), tier).inc(seen[_BYTES])
                REQUEST_SECONDS.labels(api_name(api), tier).add(seen[_COUNTS:], seen[_SECONDS])


TRAFFIC = Traffic()
"""That of this process."""
