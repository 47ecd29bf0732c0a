"""A relay in front of S3 as a process of its own: run and steered by `s3_front.S3Front`.

`/-front` is its own page: POST adds a rule, DELETE forgets all of them, GET tells what was asked so far. A rule is
`{"fault": "flip", "method": "GET", "key": "manifest", "times": 2}`: the fault, by its name in `FAULTS`, is done to
the requests whose method and path match (regular expressions, each may be left out), for so many of them (or for
all). The first rule that matches is the one.
"""

import re
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.kit import s3_faults
from tests.kit.s3_faults import Fault, Relay, relaying

FAULTS: dict[str, Fault] = {
    "refuse": s3_faults.refuse,
    "hang": s3_faults.hang,
    "hang_after": s3_faults.hang_after,
    "slow": s3_faults.lag,
    "trickle": s3_faults.trickle,
    "500": s3_faults.answer(500, "InternalError"),
    "503": s3_faults.answer(503, "SlowDown"),
    "429": s3_faults.answer(429, "TooManyRequests"),
    "cut": s3_faults.cut_body,
    "cut_upload": s3_faults.cut_upload,
    "stall_upload": s3_faults.stall_upload,
    "flip": s3_faults.flip,
    "flip_upload": s3_faults.flip_upload,
    "truncate": s3_faults.truncate,
    "lose_answer": s3_faults.lose_answer,
    "list_nothing": s3_faults.list_nothing,
    "expired": s3_faults.expired_but_for("fresh"),
}


@dataclass
class Rule:
    fault: str
    method: str = ""
    key: str = ""
    times: int | None = None
    """How many requests are left for it; None: all."""

    def takes(self, request: web.Request) -> bool:
        return bool(re.search(self.method, request.method) and re.search(self.key, request.path_qs)) and self.times != 0


class Front(Relay):
    """Chooses faults by rules, and counts what it did."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._rules: list[Rule] = []
        self._counts: Counter[str] = Counter()

    def fault_for(self, request: web.Request) -> Fault:
        self.requests.clear()
        self.headers.clear()
        self._counts[f"{request.method} {'list' if 'list-type' in request.query else 'object'}"] += 1
        for rule in self._rules:
            if rule.takes(request):
                if rule.times is not None:
                    rule.times -= 1
                self._counts[rule.fault] += 1
                return FAULTS[rule.fault]
        return s3_faults.no_fault

    async def steer(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            about: dict[str, Any] = await request.json()
            self._rules.append(Rule(**about))
        elif request.method == "DELETE":
            self._rules.clear()
        return web.json_response(self._counts)


def main(host: str, port: int, target: str) -> None:
    front = Front(target)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/-front", front.steer)
    web.run_app(relaying(front, app), host=host, port=port, print=None, shutdown_timeout=0.1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
