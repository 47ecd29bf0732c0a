"""The composition root: which parts there are, how they are wired, in what order they start and stop.

Gateway and archiver have a `Cluster` each, so that a question of one never waits behind a slow answer to the other.
One process runs both, or there are several gateways and an archiver in processes of their own (workers/).
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import uvloop
from prometheus_client import REGISTRY

from tierproxy import __version__
from tierproxy.access import client_tls, service_access
from tierproxy.addresses import Addresses, ServerNames
from tierproxy.admin import Admin, Health
from tierproxy.allocator import keep_freed_memory
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId, cluster_key
from tierproxy.archive.store_paced import PacedStore
from tierproxy.archive.stores import open_store, warm_up
from tierproxy.catalog import Catalog
from tierproxy.clock import Clock, SystemClock
from tierproxy.cold.allowance import AnswerMemory
from tierproxy.cold.answers import ColdAnswers
from tierproxy.cold.assembly import ColdCaches
from tierproxy.cold.deletions import Deletions
from tierproxy.cold.limits import ColdLimits
from tierproxy.cold.reader import ColdReader
from tierproxy.cold.shared_reads import Neighbours
from tierproxy.config import Config, ListenConfig, TopicPolicy
from tierproxy.config.settings import Settings
from tierproxy.errors import TierproxyError
from tierproxy.insight.site import site
from tierproxy.insight.told import Told, told_here
from tierproxy.listener import Gate, Listener
from tierproxy.pressure import Pressure
from tierproxy.rates import TokenBucket
from tierproxy.reload import ConfigFile
from tierproxy.scout import Scout
from tierproxy.session import Shared
from tierproxy.tasks import Tasks
from tierproxy.telemetry import BUILD, COLD_ANSWERS_HELD, CONNECTIONS_LIMIT, GATHERED, OncePerChange, set_level
from tierproxy.telemetry.pulse import pulse
from tierproxy.tiering.archiver import Archiver
from tierproxy.tls import FollowedContext
from tierproxy.tracing import Tracing
from tierproxy.upstream import Cluster, TopicPartition

log = logging.getLogger("tierproxy.app")

START_RETRY = 1.0
FILES_BESIDES = 200
"""Open files that are not clients': of the archiver, stores, libraries."""
SPOOLS = 10_000
"""Segments in files: as many as there are partitions, at most."""
FILES_EVERY = 1.0
"""Seconds between two looks at the files of certificates."""
NEW_OBJECTS = 5000
"""So many more objects before Python looks for cycles among them: by its own 700, a fetch of 1,000 partitions has it
look through everything several times."""


Role = Literal["gateway", "archiver"]
ALL_ROLES: Collection[Role] = ("gateway", "archiver")
ARCHIVER_ONLY: tuple[Role, ...] = ("archiver",)

Surroundings = Callable[[Config], AbstractAsyncContextManager[Config]]
"""What must be there before the parts are, and the configuration that they get then."""


def run(config: Config, surroundings: Surroundings = contextlib.nullcontext, file: Path | None = None) -> None:
    """Run gateway and archiver until SIGTERM or SIGINT; returns after a clean stop. `file` is followed.

    Raises TierproxyError when it can't start at all (a port is taken, the archive is another cluster's).
    """
    make_room(config, roles_of(config))
    uvloop.run(_run(config, surroundings, file))


async def _run(config: Config, surroundings: Surroundings, file: Path | None) -> None:
    async with surroundings(config) as changed:
        app, clock, tasks = App(changed, SystemClock(), roles_of(changed)), SystemClock(), Tasks()
        if file is not None:
            follow_file(file, changed, app.change, clock, tasks)
        try:
            await app.run()
        finally:
            await tasks.close()


def follow_file(file: Path, config: Config, put: Callable[[Config], None], clock: Clock, tasks: Tasks) -> None:
    """Have `put` called with what is to be in force when the file changes, or SIGHUP comes and it has changed."""
    followed = ConfigFile(file, config, put, clock)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, followed.ask)
    tasks.spawn(followed.run(), "configuration file")


def roles_of(config: Config) -> Collection[Role]:
    """What a process that is alone does."""
    return ALL_ROLES if config.listen.enabled else ARCHIVER_ONLY


def archives_anything(config: Config) -> bool:
    """Whether there is, or may be when policies change, work for an archiver."""
    return config.archiver.enabled and bool(config.archives)


def _names_an_archive(config: Config) -> bool:
    return any(policy.archive for policy in config.topics)


