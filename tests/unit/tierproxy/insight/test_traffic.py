from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from tierproxy import telemetry
from tierproxy.clock import ManualClock
from tierproxy.insight import traffic
from tierproxy.insight.traffic import (
    ARCHIVED_BYTES,
    COLD_BYTES,
    COLD_FETCHES,
    FORGOTTEN,
    SAMPLES,
    STORE_ERRORS,
    Traffic,
)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.fetches = Counter("tierproxy_cold_fetches", "-", registry=self.registry)
        self.bytes = Counter("tierproxy_archived_bytes", "-", registry=self.registry)
        self.errors = Counter("tierproxy_store_errors", "-", ["kind"], registry=self.registry)
        self.clients = Gauge("tierproxy_client_connections", "-", registry=self.registry)
        self.lag = Gauge("tierproxy_archive_lag_seconds", "-", ["topic"], registry=self.registry)
        self.clock = ManualClock()
        self.traffic = Traffic(self.registry, self.clock)


def test_speeds_are_of_the_time_between_looks() -> None:
    world = Metrics()
    world.fetches.inc(1000)
    assert world.traffic.look().speeds is None
    world.clock.advance(5)
    world.fetches.inc(50)
    world.errors.labels("Unavailable").inc(5)
    world.errors.labels("Truncated").inc(5)
    found = world.traffic.look()
    assert found.speeds is not None
    assert (found.speeds[COLD_FETCHES], found.speeds[ARCHIVED_BYTES], found.speeds[STORE_ERRORS]) == (10, 0, 2)
    assert found.totals[COLD_FETCHES] == 1050


def test_speeds_are_of_the_last_seconds_only() -> None:
    world = Metrics()
    for inc in (1000, 0, 0, 30, 30):
        world.traffic.look()
        world.clock.advance(5)
        world.fetches.inc(inc)
    found = world.traffic.look()
    assert found.speeds is not None
    assert found.speeds[COLD_FETCHES] == 6
    assert found.past[COLD_FETCHES] == [200, 0, 0, 6, 6]


def test_many_who_look_at_once_do_not_make_the_past_shorter() -> None:
    world = Metrics()
    for _ in range(40):
        world.traffic.look()
        world.clock.advance(0.125)
    assert len(world.traffic.look().past[COLD_FETCHES]) == 5


def test_what_is_kept_is_bounded_and_forgotten() -> None:
    world = Metrics()
    for _ in range(3 * SAMPLES):
        world.traffic.look()
        world.clock.advance(2)
    assert len(world.traffic.look().past[COLD_FETCHES]) == SAMPLES - 1
    world.clock.advance(FORGOTTEN + 1)
    found = world.traffic.look()
    assert (found.speeds, found.past[COLD_FETCHES]) == (None, [])


def test_a_sum_that_gets_smaller_is_no_speed() -> None:
    world = Metrics()
    world.fetches.inc(10)
    world.traffic.look()
    world.fetches.reset()
    world.clock.advance(2)
    speeds = world.traffic.look().speeds
    assert speeds is not None
    assert speeds[COLD_FETCHES] == 0


def test_archived_bytes_are_told_by_what_gave_them() -> None:
    world = Metrics()
    given = Counter("tierproxy_cold_read_bytes", "-", ["source"], registry=world.registry)
    given.labels("memory").inc(100)
    assert world.traffic.look().sources == {}
    world.clock.advance(2)
    given.labels("memory").inc(10)
    given.labels("store").inc(30)
    found = world.traffic.look()
    assert found.sources == {"memory": 5, "store": 15}
    assert found.speeds is not None
    assert found.speeds[COLD_BYTES] == 20


def test_what_is_now_and_of_which_topic() -> None:
    world = Metrics()
    world.clients.set(7)
    world.lag.labels("payments").set(12.5)
    found = world.traffic.look()
    assert found.connections == 7
    assert found.lag_seconds == {"payments": 12.5}


def test_the_metrics_that_are_looked_at_exist() -> None:
    names = {value for key, value in vars(traffic).items() if key.isupper() and str(value).startswith("tierproxy_")}
    assert len(names) == 7
    known = {name for metric in REGISTRY.collect() for name in (metric.name, f"{metric.name}_total")}
    assert telemetry.COLD_FETCHES is not None
    assert names <= known


def test_a_metric_that_is_not_there_is_nothing() -> None:
    found = Traffic(CollectorRegistry(), ManualClock()).look()
    assert (found.connections, found.totals[ARCHIVED_BYTES]) == (0, 0)
