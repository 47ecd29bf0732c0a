"""`make differential`: a long run, or the repetition of one play that failed."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.differential.runner import run
from tests.differential.scene import Scene
from tests.kit.jars import KAFKA_VERSION


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--requests", type=int, default=5_000, help="how many to put to both sides")
    parser.add_argument("--seed", type=int, help="what to ask (default: something new)")
    parser.add_argument("--only", type=int, help="the number of the one play to repeat")
    parser.add_argument("--kafka", default=KAFKA_VERSION, help="Kafka's version")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    say(f"Kafka {options.kafka}, seed {seed}: writing, archiving and trimming")
    with (
        tempfile.TemporaryDirectory(prefix="tierproxy-differential-") as directory,
        Scene(Path(directory), options.kafka) as scene,
    ):
        report = run(scene, seed, options.requests, only=options.only, progress=say)
    say(str(report))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
