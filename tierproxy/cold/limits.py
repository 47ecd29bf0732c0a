"""Rates of cold reads: which partitions of a fetch may have archived records now, how many, or how long to wait.

    limits.cold_read_rate                  all clients of this process
    limits.cold_clients[n].cold_read_rate  those that the entry matches, each for itself or together
    topics[n].cold_read_rate               the topics of that policy, whoever reads them

An answer may take what all rates that apply to it have saved up, or `SHARE` seconds' worth; it is never cut below one
batch, and what was too much is waited for before the next. Clients that share a rate take turns: each that has to wait
gets a place in a line. They don't stand there, they are told when to come, and their place is kept until then. But
records that could go out are never kept for those who don't come: with `SAVED` seconds' worth there, any may take it.

Pure: `now` is handed in, in seconds that never go back.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from tierproxy.config import Config
from tierproxy.rates import TokenBucket
from tierproxy.routing.fetch import Refused
from tierproxy.routing.holds import Client

SHARE = 0.25
"""Seconds' worth that one answer may take: short enough that nobody who is told to wait waits long."""

ROUND = 1.0
"""Seconds in which all who share a rate should have their turn, as far as batches are small enough."""

SAVED = 0.1
"""Seconds' worth that is there for anybody, whoever else has been told to come. Also how late one may be for it."""

PLACES = 10_000
"""How many may stand in one line. Who comes later is told to wait, without a place."""

BUCKETS = 10_000
"""Rates that are remembered. A client id is what a client says it is, so there can be any number."""

CHUNK = 1 << 20
"""Bytes that a partition probably adds to an answer, at most: no more of them are read than there is a portion for."""

INTERNAL_TOPICS = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})


@dataclass(frozen=True, slots=True)
class Limit:
    """One rate in the configuration: `name` is its path there, `kind` a label for metrics."""

    kind: str
    name: str
    rate: int


@dataclass(slots=True)
class _Place:
    number: int
    until: float


class SharedRate:
    """What one limit lets pass, and who waits for it."""

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit = limit
        self._bucket = TokenBucket(limit.rate, now)
        self._line: OrderedDict[Hashable, _Place] = OrderedDict()
        self._numbers = 0

    def wait(self, who: Hashable, now: float) -> float:
        """Seconds until `who` may probably take something; if it isn't now, they have a place in the line."""
        first = self._first(now)
        place = self._line.get(who)
        before = 0 if first is None else (self._numbers if place is None else place.number) - first
        debt = self._bucket.wait(now)
        if not debt and (not before or self._bucket.saved(now) >= SAVED * self.limit.rate):
            return 0.0
        wait = debt + before * self._turn
        if place is not None:
            place.until = now + wait + SAVED
        elif len(self._line) < PLACES:
            self._line[who] = _Place(self._numbers, now + wait + SAVED)
            self._numbers += 1
        return wait

    def share(self, now: float) -> int:
        """Bytes that one answer may take."""
        return max(1, self._bucket.saved(now), int(self.limit.rate * self._turn))

    def take(self, who: Hashable, size: int, now: float) -> None:
        """`who` is served: its turn is over."""
        self._line.pop(who, None)
        self._bucket.spend(size, now)

    def correct(self, more: int, now: float) -> None:
        """It was `more` bytes than that (or less, if negative)."""
        self._bucket.spend(more, now)

    @property
    def _turn(self) -> float:
        """Seconds' worth."""
        return min(SHARE, ROUND / max(1, len(self._line)))

    def _first(self, now: float) -> int | None:
        """The number of the first in the line, those apart who have not come."""
        while self._line:
            who, place = next(iter(self._line.items()))
            if place.until >= now:
                return place.number
            del self._line[who]
        return None


@dataclass(slots=True)
class Claim:
    """What one answer may take. `close` it with the time when the answer is complete, or given up.

    `wait`: seconds until something may be taken, 0.0: now, and it is reserved. `blocked`: by whose limit, if so.
    `portion` is in bytes, all together, `by_topic` of those that are limited; both None: any number.
    """

    client: Client
    rates: list[SharedRate]  # of the whole answer
    by_topic: dict[str, SharedRate]
    wait: float = 0.0
    blocked: Limit | None = None
    shut: frozenset[str] = frozenset()  # topics that get nothing this time
    held_by: Limit | None = None  # for which the answer has waited, or something in it would have
    held: float = 0.0  # seconds
    _reserved: dict[int, tuple[SharedRate, int]] = field(default_factory=dict)
    _used: dict[int, int] = field(default_factory=dict)

    def reserve(self, now: float) -> None:
        for rate in self._all():
            share = rate.share(now)
            rate.take(self.client, share, now)
            self._reserved[id(rate)] = rate, share

    def chosen(self, questions: Sequence[Refused], order: Sequence[int]) -> list[int]:
        """Of the places in `order`, those that are worth being read for: as many as the portion is probably for."""
        if self.wait:
            return []
        found: list[int] = []
        expected: dict[int, int] = {}
        for at in order:
            question = questions[at]
            rates = self._of(question)
            if rates is None:
                continue
            if all(expected.get(id(rate), 0) < self._reserved[id(rate)][1] for rate in rates):
                found.append(at)
                for rate in rates:
                    expected[id(rate)] = expected.get(id(rate), 0) + min(max(1, question.max_bytes), CHUNK)
        return found

    def left(self, question: Refused) -> int:
        """See routing.fetch.Portion."""
        rates = self._of(question) or []
        return min(
            (self._reserved[id(rate)][1] - self._used.get(id(rate), 0) for rate in rates), default=question.max_bytes
        )

    def use(self, question: Refused, size: int) -> None:
        for rate in self._of(question) or []:
            self._used[id(rate)] = self._used.get(id(rate), 0) + size

    def close(self, now: float) -> None:
        """Give back what was not used, and note what was used besides. May be called again."""
        for key, (rate, share) in self._reserved.items():
            rate.correct(self._used.get(key, 0) - share, now)
        self._reserved.clear()
        self._used.clear()

    def next_wait(self, now: float) -> tuple[float, Limit | None]:
        """Seconds until the client's next answer may have something, and by whose limit it is so."""
        waits = [(rate.wait(self.client, now), rate.limit) for rate in self._all()]
        return max(waits, key=lambda each: each[0], default=(0.0, None))

    def _all(self) -> list[SharedRate]:
        """Each once. Those of topics that are shut are others' to take."""
        of_topics = {id(rate): rate for topic, rate in self.by_topic.items() if topic not in self.shut}
        return [*self.rates, *of_topics.values()]

    def _of(self, question: Refused) -> list[SharedRate] | None:
        """The rates that one partition's records count for; None: it may have none."""
        topic = _topic_of(question)
        if topic in self.shut:
            return None
        of_topic = self.by_topic.get(topic)
        return self.rates if of_topic is None else [*self.rates, of_topic]


