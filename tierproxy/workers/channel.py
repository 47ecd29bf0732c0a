"""What the supervisor and a worker tell each other: lines of JSON over a socket pair, some with a socket attached.

| from | line | means |
|---|---|---|
| worker | `{"open": port}` | open this port, if it isn't yet; I know whose it is |
| supervisor | `{"opened": port, "error": null}` | it is open; or why not |
| supervisor | `{"at": port, "fds": 1}` and a socket | a client has come to this port, it is yours |
| supervisor | `{"config": text}` | this configuration is in force now (`packed`: with its secrets, for nobody else) |
| worker | `{"load": n, "taken": m}` | I have n connections, m of which came from you since the last such line |
| worker | `{"part": name, "ok": bool, "reason": text}` | how a part of mine is (admin.py) |
| supervisor | `{"tell": n}` | somebody looks at the dashboard: what are you at? |
| worker | `{"told": {...}, "asked": n}` | that (insight/told.py) |
| worker | `{"fault": text}` | I can't do my work, for a reason that a person must mend |

The end of the channel is the end of the other side.
"""

import asyncio
import json
import pickle
import socket
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from typing import Any

from tierproxy.config import Config

Message = dict[str, Any]


def packed(config: Config) -> str:
    """A configuration as text, for a channel."""
    return b64encode(pickle.dumps(config)).decode()


def unpacked(text: str) -> Config:
    config = pickle.loads(b64decode(text))
    assert isinstance(config, Config)
    return config


_READ = 65_536
_SOCKETS = 200
"""Sockets that one read can bring; Linux ends a read behind the first message that has one."""


class Channel:
    """One side's end. `heard` is called with each message and the socket that came with it; `over` when it has ended.

    It belongs to the running loop, and is closed by whoever has made it.
    """

    def __init__(
        self, end: socket.socket, heard: Callable[[Message, socket.socket | None], None], over: Callable[[], None]
    ) -> None:
        end.setblocking(False)
        self._end = end
        self._heard = heard
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[bytes] = deque()
        self._line = bytearray()
        self._sockets: deque[socket.socket] = deque()
        self._closed = False
        self._loop.add_reader(end.fileno(), self._readable)

    def say(self, message: Message) -> None:
        """Send it, or have it wait for its turn."""
        if not self._closed:
            self._unsent.append(json.dumps(message).encode() + b"\n")
            self._flush()

    def hand_over(self, message: Message, attached: socket.socket) -> bool:
        """Send it with a socket, now or never: whether it went. The other side has a copy then; ours is still open."""
        if self._closed or self._unsent:
            return False
        line = json.dumps(message | {"fds": 1}).encode() + b"\n"
        try:
            sent = socket.send_fds(self._end, [line], [attached.fileno()])
        except OSError:  # full, or its end, which the reader will tell of
            return False
        if sent < len(line):
            self._unsent.append(line[sent:])
            self._flush()
        return True

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._end.fileno())
        self._loop.remove_writer(self._end.fileno())
        self._end.close()
        for left in self._sockets:
            left.close()

    def _flush(self) -> None:
        while self._unsent:
            try:
                sent = self._end.send(self._unsent[0])
            except BlockingIOError:
                self._loop.add_writer(self._end.fileno(), self._flush)
                return
            except OSError:
                self._unsent.clear()  # nobody is there any more; the reader will tell
                break
            if sent < len(self._unsent[0]):
                self._unsent[0] = self._unsent[0][sent:]
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._end.fileno())

    def _readable(self) -> None:
        try:
            data, numbers, _, _ = socket.recv_fds(self._end, _READ, _SOCKETS)
        except BlockingIOError:
            return
        except OSError:
            data, numbers = b"", []
        self._sockets.extend(socket.socket(fileno=number) for number in numbers)
        if not data:
            self._loop.remove_reader(self._end.fileno())
            self._over()
            return
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            if self._closed:
                return
            message = json.loads(line)
            attached = self._sockets.popleft() if message.get("fds") and self._sockets else None
            self._heard(message, attached)
