from tierproxy.config import Config, parse_config
from tierproxy.workers.shares import share_of


def test_memory_and_connections_are_divided_and_nothing_else() -> None:
    whole = parse_config(
        """
        cluster: {name: prod, bootstrap: [kafka-0:9092]}
        listen: {advertised_host: localhost, drain_delay: 5s}
        admin: {port: 9180}
        cache: {memory: 300MiB}
        limits:
          {connections: 1000, cold_in_flight: 90MiB, cold_answers: 60MiB, gathered: 30MiB, cold_read_rate: 12MiB/s}
        """
    )
    share = share_of(whole, 3)
    mib = 1 << 20
    assert share.cache.memory == 100 * mib
    bounds = share.limits
    assert (bounds.connections, bounds.cold_bytes, bounds.cold_answers_bytes, bounds.gathered_bytes) == (
        334,
        30 * mib,
        20 * mib,
        10 * mib,
    )
    assert bounds.cold_read_rate == 4 * mib
    assert share.admin is None
    assert share.listen == whole.listen.model_copy(update={"drain_delay_ms": 0}), "the supervisor has waited"
    same = {"cache": whole.cache, "limits": whole.limits, "listen": whole.listen, "admin": whole.admin}
    assert Config.model_copy(share, update=same) == whole
    assert bounds.model_copy(update={name: getattr(whole.limits, name) for name in DIVIDED}) == whole.limits


DIVIDED = ("connections", "cold_bytes", "cold_answers_bytes", "gathered_bytes", "cold_read_rate")
