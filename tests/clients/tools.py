"""Kafka's own command-line tools that the tests run through tierproxy, by the names of their scripts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tool:
    """`main` is the class that the script starts; `tried` says for docs/compatibility.md what the tests do with it."""

    main: str
    tried: str


def _kafkas(name: str, tried: str) -> Tool:
    return Tool(f"org.apache.kafka.tools.{name}", tried)


TOOLS: dict[str, Tool] = {
    "kafka-console-consumer": _kafkas("consumer.ConsoleConsumer", "reads across both tiers, both group protocols"),
    "kafka-get-offsets": _kafkas("GetOffsetShell", "every `--time`; `earliest` is the archive's start"),
    "kafka-consumer-groups": _kafkas(
        "consumer.group.ConsumerGroupCommand", "`--describe`, `--reset-offsets` into the archive in every way"
    ),
    "kafka-verifiable-producer": _kafkas("VerifiableProducer", "produces what is archived"),
    "kafka-verifiable-consumer": _kafkas("VerifiableConsumer", "reads it, both group protocols"),
    "kafka-consumer-perf-test": _kafkas("ConsumerPerformance", "reads across both tiers"),
    "kafka-delete-records": _kafkas("DeleteRecordsCommand", "the archive's start follows; what is deleted is gone"),
    "kafka-transactions": _kafkas("TransactionsCommand", "`list`, `describe`, `describe-producers`, `abort`"),
    "kafka-broker-api-versions": _kafkas("BrokerApiVersionsCommand", "shows what tierproxy offers"),
    "kafka-topics": _kafkas("TopicCommand", "create, describe, add partitions, delete, create again"),
    "kafka-reassign-partitions": _kafkas("reassign.ReassignPartitionsCommand", "moves leaders under load"),
    "kafka-leader-election": _kafkas("LeaderElectionCommand", "the same"),
    "kafka-share-groups": _kafkas("consumer.group.ShareGroupCommand", "`--list`, `--describe`"),
    "kafka-groups": _kafkas("GroupsCommand", "as from the broker"),
    "kafka-cluster": _kafkas("ClusterTool", "as from the broker"),
    "kafka-features": _kafkas("FeatureCommand", "as from the broker"),
    "kafka-metadata-quorum": _kafkas("MetadataQuorumCommand", "as from the broker"),
    "kafka-log-dirs": _kafkas("LogDirsCommand", "as from the broker"),
    "kafka-configs": Tool("kafka.admin.ConfigCommand", "as from the broker; broker settings show its own listeners"),
}
