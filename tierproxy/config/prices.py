"""What storage and requests cost: the `prices` section, and what an archive has otherwise.

All of it is an assumption, and is shown as one: no price is ever looked up. Nothing but reports use it.
"""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from tierproxy.config.fields import kind_of
from tierproxy.config.section import Section

DEFAULT_SOURCE = "about what AWS asks in us-east-1 (S3 Standard, EBS gp3), not looked up"
MOST = 1e9


def _price(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,12})?", value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"must be an amount of money, for example 0.023, not {kind_of(value)}")
    if not 0 <= value <= MOST:  # also false for .nan
        raise ValueError(f"{value!r} is not a price: those go from 0 to {MOST:.0f}")
    return float(value)


Price = Annotated[float, BeforeValidator(_price), WithJsonSchema({"type": "number", "minimum": 0, "maximum": MOST})]


class StorePrices(Section):
    """Prices of a store or of one of its storage classes, where they are other than the general ones."""

    storage: Price | None = None
    """A GiB for a month."""
    puts: Price | None = None
    """1,000 writes."""
    gets: Price | None = None
    """1,000 reads."""
    lists: Price | None = None
    """1,000 pages of a listing."""
    retrieval: Price | None = None
    """A GiB read."""


KNOWN_CLASSES = {
    "STANDARD_IA": StorePrices(storage=0.0125, puts=0.01, gets=0.001, retrieval=0.01),
    "ONEZONE_IA": StorePrices(storage=0.01, puts=0.01, gets=0.001, retrieval=0.01),
    "GLACIER_IR": StorePrices(storage=0.004, puts=0.02, gets=0.01, retrieval=0.03),
}
"""What `storage_classes` need not say."""


class PricesConfig(Section):
    """What `tierproxy plan` and the like count with. A directory's storage costs what a broker's disk does, its
    requests nothing, unless its archive says otherwise."""

    currency: Annotated[str, Field(min_length=1, max_length=20)] = "USD"
    """What the prices are in, as it is to be shown."""
    source: Annotated[str, Field(min_length=1, max_length=200)] = DEFAULT_SOURCE
    """Where the prices are from, and of when: shown beside what was counted with them."""
    broker_disk: Price = 0.08
    """A GiB on one broker's disk for a month; each replica has its own."""
    storage: Price = 0.023
    """A GiB in a store for a month."""
    puts: Price = 0.005
    """1,000 writes."""
    gets: Price = 0.0004
    """1,000 reads."""
    lists: Price = 0.005
    """1,000 pages of a listing."""
    retrieval: Price = 0.0
    """A GiB read from a store."""
    storage_classes: dict[str, StorePrices] = Field(default_factory=dict)
    """What is other for objects of a class. Those of AWS need not be given."""
