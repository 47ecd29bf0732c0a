"""tierproxy.costs: which price counts for what, and the arithmetic."""

import pytest

from tierproxy.config import Config, parse_config
from tierproxy.costs import GIB, Requests, Saving, StoreRates, broker_disk_month, money, saving, store_rates

PLAIN = """\
cluster: {name: prod, bootstrap: [kafka-0:9092]}
listen: {advertised_host: localhost}
archives:
  main: {url: s3://bucket}
  rare: {url: s3://bucket, storage_class: STANDARD_IA}
  own: {url: s3://bucket, storage_class: STANDARD_IA, prices: {storage: 1, lists: 0}}
  local: {url: file:///a}
  nas: {url: file:///b, prices: {storage: 0.5}}
"""


def config(more: str = "") -> Config:
    return parse_config(PLAIN + more)


OWN = "prices: {broker_disk: 4, storage: 3, puts: 30, storage_classes: {STANDARD_IA: {puts: 7}, ODD: {storage: 2}}}"


@pytest.mark.parametrize(
    ("more", "archive", "storage_class", "expected"),
    [
        ("", "main", None, StoreRates(0.023, 0.005, 0.0004, 0.005, 0.0)),
        ("", "main", "STANDARD_IA", StoreRates(0.0125, 0.01, 0.001, 0.005, 0.01)),
        ("", "main", "standard_ia", StoreRates(0.0125, 0.01, 0.001, 0.005, 0.01)),
        ("", "main", "UNHEARD_OF", StoreRates(0.023, 0.005, 0.0004, 0.005, 0.0)),
        ("", "rare", None, StoreRates(0.0125, 0.01, 0.001, 0.005, 0.01)),
        ("", "rare", "GLACIER_IR", StoreRates(0.004, 0.02, 0.01, 0.005, 0.03)),
        ("", "own", None, StoreRates(1.0, 0.01, 0.001, 0.0, 0.01)),
        ("", "local", None, StoreRates(0.08, 0.0, 0.0, 0.0, 0.0)),
        ("", "nas", None, StoreRates(0.5, 0.0, 0.0, 0.0, 0.0)),
        (OWN, "main", None, StoreRates(3.0, 30.0, 0.0004, 0.005, 0.0)),
        (OWN, "main", "ODD", StoreRates(2.0, 30.0, 0.0004, 0.005, 0.0)),
        (OWN, "rare", None, StoreRates(0.0125, 7.0, 0.001, 0.005, 0.01)),
        (OWN, "local", None, StoreRates(4.0, 0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_what_is_nearest_to_an_object_says_its_price(
    more: str, archive: str, storage_class: str | None, expected: StoreRates
) -> None:
    assert store_rates(config(more), archive, storage_class) == expected


def test_requests_are_priced_by_the_thousand_and_reads_by_the_gib_too() -> None:
    rates = StoreRates(storage=2.0, puts=3.0, gets=5.0, lists=7.0, retrieval=11.0)
    assert rates.storage_month(GIB / 2) == 1.0
    assert rates.asked(Requests(puts=1000)) == 3.0
    assert rates.asked(Requests(gets=2000)) == 10.0
    assert rates.asked(Requests(lists=500)) == 3.5
    assert rates.asked(Requests(read_bytes=3 * GIB)) == 33.0
    both = Requests(1, 2, 3, 4) + Requests(10, 20, 30, 40).times(2)
    assert both == Requests(21, 42, 63, 84)


def test_brokers_keep_a_copy_for_each_replica() -> None:
    assert broker_disk_month(config(), 10 * GIB, 3) == pytest.approx(2.4)


def test_a_saving_may_be_none() -> None:
    rates = store_rates(config(), "main")
    found = saving(config(), rates, log_bytes=100 * GIB, stored_bytes=25 * GIB, replicas=3)
    assert found.on_brokers == pytest.approx(24.0)
    assert found.in_archive == pytest.approx(0.575)
    assert found.saved == pytest.approx(23.425)
    assert Saving(1.0, 2.0).saved == -1.0


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 EUR"),
        (12345.6, "12,346 EUR"),
        (999.994, "999.99 EUR"),
        (12.3, "12.30 EUR"),
        (-2.5, "-2.50 EUR"),
        (0.0042, "0.0042 EUR"),
        (0.00001, "< 0.0001 EUR"),
        (-0.00001, "0 EUR"),
    ],
)
def test_amounts_for_people(amount: float, text: str) -> None:
    assert money(amount, "EUR") == text
