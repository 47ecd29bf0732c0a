"""docs/compatibility.md, made of what the tests do and of the product's own tables.

`python -m tests.clients.compatibility` writes it; a unit test fails while it is another.
"""

from collections.abc import Iterable, Sequence

from protocol.apis import ApiKey
from tests.clients import security
from tests.clients.client import CLASSIC, NEXT
from tests.clients.matrix import CLIENTS, OLDER, Row
from tests.clients.tools import TOOLS
from tests.kit import PROJECT
from tierproxy.routing.table import OFFERED, TREATMENTS, treatment

PAGE = PROJECT / "docs" / "compatibility.md"
HEAD = "# Compatibility\n\n<!-- made by `python -m tests.clients.compatibility`: change that, not this -->\n"

_PROTOCOLS = {CLASSIC: "classic", NEXT: "KIP-848"}
_WIRE = (ApiKey.FETCH, ApiKey.LIST_OFFSETS, ApiKey.METADATA, ApiKey.FIND_COORDINATOR)


_CLIENTS = """\
**Clients.** Each of these reads in `make test` what was produced, to the byte: from the archive, from the broker and
across the seam, in both isolation levels and with the group protocols named here. It resets to the earliest offset and
by time, seeks into the archive, and resumes a group there. Those in Go and JavaScript only where Go and Node.js are.
The numbers are the versions of the requests it sends to Kafka 4.3.
"""
_OLDER = "`make clients` adds older ones, down to the oldest that Kafka 4 lets in:\n"
_TOOLS = "**Kafka's own tools**, through tierproxy:\n"
_SECURITY = """\
**Security.** Each of these clients logs in so, and reads what is archived, in `make test`; what can't work is listed
in [security.md](security.md).
"""
_APIS = """\
**APIs.** tierproxy looks into these, so it hides versions from clients that it doesn't know yet, and refuses them:
"""
_OTHERS = """\
All other APIs that Kafka 4.3 has pass as bytes, in every version. An API that it doesn't have is refused, because its
answers might carry brokers' addresses.
"""


def page() -> str:
    """The page as it should be."""
    head = ["client", "version", "groups", *map(_name, _WIRE)]
    return "\n".join(
        [
            HEAD,
            _CLIENTS,
            _table(head, map(_client, CLIENTS)),
            _OLDER,
            _table(head, map(_client, OLDER)),
            _TOOLS,
            _table(["tool", "tried"], ([f"`{name}`", tool.tried] for name, tool in TOOLS.items())),
            _SECURITY,
            _table(["way in", "tried with"], security.rows()),
            _APIS,
            _table(["API", "versions", "what happens"], map(_api, sorted({*TREATMENTS, *OFFERED}))),
            _OTHERS,
        ]
    )


def _client(row: Row) -> list[str]:
    protocols = " and ".join(_PROTOCOLS[protocol] for protocol in row.protocols)
    return [f"{row.name} ({row.language})", row.version, protocols, *(str(row.wire[key]) for key in _WIRE)]


def _api(key: int) -> list[str]:
    lowest, highest = OFFERED.get(key, (0, None))
    versions = f"{lowest}-{highest}" if highest is not None else "all"
    return [f"{_name(ApiKey(key))} ({int(key)})", versions, treatment(key).value]


def _name(key: ApiKey) -> str:
    """Kafka's spelling: ListOffsets."""
    return "".join(word.capitalize() for word in key.name.split("_"))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    PAGE.write_text(page())
