"""`make demo [INPUT=file.jsonl [KEY=field]] [KEEP=1]`.

Exit status: 0 when what was read is what was sent, 1 when not or when something failed, 2 for an input that
cannot be used, 130 after Ctrl-C.
"""

import os
import signal
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tests.demo import report
from tests.demo.source import BadInput, Flights, Lines
from tests.demo.story import Busy, Facts, Story
from tests.kit.jars import RegistryUnreachable
from tests.kit.processes import kill_all


def main() -> int:
    # An end by `kill` is an end like Ctrl-C: through every `finally`.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console()
    keep = os.environ.get("KEEP", "") not in ("", "0", "no")
    facts: Facts | None = None
    try:
        source = _source()
        with Story(console, source) as story:
            facts = story.run()
            report.show(console, facts)
            report.show_how_to_go_on(console, facts, stays=keep)
            if keep:
                signal.pause()
            return 0 if facts.ok else 1
    except BadInput as error:
        console.print(f"[red]{escape(str(error))}[/]", highlight=False)
        return 2
    except (Busy, RegistryUnreachable) as error:
        console.print(f"[red]{escape(str(error))}[/]", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped")
        return 130 if facts is None else 0 if facts.ok else 1
    except Exception as error:  # noqa: BLE001 - the person at the terminal gets the reason, whatever it is
        console.print(f"[bold red]The demonstration failed:[/] {escape(str(error))}", highlight=False)
        for note in getattr(error, "__notes__", ()):
            console.print(note, highlight=False, markup=False)
        return 1
    finally:
        kill_all()


def _source() -> Flights | Lines:
    named = os.environ.get("INPUT", "")
    return Lines(Path(named).expanduser(), os.environ.get("KEY") or None) if named else Flights()


if __name__ == "__main__":
    sys.exit(main())
