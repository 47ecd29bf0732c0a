"""franz-go and sarama, where Go is on the machine: built once from `go/`."""

from pathlib import Path

from tests.clients.client import Unavailable
from tests.clients.worker import Worker, WorkerClient
from tests.kit import golang

SOURCES = Path(__file__).parent / "go"


class GoClient(WorkerClient):
    """A `Client`; `library` is the name of its folder in `go/`."""

    def __init__(self, directory: Path, library: str) -> None:
        super().__init__(Worker([built(library)], log=directory / f"{library}.log"))


def built(library: str) -> Path:
    """The program, built if its sources have changed. The first time takes about a minute and the network."""
    try:
        return golang.build(SOURCES, f"./{library}", library)
    except golang.NoGo as no:
        raise Unavailable(str(no)) from None


def pinned(module: str) -> str:
    """The version of a module in go.mod."""
    for line in (SOURCES / "go.mod").read_text().splitlines():
        words = line.split()
        if words[:1] == [module]:
            return words[1].removeprefix("v")
    raise LookupError(f"{module} is not in go.mod")
