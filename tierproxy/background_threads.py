"""Threads whose work must not take the processor from the event loop: they stand back where both want it.

The event loop carries everybody's hot bytes; a pool of threads unpacks archived ones. On Linux each thread has a
niceness of its own, and at +10 it gets about a tenth of what the event loop gets when both can run.
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

NICENESS = 10


def stand_back() -> None:
    """Give the calling thread a lower priority; elsewhere than on Linux, where it would be the process's, nothing."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        if os.getpriority(os.PRIO_PROCESS, thread) < NICENESS:
            os.setpriority(os.PRIO_PROCESS, thread, NICENESS)


def background_threads(count: int, name: str) -> ThreadPoolExecutor:
    """A pool of such threads."""
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=stand_back)
