"""docs/compatibility.md says which clients, tools and APIs work: what the tests do, no more and no less."""

import re

from tests.clients import compatibility
from tests.clients.matrix import CLIENTS, OLDER
from tests.clients.tools import TOOLS
from tests.kit import PROJECT


def test_the_page_is_as_it_is_made() -> None:
    assert compatibility.PAGE.read_text() == compatibility.page(), "run `python -m tests.clients.compatibility`"


def test_it_names_every_client_and_tool() -> None:
    page = compatibility.page()
    for row in CLIENTS + OLDER:
        assert f"| {row.name} ({row.language}) | {row.version} |" in page
    for name in TOOLS:
        assert f"| `{name}` |" in page


def test_the_tests_use_every_tool_that_it_names() -> None:
    sources = "".join(file.read_text() for file in (PROJECT / "tests/integration/clients").glob("*.py"))
    assert set(re.findall(r'"(kafka-[a-z-]+)"', sources)) == set(TOOLS)


def test_the_tests_of_security_take_their_clients_from_where_the_table_does() -> None:
    sources = "".join(file.read_text() for file in (PROJECT / "tests/integration/security").glob("test_*.py"))
    for name in ("readers(mechanism)", 'parametrize("mechanism", OWN_ACCOUNT)', 'parametrize("name", BY_SERVER_NAME)'):
        assert name in sources
