"""glibc is told to keep memory that was freed, for the next block of an archive.

By itself it returns blocks of some MiB to the system as soon as they are freed, and the system zeroes the same memory
again for the next ones, 4 KiB at a time: half of the CPU of reading ranges from S3, and as much as decompressing them.
Kept are KEPT_BYTES at the most in each of ARENAS heaps (by itself glibc makes 8 heaps for each core).
"""

import ctypes
import os
import platform

KEPT_BYTES = 64 << 20
ARENAS = 2
_LARGEST_IN_A_HEAP = 32 << 20
"""What is larger is always mapped by itself; glibc allows no more."""

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_freed_memory() -> bool:
    """For the whole process. False where nothing was done: it's not glibc, or somebody has set MALLOC_ variables."""
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    options = ((_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_MMAP_THRESHOLD, _LARGEST_IN_A_HEAP), (_M_ARENA_MAX, ARENAS))
    return all(mallopt(option, value) for option, value in options)
