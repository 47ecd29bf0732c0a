"""`make walk`: the whole walk, shown as it goes. Exit status 0 if it ended where README says."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.kit.golang import NoGo
from tests.kit.kafka import Cluster
from tests.kit.processes import kill_all
from tests.kit.s3 import S3Server
from tests.walk.places import BUCKET, substitutions
from tests.walk.steps import Consume, steps
from tests.walk.walker import Walker, WrongTurn, origin

NUMBER = 100_000
"""Of records, as README has it."""


def say(text: str) -> None:
    sys.stdout.write(f"{text.rstrip()}\n")
    sys.stdout.flush()


def main() -> int:
    with TemporaryDirectory() as name:
        directory = Path(name)
        with Cluster(directory / "kafka") as kafka, S3Server(directory / "s3") as s3:
            s3.make_bucket(BUCKET)
            places = substitutions(origin(directory), kafka, s3)
            say("README's addresses stand for:\n" + "".join(f"  {name} → {value}\n" for name, value in places.items()))
            with Walker(directory, places, NUMBER, environment={}, say=say) as walker:
                try:
                    for step in steps():
                        try:
                            values = walker.do(step)
                        except NoGo as no:
                            say(f"{step.block} is left out: {no}")
                            continue
                        if isinstance(step, Consume):
                            say(f"  {len(set(values))} different records")
                            if len(set(values)) != NUMBER:
                                raise WrongTurn(f"{step.block}: read {len(set(values))} records instead of {NUMBER}")
                except (WrongTurn, TimeoutError) as wrong:
                    say(f"README leads astray. {wrong}")
                    return 1
    say("README leads where it says.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        kill_all()
