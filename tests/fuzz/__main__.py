"""Fuzz one target, or all of them, for some seconds; `make fuzz SECONDS=60 TARGET=fetch_stream`.

New inputs that reach new code are added to the corpus, unless `--forget` says that this run is only a look. A fault is
saved in .fuzz/ and said with the command that repeats it; the exit status is then not zero.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.corpus import keep, kept
from tests.fuzz.targets import TARGETS, any_of_them
from tests.kit import PROJECT

FAULTS = PROJECT / ".fuzz"
ALL = "all"
LIMITS = ("-max_len=4096", "-rss_limit_mb=2048", "-timeout=20")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=[ALL, *TARGETS], default=ALL)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a saved fault: only this input is tried")
    parser.add_argument("--forget", action="store_true", help="keep no new inputs")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.replay is not None:
        (any_of_them if options.target == ALL else TARGETS[options.target])(options.replay.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing needs atheris, of which there is none for this Python or machine", file=sys.stderr)
        return 2
    return _fuzz(options.target, options.seconds, options.seed, options.forget)


def _fuzz(target: str, seconds: int, seed: int, forget: bool) -> int:
    FAULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder, least = Path(name) / "inputs", Path(name) / "least"
        folder.mkdir()
        least.mkdir()
        for number, each in enumerate(TARGETS):
            if target in (ALL, each):
                for count, data in enumerate(kept(each)):
                    (folder / f"{each}-{count}").write_bytes(bytes([number]) + data if target == ALL else data)
        before = {file.read_bytes() for file in folder.iterdir()}
        engine = [sys.executable, "-m", "tests.fuzz.engine", target]
        saved = f"-artifact_prefix={FAULTS}/{target}-"
        run = [*engine, str(folder), f"-max_total_time={seconds}", f"-seed={seed}", saved, *LIMITS]
        status = subprocess.run(run, cwd=PROJECT, check=False).returncode
        if status:
            print(
                f"to repeat a fault: python -m tests.fuzz --target {target} --replay .fuzz/{target}-…", file=sys.stderr
            )
        elif not forget:
            # The fewest inputs that reach what all of them reach.
            subprocess.run([*engine, str(least), str(folder), "-merge=1", *LIMITS], cwd=PROJECT, check=True)
            _keep({file for file in least.iterdir() if file.read_bytes() not in before}, target)
        return status


def _keep(new: set[Path], target: str) -> None:
    for file in new:
        data = file.read_bytes()
        if target != ALL:
            keep(target, data)
        elif data:
            keep(list(TARGETS)[data[0] % len(TARGETS)], data[1:])
    print(f"{len(new)} new inputs are kept in tests/fuzz/corpus")


if __name__ == "__main__":
    sys.exit(main())
