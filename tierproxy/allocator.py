"""Large blocks of memory for little CPU, and none of it at once.

glibc is told to keep memory that was freed, for the next block of an archive.

By itself it returns blocks of some MiB to the system as soon as they are freed, and the system zeroes the same memory
again for the next ones, 4 KiB at a time: half of the CPU of reading ranges from S3, and as much as decompressing them.
Kept are KEPT_BYTES at the most in each of ARENAS heaps (by itself glibc makes 8 heaps for each core).
"""

import ctypes
import os
import platform
from typing import cast

KEPT_BYTES = 64 << 20
ARENAS = 2
_LARGEST_IN_A_HEAP = 32 << 20
"""What is larger is always mapped by itself; glibc allows no more."""

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_bytearray = ctypes.pythonapi.PyByteArray_FromStringAndSize
_bytearray.restype = ctypes.py_object
_bytearray.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t]


def unfilled(size: int) -> bytearray:
    """`size` bytes with anything in them, for who fills them all before anybody sees them.

    bytearray(size) writes zeros first: 1 ms for each MiB that is not in memory yet, at once, and with the interpreter's
    lock held. So the system's part of that comes bit by bit, with the bytes.
    """
    return cast(bytearray, _bytearray(None, size))


def keep_freed_memory() -> bool:
    """For the whole process. False where nothing was done: it's not glibc, or somebody has set MALLOC_ variables."""
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    options = ((_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_MMAP_THRESHOLD, _LARGEST_IN_A_HEAP), (_M_ARENA_MAX, ARENAS))
    return all(mallopt(option, value) for option, value in options)