class ColdLimits:
    """The configuration's rates."""

    def __init__(self, config: Config | None = None) -> None:
        """None: no limits."""
        self._rates: OrderedDict[Hashable, SharedRate] = OrderedDict()
        self.change(config)

    def change(self, config: Config | None) -> None:
        """Other rates from now on, with lines and accounts that begin anew. Claims that are open keep theirs."""
        self._rates.clear()
        self._process: Limit | None = None
        self._clients = config.limits.cold_clients if config is not None else ()
        self._policies: dict[int, Limit] = {}  # by the policy's place
        if config is not None:
            self._process = _limit("process", "limits.cold_read_rate", config.limits.cold_read_rate)
            for index, policy in enumerate(config.topics):
                limit = _limit("policy", f"topics[{index}].cold_read_rate", policy.cold_read_rate)
                if limit is not None:
                    self._policies[index] = limit
        self._config = config
        self._policy_of = lru_cache(maxsize=BUCKETS)(self._find_policy)

    def claim(self, client: Client, questions: Sequence[Refused], now: float) -> Claim:
        """What an answer to `client` may take now for the partitions of `questions`.

        The narrowest rate is asked first: nobody stands in the line of a rate that isn't what holds them up.
        """
        rates: list[SharedRate] = []
        claim = Claim(client, rates, {})
        own = self._of_client(client, now)
        if own is not None:
            rates.append(own)
            claim.wait, claim.blocked = own.wait(client, now), own.limit
            if claim.wait:
                return claim
        topics = {_topic_of(question) for question in questions}
        for topic in topics:
            limit = self._policy_of(topic) if topic and self._policies else None
            if limit is not None:
                claim.by_topic[topic] = self._rate(limit.name, limit, now)
        waits = {id(rate): rate.wait(client, now) for rate in claim.by_topic.values()}
        claim.shut = frozenset(topic for topic, rate in claim.by_topic.items() if waits[id(rate)])
        if claim.shut:
            nearest = min((claim.by_topic[topic] for topic in claim.shut), key=lambda rate: waits[id(rate)])
            claim.blocked = nearest.limit
            if len(claim.shut) == len(topics):
                claim.wait = waits[id(nearest)]
                return claim
        if self._process is not None:
            shared = self._rate(self._process.name, self._process, now)
            rates.append(shared)
            claim.wait = shared.wait(client, now)
            if claim.wait:
                claim.blocked = shared.limit
                return claim
        if not claim.shut:
            claim.blocked = None
        claim.reserve(now)
        return claim

    def _of_client(self, client: Client, now: float) -> SharedRate | None:
        for index, entry in enumerate(self._clients):
            if entry.matches(client.client_id, client.user):
                kind = "client" if entry.client_id is not None else "user"
                limit = _limit(kind, f"limits.cold_clients[{index}].cold_read_rate", entry.cold_read_rate)
                if limit is None:
                    return None
                who = None
                if not entry.shared:
                    who = (
                        client.client_id if entry.client_id is not None else None,
                        client.user if entry.user is not None else None,
                    )
                return self._rate((limit.name, who), limit, now)
        return None

    def _find_policy(self, topic: str) -> Limit | None:
        assert self._config is not None
        policy = self._config.policy_for(topic, topic in INTERNAL_TOPICS)
        return None if policy is None else self._policies.get(self._config.topics.index(policy))

    def _rate(self, key: Hashable, limit: Limit, now: float) -> SharedRate:
        found = self._rates.get(key)
        if found is None:
            found = self._rates[key] = SharedRate(limit, now)
            if len(self._rates) > BUCKETS:
                self._rates.popitem(last=False)
        else:
            self._rates.move_to_end(key)
        return found


def _limit(kind: str, name: str, rate: int | None) -> Limit | None:
    return None if rate is None else Limit(kind, name, rate)


def _topic_of(question: Refused) -> str:
    """Empty where it isn't known yet: then only what the whole answer is limited by counts."""
    if question.tier is not None:
        return question.tier.pid.topic
    return question.topic if isinstance(question.topic, str) else ""