def make_room(config: Config, roles: Collection[Role] = ALL_ROLES) -> None:
    """Have this process be allowed as many open files as its work may need, and keep memory once it has it."""
    keep_freed_memory()
    connections = config.limits.connections if "gateway" in roles else 0
    _make_room(connections, SPOOLS if "archiver" in roles and archives_anything(config) else 0)


def _make_room(connections: int, spools: int = 0) -> None:
    """Raise the number of files that this process may open as far as it can: a client takes two, its own and ours, and
    a segment that is too large for memory one."""
    wanted = 2 * connections + FILES_BESIDES + spools
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    clients = max(0, most - FILES_BESIDES) // 2
    if clients < connections * 9 // 10:
        log.warning(
            "this process may open %d files, which is enough for some %d clients only, not for limits.connections = "
            "%d; raise the limit (ulimit -n) or lower limits.connections",
            most,
            clients,
            connections,
        )


def _spare_what_stays() -> None:
    """Have Python's collections leave out what is there by now: looking through it takes 50 to 100 ms, in which nobody
    is served, now and then for as long as the process lives.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


class App:
    """All parts of one process.

    Those of roles that are another process's stand still. Ports are opened by `gate` if there is one, and reads of
    archives shared with `neighbours`.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        roles: Collection[Role] = ALL_ROLES,
        health: Health | None = None,
        gate: Gate | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self._config = config
        self._settings = Settings(config)
        self._clock = clock
        self._roles = roles
        self._speaks_as: Role = "gateway" if "gateway" in roles else "archiver"  # at /ready
        self._gate = gate
        self._neighbours = neighbours
        self._access = service_access(config.cluster.security)
        self._client_tls = client_tls(config.cluster.security)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._health = health or Health()
        self._tasks = Tasks(on_crash=self._crashed)
        self._background = Tasks()
        self._crash: BaseException | None = None
        # What keeps something of the configuration that may change: see `change`.
        self._catalog = Catalog(self._may_archive, _names_an_archive(config))
        self._limits = ColdLimits(config)
        self._writing = TokenBucket(config.archiver.write_rate, clock.monotonic())
        self._archiver: Archiver | None = None

    def told(self, who: str = "") -> Told:
        """What this process, called `who`, tells of itself on a dashboard."""
        return told_here(who, self._archiver.states if self._archiver is not None else {})

    def change(self, config: Config) -> None:
        """Have another configuration in force from now on. It differs in what may change while we run (config.changes).

        Parts that ask the settings each time need not be told. The gateway is, before the archiver: it must know that
        a topic is archived before anything of it is trimmed.
        """
        before, self._settings.now = self._settings.now, config
        set_level(config.log.level)
        self._catalog.policies_changed(_names_an_archive(config))
        if (before.limits, before.topics) != (config.limits, config.topics):
            self._limits.change(config)
        self._writing.change(config.archiver.write_rate, self._clock.monotonic())
        if self._archiver is not None:
            self._archiver.change(before)

    def stop(self) -> None:
        """Come to an end, in good order; told twice, without the delay."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _crashed(self, name: str, error: BaseException) -> None:
        """A part this process can't live without has died: stop, so that whoever watches us starts a new one."""
        log.error("stopping because %s crashed", name)
        self._crash = error
        self._stop.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        config = self._config
        stores = {name: open_store(about) for name, about in config.archives.items()}
        libraries = {
            name: Library(PacedStore(store, self._writing, self._clock), config.cluster.name, self._background)
            for name, store in stores.items()
        }
        for name, library in libraries.items():
            library.stand_beside(name, libraries)
        gateway_cluster = self._cluster("tierproxy-gateway")
        archiver_cluster = self._cluster("tierproxy-archiver")
        caches = ColdCaches(config, self._clock, libraries, self._background, self._neighbours)
        admin = self._admin()

        addresses = _addresses(config.listen)
        catalog = self._catalog
        listener = Listener(
            config.listen.host,
            addresses,
            config.cluster.bootstrap,
            catalog,
            config.limits,
            self._background,
            config.listen.tls,
            self._gate,
        )
        scout = Scout(
            gateway_cluster,
            libraries,
            self._policy_for,
            catalog,
            addresses,
            listener.open,
            self._clock,
            self._background,
            partial(self._health.set, "cluster"),
        )
        reader, memory = ColdReader(caches.chunks, self._background), AnswerMemory(config.limits.cold_answers_bytes)
        pressure = Pressure(config.limits.gathered_bytes)
        cold = ColdAnswers(catalog, scout, reader, memory, libraries, self._background, self._limits)
        listener.connect(
            Shared(
                cold,
                Deletions(catalog, scout, libraries),
                scout.wake,
                pressure,
                self._background,
                config.limits,
                self._client_tls,
            )
        )
        followed = [listener.certificate, *(tls.followed for tls in (self._access.tls, self._client_tls) if tls)]
        self._tasks.spawn(_follow([each for each in followed if each is not None]), "files of certificates")
        BUILD.labels(__version__).set(1)
        tracing = Tracing()
        tracing.start(os.environ)

        def measure() -> None:
            COLD_ANSWERS_HELD.set(memory.held)
            GATHERED.set(pressure.total)
            caches.measure()

        serves, archives = "gateway" in self._roles, "archiver" in self._roles and archives_anything(config)
        self._background.spawn(pulse([measure] if serves else []), "pulse")
        try:
            if admin is not None:
                await admin.start()
            if serves:
                CONNECTIONS_LIMIT.set(config.limits.connections)
                await caches.start()
            if await self._reached(scout.start if serves else archiver_cluster.refresh):
                await warm_up(stores.values(), cluster_key(config.cluster.name))
                _spare_what_stays()
                if serves:
                    await listener.open_bootstrap()
                    self._tasks.spawn(scout.run(), "scout")
                if archives:
                    self._archiver = Archiver(
                        self._settings,
                        archiver_cluster,
                        libraries,
                        self._clock,
                        self._background,
                        _Observer(catalog, self._clock),
                    )
                    self._tasks.spawn(self._archiver.run(), "archiver")
                self._health.set(self._speaks_as, True, "")
                await self._stop.wait()
                if serves and self._crash is None:
                    await self._serve_on(config.listen.drain_delay_ms / 1000)
                log.info("stopping")
        finally:
            self._health.set(self._speaks_as, False, "stopping")
            await listener.close(config.listen.drain_ms / 1000)
            await self._tasks.close()
            await self._background.close()
            for cluster in (gateway_cluster, archiver_cluster):
                await cluster.close()
            for library in libraries.values():
                await library.store.close()
            await caches.close()
            await tracing.close()
            if admin is not None:
                await admin.close()
        if self._crash is not None:
            raise self._crash

    def _admin(self) -> Admin | None:
        config = self._config
        if config.admin is None:
            return None

        async def ask() -> list[Told]:
            return [self.told()]

        return Admin(config.admin, self._health, site=site(self._settings, self._clock, REGISTRY, ask))

    async def _serve_on(self, delay: float) -> None:
        """Whoever sends clients to us has to learn that we stop, before we do."""
        if delay > 0:
            log.info("stopping in %g s: /ready says no, clients are served until then", delay)
            self._health.set(self._speaks_as, False, f"stopping, {delay:g} s after being told to")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), delay)

    def _cluster(self, client_id: str) -> Cluster:
        return Cluster(self._config.cluster.bootstrap, self._access, client_id, self._clock)

    def _may_archive(self, topic: str) -> bool:
        policy = self._policy_for(topic, False)
        return policy is not None and policy.archive is not None

    def _policy_for(self, topic: str, internal: bool) -> TopicPolicy | None:
        return self._settings.now.policy_for(topic, internal)

    async def _reached(self, ask: Callable[[], Awaitable[Any]]) -> bool:
        """Wait until some broker answers; False when told to stop before that."""
        trouble = OncePerChange(log)
        while not self._stop.is_set():
            try:
                await ask()
            except TierproxyError as error:
                self._health.set(self._speaks_as, False, str(error))
                trouble.began("cluster", f"waiting for the cluster: {error}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), START_RETRY)
            else:
                trouble.ended("cluster", "the cluster answers")
                return True
        return False


async def _follow(contexts: list[FollowedContext]) -> None:
    while contexts:
        await asyncio.sleep(FILES_EVERY)
        for context in contexts:
            context.check()


def _addresses(listen: ListenConfig) -> Addresses:
    if listen.sni is None:
        assert listen.advertised_host is not None or not listen.enabled, "the configuration was checked"
        return Addresses(listen.advertised_host or "localhost", listen.port)
    names = ServerNames(listen.sni.bootstrap, listen.sni.broker)
    return Addresses(names.bootstrap, listen.port, names=names)


class _Observer:
    """What the archiver of this process has done, told to the gateway before anything is trimmed."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock

    def committed(self, pid: PartitionId, manifest: Manifest) -> None:
        self._catalog.committed(pid, manifest, self._clock.now_ms())

    def trimmed(self, tp: TopicPartition, log_start: int) -> None:
        self._catalog.trimmed(tp.topic, tp.partition, log_start)
