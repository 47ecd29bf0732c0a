"""Kafka's wire protocol: bytes in, facts and patched bytes out. No I/O, no clock."""
