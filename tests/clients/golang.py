"""franz-go and sarama, where Go is on the machine: built once from `go/`, with all that Go keeps below `.cache`."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.clients.client import Unavailable
from tests.clients.worker import Worker, WorkerClient
from tests.kit import CACHE

SOURCES = Path(__file__).parent / "go"


class GoClient(WorkerClient):
    """A `Client`; `library` is the name of its folder in `go/`."""

    def __init__(self, directory: Path, library: str) -> None:
        super().__init__(Worker([built(library)], log=directory / f"{library}.log"))


def built(library: str) -> Path:
    """The program, built if its sources have changed. The first time takes about a minute and the network."""
    go = shutil.which("go")
    if go is None:
        raise Unavailable("there is no Go on this machine (no `go` on the path)")
    home = CACHE / "clients" / "go"
    program = home / "bin" / library
    environment = {
        **os.environ,
        "GOMODCACHE": str(home / "modules"),
        "GOCACHE": str(home / "build"),
        "GOFLAGS": "-modcacherw -mod=readonly -buildvcs=false",  # writable, or the folder couldn't be deleted
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }
    modules = subprocess.run(
        [go, "mod", "download"], cwd=SOURCES, env=environment, capture_output=True, text=True, check=False
    )
    if modules.returncode != 0:
        raise Unavailable(f"Go could not bring the modules of tests/clients/go: {modules.stderr.strip()}")
    built = subprocess.run(
        [go, "build", "-o", program, f"./{library}"],
        cwd=SOURCES,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        raise RuntimeError(f"{library} could not be built:\n{built.stderr}")
    return program


def pinned(module: str) -> str:
    """The version of a module in go.mod."""
    for line in (SOURCES / "go.mod").read_text().splitlines():
        words = line.split()
        if words[:1] == [module]:
            return words[1].removeprefix("v")
    raise LookupError(f"{module} is not in go.mod")
