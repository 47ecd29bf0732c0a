"""What the bench reads: events of a web shop as JSON, about 1 KiB each, every one different, the same for a seed.

Like real events they repeat their field names and much of their vocabulary, and differ in ids, times, amounts and
hashes. zstd-3 makes them about four times smaller. A text that repeats itself would flatter every compressor, and
random bytes none.
"""

import random
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass

START_MS = 1_700_000_000_000

_VOCABULARY = (
    "amber anchor apple arrow autumn badge bamboo basket beacon birch blanket blossom bottle branch breeze bridge "
    "bronze bucket butter button cabin cactus camera candle canvas carbon castle cedar chalk cherry circle cliff "
    "clover cobalt coconut compass copper coral cotton cradle crystal curtain cushion daisy desert diamond dolphin "
    "drawer eagle ember engine falcon feather fiddle forest fossil fountain garden ginger glacier glass granite "
    "hammer harbor hazel helmet hollow honey island ivory jacket jasmine jungle kettle ladder lantern lemon linen "
    "magnet maple marble meadow mirror mosaic needle nickel nutmeg oak ocean olive opal orchard paddle panel paper "
    "pebble pepper pillow planet plum pocket prairie quartz quilt rabbit ribbon river rocket saddle saffron salmon "
    "scarf shadow silver sparrow spiral spruce stone summit sunset table tiger timber tulip turtle umbrella valley "
    "velvet violet walnut whistle willow window winter wool zephyr"
)
_WORDS = _VOCABULARY.split()
_KINDS = ("page_view", "add_to_cart", "remove_from_cart", "checkout", "payment", "search", "login", "refund")
_COUNTRIES = ("DE", "FR", "US", "GB", "JP", "BR", "IN", "SE", "PL", "ES", "IT", "NL", "CA", "AU", "MX", "KR")
_AGENTS = tuple(
    f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) {browser}/{major}.0.{build}.{patch} Safari/537.36"
    for system in ("X11; Linux x86_64", "Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7")
    for browser in ("Chrome", "Edg")
    for major, build, patch in ((118, 5993, 70), (119, 6045, 105), (120, 6099, 62), (121, 6167, 85))
)


@dataclass(frozen=True)
class Corpus:
    """One body of data: in a hot topic, and the same bytes in a cold one. `megabytes` are of record values."""

    name: str
    partitions: int
    megabytes: int
    compression: str = "none"  # by the producer

    @property
    def hot(self) -> str:
        """The topic that is archived and stays whole on the broker."""
        return f"hot-{self.name}"

    @property
    def cold(self) -> str:
        """Its twin, which is trimmed."""
        return f"cold-{self.name}"

    @property
    def topics(self) -> tuple[str, str]:
        return self.hot, self.cold


def values(seed: object, megabytes: float) -> Iterator[bytes]:
    """JSON records of together about so many million bytes."""
    left = megabytes * 1e6
    for record in records(seed):
        yield record
        left -= len(record)
        if left <= 0:
            return


def records(seed: object) -> Iterator[bytes]:
    """JSON records of about 1 KiB, without end."""
    chance = random.Random(f"bench/{seed}")
    number = 0
    now = START_MS
    while True:
        now += int(chance.random() * 20)
        number += 1
        yield _record(chance, number, now).encode()


def _record(chance: random.Random, number: int, now: int) -> str:
    bits, pick, uniform = chance.getrandbits, chance.choice, chance.random
    user = int(uniform() * uniform() * 500_000)  # some come more often than others
    price = int(uniform() * 30_000)
    items = ",".join(
        f'{{"sku":"{pick(_WORDS)[:3].upper()}-{int(uniform() * 90_000) + 10_000}",'
        f'"name":"{pick(_WORDS)} {pick(_WORDS)}",'
        f'"quantity":{1 + int(uniform() * 4)},"unit_price_cents":{int(uniform() * 20_000)},'
        f'"category":["{pick(_WORDS)}","{pick(_WORDS)}"]}}'
        for _ in range(1 + int(uniform() * 3))
    )
    return (
        f'{{"event_id":"{bits(128):032x}","sequence":{number},"event_type":"{pick(_KINDS)}",'
        f'"occurred_at_ms":{now},"received_at_ms":{now + int(uniform() * 400)},'
        f'"user":{{"id":{user},"account":"acc-{user % 9973:05d}","segment":"{pick(_WORDS)}",'
        f'"country":"{pick(_COUNTRIES)}","latitude":{uniform() * 180 - 90:.6f},"longitude":{uniform() * 360 - 180:.6f},'
        f'"newsletter":{"true" if uniform() < 0.3 else "false"}}},'
        f'"session":{{"id":"{urlsafe_b64encode(chance.randbytes(33)).decode()}","page":"/shop/{pick(_WORDS)}/{pick(_WORDS)}",'
        f'"referrer":"https://www.example.com/{pick(_WORDS)}?campaign={pick(_WORDS)}-{int(uniform() * 100)}",'
        f'"user_agent":"{pick(_AGENTS)}","duration_ms":{int(uniform() * uniform() * 90_000)}}},'
        f'"cart":{{"currency":"EUR","total_cents":{price},"discount_cents":{int(price * uniform() * 0.2)},'
        f'"items":[{items}]}},'
        f'"trace":{{"service":"{pick(_WORDS)}-service","host":"ip-10-{bits(4)}-{bits(8)}-{bits(8)}","region":"eu-central-1",'
        f'"trace_id":"{bits(128):032x}","span_id":"{bits(64):016x}","attempt":{1 + (uniform() < 0.05)}}}}}'
    )
