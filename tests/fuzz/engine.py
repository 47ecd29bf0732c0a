"""libFuzzer over one target: a process of its own, because it ends the process. See `__main__`."""

import sys

import atheris

with atheris.instrument_imports(include=["protocol", "tierproxy"]):
    from tests.fuzz.targets import TARGETS, any_of_them

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    again = f"{sys.executable} -m tests.fuzz.engine {name}"  # libFuzzer starts itself for each part of a merge
    atheris.Setup([again, *arguments], any_of_them if name == "all" else TARGETS[name])
    atheris.Fuzz()
