"""A directory of a supervisor and its workers, that nobody else can look into and that goes when they do.

After a kill -9 nobody removes it. So each one is locked as long as its supervisor lives, and whoever starts removes
those that are not.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tierproxy.errors import TierproxyError

_PREFIX = "tierproxy-workers-"


@contextmanager
def private_directory(inside: Path | None = None) -> Iterator[Path]:
    """`inside`: where to make it; by default where the system has temporary files. Raises TierproxyError."""
    above = inside or Path(tempfile.gettempdir())
    _remove_left_behind(above)
    try:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))  # mode 0700
    except OSError as error:
        raise TierproxyError(f"workers can't have a directory of their own in {above}: {error.strerror}") from error
    try:
        with (made / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _remove_left_behind(above: Path) -> None:
    for found in above.glob(f"{_PREFIX}*"):
        try:
            if found.stat().st_uid != os.getuid() or found.is_symlink():
                continue
            with (found / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(found, ignore_errors=True)
        except OSError:  # somebody lives there, or is moving in
            continue
