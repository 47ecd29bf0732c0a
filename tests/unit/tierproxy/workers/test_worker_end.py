"""Workers that can't end by themselves: in processes of their own, with a thread that nobody can end."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

STUCK = """
import socket, sys, threading
from pathlib import Path
from tierproxy.config import parse_config
from tierproxy.workers import worker

worker.KILL_AFTER = 0.5
threading.Thread(target=threading.Event().wait).start()  # as one that waits for a disk
worker.run("gateway-1", socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]), 2, parse_config(sys.argv[3]))
"""
CONFIG = """
cluster: {name: prod, bootstrap: [127.0.0.1:1]}
listen: {advertised_host: localhost, drain: 1ms}
"""


def test_a_worker_whose_supervisor_is_gone_ends_whatever_its_threads_do(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arguments = [sys.executable, "-c", STUCK, str(theirs.fileno()), str(tmp_path), CONFIG]
        process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
    try:
        assert process.wait(timeout=60) == -signal.SIGALRM
    finally:
        process.kill()
        process.wait()
