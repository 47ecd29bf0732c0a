"""Serving an archive whose cluster is gone.

The gateway stays as it is: it asks brokers first and serves from the archive what they have deleted. So all that is
missing is a broker, and the least of them will do: one that has all the topics, and has deleted every record of them
(empty_broker.py). It runs in this process, on a port of the loopback interface, and knows nothing but what stock.py has
found in the archive at the start.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tierproxy.alone.empty_broker import EmptyBroker
from tierproxy.alone.stock import take_stock
from tierproxy.archive.library import Library
from tierproxy.archive.stores import open_store
from tierproxy.config import Config, HostPort, SecurityConfig

__all__ = ["alone"]

log = logging.getLogger("tierproxy.alone")

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def alone(config: Config, *, host: str | None) -> AsyncIterator[Config]:
    """The configuration for a gateway in front of an empty broker, while that runs.

    It listens at `host`; if that is None, on the loopback interface alone: there is no broker that could say no to
    anybody. Raises TierproxyError where the archive can't be read, or nothing is there.
    """
    libraries = {name: Library(open_store(about), config.cluster.name) for name, about in config.archives.items()}
    for name, library in libraries.items():
        library.stand_beside(name, libraries)
    try:
        stock = await take_stock(libraries, config.policy_for)
    finally:
        for library in libraries.values():
            await library.store.close()
    broker = EmptyBroker(stock)
    port = await broker.start(LOOPBACK)
    log.warning(
        "serving %d topics from the archive alone, read-only, to whoever can connect to %s: there is no broker to ask "
        "for permission. What groups commit lasts as long as this process",
        len(stock.topics),
        host or LOOPBACK,
    )
    listen = {"host": host or LOOPBACK, "enabled": True}
    if config.listen.sni is None and (host is None or config.listen.advertised_host is None):
        listen["advertised_host"] = LOOPBACK
    cluster = {"bootstrap": (HostPort(LOOPBACK, port),), "security": SecurityConfig()}
    try:
        yield config.model_copy(
            update={
                "cluster": config.cluster.model_copy(update=cluster),
                "listen": config.listen.model_copy(update=listen),
                "archiver": config.archiver.model_copy(update={"enabled": False}),
            }
        )
    finally:
        await broker.close()
