"""What an archive costs, and what the brokers' disks would: arithmetic with the prices of the configuration. Pure.

Sizes are bytes, prices are of GiBs (as clouds bill them), amounts are in `prices.currency` and for a month of 730
hours. What traffic between networks costs is not in it, nor what a store asks for objects that are removed early.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from tierproxy.config import Config
from tierproxy.config.prices import KNOWN_CLASSES, StorePrices

GIB = 2**30
MONTH_MS = 730 * 3_600_000


@dataclass(frozen=True, slots=True)
class Requests:
    """What is asked of a store: how often, and how many bytes it is asked to give."""

    puts: float = 0.0
    gets: float = 0.0
    lists: float = 0.0
    read_bytes: float = 0.0

    def __add__(self, other: "Requests") -> "Requests":
        return Requests(
            self.puts + other.puts,
            self.gets + other.gets,
            self.lists + other.lists,
            self.read_bytes + other.read_bytes,
        )

    def times(self, factor: float) -> "Requests":
        return Requests(self.puts * factor, self.gets * factor, self.lists * factor, self.read_bytes * factor)


@dataclass(frozen=True, slots=True)
class StoreRates:
    """What one place for archived objects costs."""

    storage: float
    puts: float
    gets: float
    lists: float
    retrieval: float

    def storage_month(self, stored_bytes: float) -> float:
        """Keeping so much for a month."""
        return stored_bytes / GIB * self.storage

    def asked(self, requests: Requests) -> float:
        """Asking for so much, once."""
        each = self.puts * requests.puts + self.gets * requests.gets + self.lists * requests.lists
        return each / 1000 + requests.read_bytes / GIB * self.retrieval


def store_rates(config: Config, archive: str, storage_class: str | None = None) -> StoreRates:
    """Those of an archive of the configuration, for objects of this class (None: the archive's own).

    What the archive says of itself counts first, then what is said of the class, then the general prices.
    """
    about, prices = config.archives[archive], config.prices
    storage_class = (storage_class or about.storage_class or "").upper()
    told = [about.prices]
    if urlsplit(about.url).scheme == "file":
        told.append(StorePrices(storage=prices.broker_disk, puts=0.0, gets=0.0, lists=0.0, retrieval=0.0))
    told += [each[storage_class] for each in (prices.storage_classes, KNOWN_CLASSES) if storage_class in each]

    def price(name: str) -> float:
        said = (getattr(each, name) for each in told)
        return float(next((value for value in said if value is not None), getattr(prices, name)))

    return StoreRates(price("storage"), price("puts"), price("gets"), price("lists"), price("retrieval"))


def broker_disk_month(config: Config, log_bytes: float, replicas: float) -> float:
    """Keeping so many bytes of log on the brokers for a month, once for each replica."""
    return log_bytes * replicas / GIB * config.prices.broker_disk


@dataclass(frozen=True, slots=True)
class Saving:
    """The same records for a month, here and there."""

    on_brokers: float
    in_archive: float

    @property
    def saved(self) -> float:
        """Negative where the archive is dearer."""
        return self.on_brokers - self.in_archive


def saving(config: Config, rates: StoreRates, log_bytes: float, stored_bytes: float, replicas: float) -> Saving:
    """What archived records save that the brokers have let go: `log_bytes` of log, `stored_bytes` in the archive."""
    return Saving(broker_disk_month(config, log_bytes, replicas), rates.storage_month(stored_bytes))


def money(value: float, currency: str) -> str:
    """For people: `1,234 USD`, `12.30 USD`, `0.0042 USD`."""
    return f"{amount(value)} {currency}"


def amount(value: float) -> str:
    """As money(), without the currency."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 0.1:
        return f"{value:.2f}"
    if size >= 1e-4:
        return f"{value:.2g}"
    return "< 0.0001" if value > 0 else "0"
