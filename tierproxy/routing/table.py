"""What happens to each API: one table, and the versions clients are offered for the APIs we look into.

Keys that are in no row pass as bytes in both directions; keys Kafka does not have (yet) are refused, and hidden from
ApiVersions, because the next one that carries endpoints would leak a broker's address (kafka-protocol.md 1, 3, 4).
"""

from enum import Enum
from functools import lru_cache

from protocol.api_versions import patch_api_versions
from protocol.apis import ApiKey


class Treatment(Enum):
    PASS = "bytes flow by, both ways"
    PRODUCE = "the request's acks say whether an answer will come; the answer's endpoints are rewritten"
    FETCH = "made sessionless; the answer is patched as it streams, or held for archived records"
    LIST_OFFSETS = "the answer is merged with the archive's"
    DELETE_RECORDS = "what the broker has deleted is deleted in the archive too"
    ENDPOINTS = "brokers' addresses in the answer are replaced by ours"
    API_VERSIONS = "the answer is cut down to what we can treat"
    SASL_AUTHENTICATE = "bytes flow by; the name of the user is read, and whether the broker has accepted it"
    SASL_HANDSHAKE = "mechanisms that can't work through a proxy are refused; all others are the broker's business"


TREATMENTS: dict[int, Treatment] = {
    ApiKey.PRODUCE: Treatment.PRODUCE,
    ApiKey.FETCH: Treatment.FETCH,
    ApiKey.LIST_OFFSETS: Treatment.LIST_OFFSETS,
    ApiKey.DELETE_RECORDS: Treatment.DELETE_RECORDS,
    ApiKey.METADATA: Treatment.ENDPOINTS,
    ApiKey.FIND_COORDINATOR: Treatment.ENDPOINTS,
    ApiKey.DESCRIBE_CLUSTER: Treatment.ENDPOINTS,
    ApiKey.SHARE_FETCH: Treatment.ENDPOINTS,
    ApiKey.SHARE_ACKNOWLEDGE: Treatment.ENDPOINTS,
    ApiKey.API_VERSIONS: Treatment.API_VERSIONS,
    ApiKey.SASL_HANDSHAKE: Treatment.SASL_HANDSHAKE,
    ApiKey.SASL_AUTHENTICATE: Treatment.SASL_AUTHENTICATE,
}

OFFERED: dict[int, tuple[int, int]] = {
    # Minimum 0 although brokers reject Produce 0-2: librdkafka's feature detection needs to see it (KAFKA-18659).
    ApiKey.PRODUCE: (0, 13),
    ApiKey.FETCH: (4, 18),  # below 4, Kafka 3.9 converts records to old formats
    ApiKey.LIST_OFFSETS: (1, 11),
    ApiKey.METADATA: (0, 13),
    ApiKey.FIND_COORDINATOR: (0, 6),
    ApiKey.DESCRIBE_CLUSTER: (0, 2),
    ApiKey.SHARE_FETCH: (1, 2),
    ApiKey.SHARE_ACKNOWLEDGE: (1, 2),
    ApiKey.API_VERSIONS: (0, 4),
    ApiKey.DELETE_RECORDS: (0, 2),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: (2, 4),
    ApiKey.SASL_HANDSHAKE: (0, 1),  # v0 is refused, but librdkafka wants to see it (RD_KAFKA_FEATURE_SASL_HANDSHAKE)
}

KNOWN = frozenset(int(key) for key in ApiKey)

ENDPOINTS_SINCE: dict[int, int] = {ApiKey.PRODUCE: 10}
"""The first version of an answer that carries endpoints, where that isn't the first version at all (KIP-951)."""


_CORRELATION_ID = 4


def treatment(key: int) -> Treatment:
    return TREATMENTS.get(key, Treatment.PASS)


@lru_cache(maxsize=16)
def offered_versions(said: bytes, version: int) -> bytes:
    """ApiVersions' answer without its correlation id, cut down to what we offer. Raises MalformedError.

    Brokers say the same to everybody, and everybody asks at the beginning of each connection.
    """
    return patch_api_versions(bytes(_CORRELATION_ID) + said, version, OFFERED, KNOWN)[_CORRELATION_ID:]


def offers(key: int, version: int) -> bool:
    """Whether a request of this key and version is one we let through: otherwise Kafka's way is to close."""
    if key not in KNOWN:
        return False
    lowest, highest = OFFERED.get(key, (0, 0x7FFF))
    return lowest <= version <= highest
