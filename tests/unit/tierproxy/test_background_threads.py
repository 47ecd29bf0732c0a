import os
import sys
import threading

import pytest

from tierproxy.background_threads import NICENESS, background_threads


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_the_threads_stand_back_and_nobody_else_does() -> None:
    before = _niceness()
    with background_threads(1, "test") as pool:
        assert pool.submit(_niceness).result() == max(before, NICENESS)
    assert _niceness() == before
