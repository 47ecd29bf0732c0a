"""KafkaJS, where Node.js is on the machine: installed once below `.cache`, in the version of `node/package.json`."""

import json
import shutil
import subprocess
from pathlib import Path

from tests.clients.client import Unavailable
from tests.clients.worker import Worker, WorkerClient
from tests.kit import CACHE

SOURCES = Path(__file__).parent / "node"


class NodeClient(WorkerClient):
    """A `Client`: KafkaJS."""

    def __init__(self, directory: Path) -> None:
        node = shutil.which("node")
        if node is None:
            raise Unavailable("there is no Node.js on this machine (no `node` on the path)")
        worker = Worker(
            [node, SOURCES / "worker.js"],
            log=directory / "kafkajs.log",
            env={"NODE_PATH": str(installed() / "node_modules")},
        )
        super().__init__(worker)


def installed() -> Path:
    """The folder with `node_modules`."""
    home = CACHE / "clients" / "node" / pinned("kafkajs")
    if not (home / "node_modules" / "kafkajs").exists():
        npm = shutil.which("npm")
        if npm is None:
            raise Unavailable("there is Node.js on this machine, but no `npm` to bring KafkaJS")
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCES / "package.json", home)
        done = subprocess.run(
            [npm, "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Unavailable(f"npm could not bring KafkaJS: {done.stderr.strip()}")
    return home


def pinned(package: str) -> str:
    """The version of a package in package.json."""
    return str(json.loads((SOURCES / "package.json").read_text())["dependencies"][package])
