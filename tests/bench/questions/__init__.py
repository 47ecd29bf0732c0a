"""One module a question. Its name is what `ONLY=` calls it, and its `ask` takes the samples, keeps the figures that
others refer to (`Results.figure`) and returns the table that is shown, or None if there is nothing to ask in this run.
A new module here is asked like the others.
"""

import importlib
import pkgutil
from collections.abc import Callable

from rich.table import Table

from tests.bench.turns import Bench

Ask = Callable[[Bench], Table | None]


def all_questions() -> dict[str, Ask]:
    """By name, in the order of their `ORDER` (those without one come last)."""
    found = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    found.sort(key=lambda module: getattr(module, "ORDER", 1000))
    return {module.__name__.rsplit(".", 1)[1]: module.ask for module in found}
