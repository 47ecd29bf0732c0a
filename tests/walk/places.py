"""What README calls the newcomer's own, and what stands for it here: addresses and ports, and nothing else.

A substitution that applies nowhere is a fault, so the table can't outlive what it is for.
"""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.kit.kafka import Cluster
from tests.kit.processes import free_ports
from tests.kit.s3 import S3Server

BUCKET = "my-bucket"
"""Is made as README calls it."""
KEYS = {"AWS_ACCESS_KEY_ID": "walk", "AWS_SECRET_ACCESS_KEY": "walk-secret"}
"""Where AWS tools find them."""
SETUP = "make setup"
"""Takes minutes and the network, so where all that it would bring is at hand, that is linked instead (`setup_here`)."""


def substitutions(origin: Path, kafka: Cluster, s3: S3Server) -> Mapping[str, str]:
    """What README says → what is typed. `origin` is a repository to clone."""
    admin = free_ports(kafka_ids(kafka) + 3)  # admin, bootstrap, one for each broker id from 0 on
    return {
        "https://git.example.com/tierproxy.git": str(origin),
        "kafka-0:9092": kafka.bootstrap,
        "https://s3.example.com": s3.endpoint_url,
        "tierproxy.example.com:9192": f"localhost:{admin + 1}",
        "port: 9192 ": f"port: {admin + 1} ",
        "localhost:9192": f"localhost:{admin + 1}",
        "port: 9180": f"port: {admin}",
        "localhost:9180": f"localhost:{admin}",
    }


def setup_here(directory: Path) -> tuple[dict[str, str], dict[str, str]]:
    """One substitution more, and variables, by which a clone in `directory/empty` uses the environment of this run.

    tierproxy itself is the clone's: its modules are found before those that the environment knows.
    """
    return {SETUP: f"ln -s {shlex.quote(sys.prefix)} .venv"}, {"PYTHONPATH": str(directory / "empty" / "tierproxy")}


def kafka_ids(kafka: Cluster) -> int:
    return max(node.id for node in kafka.nodes)
