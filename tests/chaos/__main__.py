"""`make soak`: as long as you like; each round of some minutes with the next seed."""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import Chaos

ROUND = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for how long to spoil things, all rounds together")
    parser.add_argument("--seed", type=int, help="of the first round (default: something new)")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    until = time.monotonic() + options.seconds
    while (left := until - time.monotonic()) > 0:
        with tempfile.TemporaryDirectory(prefix="tierproxy-chaos-") as directory:
            try:
                say(Chaos(Path(directory), seed, min(left, ROUND), say).run())
            except AssertionError as error:
                say(str(error))
                return 1
        seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
