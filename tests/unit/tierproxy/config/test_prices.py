"""`prices`: amounts of money, each with words for what is wrong."""

import pytest

from tierproxy.config import parse_config
from tierproxy.errors import ConfigError

PLAIN = """\
cluster: {name: prod, bootstrap: [kafka-0:9092]}
listen: {advertised_host: localhost}
"""


@pytest.mark.parametrize("text", ["0.5", "'0.5'", "'${PRICE}'"])
def test_a_price_is_a_number_however_it_came(text: str) -> None:
    config = parse_config(PLAIN + f"prices: {{storage: {text}}}", environ={"PRICE": "0.5"})
    assert config.prices.storage == 0.5


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-1", "-1 is not a price: those go from 0 to 1000000000"),
        (".nan", "nan is not a price: those go from 0 to 1000000000"),
        (".inf", "inf is not a price: those go from 0 to 1000000000"),
        ("free", "must be an amount of money, for example 0.023, not text"),
        ("true", "must be an amount of money, for example 0.023, not true or false"),
    ],
)
def test_what_is_no_price_is_a_fault(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(PLAIN + f"prices: {{storage_classes: {{COLD: {{gets: {text}}}}}}}")
    (fault,) = caught.value.faults
    assert (fault.path, fault.problem) == ("prices.storage_classes.COLD.gets", problem)


def test_a_key_that_is_not_known_is_a_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(PLAIN + "archives: {main: {url: s3://bucket, prices: {put: 1}}}")
    (fault,) = caught.value.faults
    assert fault.path == "archives.main.prices.put"
    assert "did you mean 'puts'?" in fault.problem
