"""A worker: what the supervisor starts. `python -m tierproxy.workers SEAT CHANNEL DIRECTORY WORKERS < config`."""

import pickle
import socket
import sys
from pathlib import Path

from prometheus_client import values


def main() -> None:
    seat, channel, directory, workers = sys.argv[1:]
    # Before any metric is made: its files are those of this seat, whoever has it (metrics.py).
    values.ValueClass = values.MultiProcessValue(lambda: seat)  # type: ignore[no-untyped-call]
    from tierproxy.workers.worker import run

    try:
        config = pickle.load(sys.stdin.buffer)
    except EOFError:
        sys.exit(1)  # the supervisor is gone
    run(seat, socket.socket(fileno=int(channel)), Path(directory), int(workers), config)


if __name__ == "__main__":
    main()
