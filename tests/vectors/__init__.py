"""Captured messages (see README.md): `vector("fetch-v17")`, and what is true of all of them."""

import json
from pathlib import Path

HERE = Path(__file__).parent

_FACTS = json.loads((HERE / "facts.json").read_text())

TOPIC = "vec"
TOPIC_ID = bytes.fromhex(_FACTS["topic_id"])
CLUSTER_ID: str = _FACTS["cluster_id"]
NODES: dict[int, tuple[str, int]] = {int(node): ("127.0.0.1", port) for node, port in _FACTS["nodes"].items()}
"""Node id → host and port, as the brokers advertised them."""


def vector(name: str) -> bytes:
    """One message, without its four size bytes."""
    return (HERE / f"{name}.bin").read_bytes()


def vectors(prefix: str) -> list[str]:
    """Names of the messages that begin so; never none."""
    names = sorted(path.stem for path in HERE.glob(f"{prefix}*.bin"))
    if not names:
        raise LookupError(f"no vector begins with {prefix}")
    return names


def version_of(name: str) -> int:
    """The API version in a vector's name."""
    return next(int(part[1:]) for part in reversed(name.split("-")) if part[0] == "v" and part[1:].isdigit())
