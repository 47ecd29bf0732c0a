"""`make simulate`: many seeds, or one again."""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial

from tests.simulation.mutants import MUTANTS
from tests.simulation.play import Play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="play this one alone")
    parser.add_argument("--trace", action="store_true", help="write down what came in (<<) and went out (>>)")
    parser.add_argument("--jobs", type=int, default=1, help="processes to play in")
    parser.add_argument("--mutant", choices=[mutant.name for mutant in MUTANTS], help="play with this wrong version")
    options = parser.parse_args()
    if options.seed is not None:
        with next((each.at_work() for each in MUTANTS if each.name == options.mutant), nullcontext()):
            outcome = Play(options.seed).run()
        if options.trace:
            sys.stdout.write("\n".join(outcome.trace.lines()) + "\n")
        sys.stdout.write(f"{outcome}\ntrace {outcome.trace.digest()}\n")
        return 1 if outcome.broken else 0
    began, failed = time.monotonic(), 0
    seeds = range(options.first, options.first + options.seeds)
    with ProcessPoolExecutor(options.jobs) as pool:
        for text in pool.map(partial(_one, options.mutant), seeds, chunksize=20):
            if text is not None:
                failed += 1
                sys.stdout.write(f"{text}\n\n")
                sys.stdout.flush()
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"seeds {seeds.start} to {seeds.stop - 1}: {failed} failed; "
        f"{seconds:.0f} s, {len(seeds) / seconds:.1f} a second\n"
    )
    return 1 if failed else 0


def _one(mutant: str | None, seed: int) -> str | None:
    wrong = next((each.at_work() for each in MUTANTS if each.name == mutant), nullcontext())
    with wrong:
        outcome = Play(seed).run()
    return str(outcome) if outcome.broken else None


if __name__ == "__main__":
    sys.exit(main())
