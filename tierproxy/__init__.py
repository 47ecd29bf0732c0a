"""tierproxy: a Kafka-protocol proxy that archives topics into object storage and serves both as one log."""

__version__ = "0.1.0"
