"""moto's S3 server, made a little more like a real one: run by `s3.S3Server` as a process of its own.

- Writes come one after the other. moto looks at a write's condition first and writes later, and its threads take no
  lock in between: one in some hundred races of conditional writes had two winners. A real S3 has none.
- Headers come once. moto and werkzeug both send Server and Date, which aiohttp refuses when Python is in
  development mode.
"""

import sys
from collections.abc import Callable, Iterable
from threading import Lock
from types import TracebackType
from typing import TypeAlias
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class _LikeReal:
    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._lock = Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(
            status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            once = [(name, value) for name, value in headers if name.lower() not in ("server", "date")]
            return start_response(status, once, exc_info)

        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._app(environ, start)
        with self._lock:
            return list(self._app(environ, start))


def main(host: str, port: int) -> None:
    app = _LikeReal(DomainDispatcherApplication(create_backend_app))
    make_server(host, port, app, threaded=True, request_handler=MotoRequestHandler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
