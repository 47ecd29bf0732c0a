"""`make bench`: asks all questions, or those named; shows tables, writes them and a JSON below `.bench`.

python -m tests.bench [--quick] [--only hot,cold] [--rounds 3] [--megabytes 800]
python -m tests.bench --hold          fills everything and keeps it up, with a tierproxy, until interrupted
python -m tests.bench --attach …      asks a backend that is held elsewhere, with a tierproxy of this checkout
"""

import os
import resource
import shutil
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from rich.console import Console

from tests.bench.backend import Backend, Building
from tests.bench.options import Options
from tests.bench.questions import all_questions
from tests.bench.report import Report, settings
from tests.bench.results import Results
from tests.bench.s3 import FrontPage
from tests.bench.scene import Scene
from tests.bench.turns import Bench
from tests.kit import PROJECT
from tests.kit.processes import kill_all

HOME = PROJECT / ".bench"
HELD = "held.json"


def main() -> int:
    asked = _arguments()
    _allow_many_connections()
    console = Console(width=max(Console().width, 170))
    home = Path(asked.home).resolve()
    try:
        if asked.hold:
            _hold(console, home, asked)
        else:
            _run(console, home, asked)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    finally:
        kill_all()
    return 0


def _arguments() -> Namespace:
    of = os.environ.get
    parser = ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--only", default=of("ONLY") or "", help="questions, with commas between")
    parser.add_argument("--rounds", type=int, default=int(of("ROUNDS") or 0), help="by default 3, quick 1")
    parser.add_argument("--megabytes", type=int, default=int(of("MB") or 800), help="of the largest corpus")
    parser.add_argument("--quick", action="store_true", default=bool(of("QUICK")), help="one round, one small corpus")
    parser.add_argument("--home", default=of("BENCH_HOME") or str(HOME), help="where everything is written")
    parser.add_argument("--hold", action="store_true", help="build everything, and keep it up")
    parser.add_argument("--attach", metavar="DIRECTORY", help="the home of one that is held")
    asked = parser.parse_args()
    unknown = set(_only(asked)) - set(all_questions())
    if unknown:
        parser.error(f"no question is called {', '.join(sorted(unknown))}; there are {', '.join(all_questions())}")
    return asked


def _allow_many_connections() -> None:
    """To us and whatever we start: one question is about thousands of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _only(asked: Namespace) -> tuple[str, ...]:
    return tuple(filter(None, asked.only.replace(" ", ",").split(",")))


def _options(asked: Namespace) -> Options:
    rounds = asked.rounds or (1 if asked.quick else 3)
    return Options(asked.megabytes, rounds, _only(asked), asked.quick)


@contextmanager
def _backend(console: Console, home: Path, asked: Namespace) -> Iterator[Backend]:
    if asked.attach:
        yield Backend.of_json((Path(asked.attach) / HELD).read_text())
        return
    for part in ("kafka", "s3", "archiving", "tierproxy"):
        shutil.rmtree(home / part, ignore_errors=True)
    try:
        with console.status("") as status, Building(home, _options(asked).corpora(), status.update) as building:
            status.stop()
            if building.without_s3:
                console.print(f"[red]no S3 server: {building.without_s3}; a directory stands in for it[/]")
            yield building.backend
    finally:
        for bulky in ("kafka", "s3", "archiving", "tierproxy"):
            shutil.rmtree(home / bulky, ignore_errors=True)


def _hold(console: Console, home: Path, asked: Namespace) -> None:
    with _backend(console, home, asked) as backend, Scene(home, backend) as scene:
        held = home / HELD
        held.write_text(backend.as_json())
        console.print(f"broker {backend.bootstrap}, tierproxy {scene.proxied[0]}:{scene.proxied[1]}")
        if isinstance(backend.front, FrontPage):
            console.print(f"S3 with its front http://127.0.0.1:{backend.front.port} (its page: /-front)")
        console.print("pids:", ", ".join(f"{name} {pid}" for name, pid in scene.parties.items()))
        for name, stored in backend.stored.items():
            console.print(f"{name}: topics {' and '.join(stored.corpus.topics)}, {stored.log_bytes / 1e6:,.0f} MB each")
        console.print(f"ask it by --attach {home}, from this or another checkout; Ctrl-C ends it")
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            Event().wait()
        finally:
            held.unlink()


def _run(console: Console, home: Path, asked: Namespace) -> None:
    options = _options(asked)
    home.mkdir(parents=True, exist_ok=True)
    report = Report(console, home / f"result-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    place = home / "attached" if asked.attach else home  # who holds it may have the same home, with a tierproxy
    with _backend(console, home, asked) as backend, Scene(place, backend) as scene, console.status("") as status:
        results = Results(settings(options, backend))
        bench = Bench(scene, options, results, status.update)
        for name, ask in all_questions().items():
            if not options.only or name in options.only:
                table = ask(bench)
                report.save(results)
                if table is not None:
                    report.show(table)
    report.finish(results)


if __name__ == "__main__":
    sys.exit(main())
