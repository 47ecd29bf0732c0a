"""Files that are either whole or not there, whatever happens: for what tools write.

A file is written under a temporary name beside its own, brought to the disk and renamed.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tierproxy.errors import TierproxyError

UNFINISHED = ".part"
"""How the temporary names end; they begin with a dot."""


class CantWrite(TierproxyError):
    """The disk is full, or the directory can't be written to."""


@contextmanager
def written_whole(file: Path) -> Iterator[BinaryIO]:
    """To write `file` with: it appears, complete and on the disk, when the block ends well, in place of an older one.

    Otherwise nothing is left of it. Raises CantWrite.
    """
    unfinished = file.with_name(f".{file.name}{UNFINISHED}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            unfinished.replace(file)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync_directory(file.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CantWrite(f"there is no room on the disk for {file}") from error
        raise CantWrite(f"{file} can't be written: {error.strerror or error}") from error


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
