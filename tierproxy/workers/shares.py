"""One worker's share of what is said for all of them."""

from tierproxy.config import Config


def share_of(config: Config, workers: int) -> Config:
    """The configuration of one of `workers` gateways: memory, connections, bytes in flight and rates are divided.

    The admin port is the supervisor's, and so is the delay before the end: whoever is told to stop does so.
    """

    def part(whole: int) -> int:
        return -(-whole // workers)

    config = config.cold_rates_shared(workers)
    limits = config.limits
    bounds = {
        "connections": part(limits.connections),
        "gathered_bytes": part(limits.gathered_bytes),
        "cold_bytes": part(limits.cold_bytes),
        "cold_answers_bytes": part(limits.cold_answers_bytes),
    }
    cache = config.cache.model_copy(update={"memory": part(config.cache.memory)})
    listen = config.listen.model_copy(update={"drain_delay_ms": 0})
    return config.model_copy(
        update={"limits": limits.model_copy(update=bounds), "cache": cache, "listen": listen, "admin": None}
    )
