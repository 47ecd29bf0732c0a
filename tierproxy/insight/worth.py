"""What archiving saves: brokers' disks without what they have let go, against all that lies in the archive. Pure."""

from collections.abc import Iterable

from tierproxy.config import Config
from tierproxy.costs import Saving, saving, store_rates
from tierproxy.insight.picture import TopicPicture


def worth(config: Config, topics: Iterable[TopicPicture]) -> Saving:
    """By the configuration's prices, for a month."""
    on_brokers = in_archive = 0.0
    for topic in topics:
        policy = topic.facts.policy
        if policy.archive in config.archives:
            rates = store_rates(config, policy.archive, policy.storage_class)
            one = saving(config, rates, topic.freed_bytes, topic.sums.stored_size, topic.facts.replicas)
            on_brokers += one.on_brokers
            in_archive += one.in_archive
    return Saving(on_brokers, in_archive)
