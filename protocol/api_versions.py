"""ApiVersions responses, v0 to v4: read the key list, and cut it down in place.

Only the key list changes. The error, the throttle time and the tags behind it (features: clients decide by
them whether to use transactions v2, KIP-890) stay byte for byte.

A broker that is asked for a version above its own answers error 35 in the *v0* layout, whatever was asked
(KIP-511); any other error keeps the asked layout. The response header never has a tag section.
"""

from collections.abc import Collection, Mapping
from struct import Struct
from typing import TypeAlias

from protocol.apis import ApiKey, is_flexible
from protocol.errors import ErrorCode
from protocol.wire import Buffer, Cursor, put_uvarint

_ENTRY = Struct(">hhh")
_UNSUPPORTED = Struct(">ihi")
_KEYS_AT = 6
"""The key list follows correlation id (4 bytes) and error (2) in every version."""

_OWN_RANGE = (0, 4)
"""What Kafka 4.3.1 says of ApiVersions itself when the asked version is unknown."""


def read_api_versions(payload: Buffer, version: int) -> dict[int, tuple[int, int]]:
    """API key → (lowest, highest version); {} if the broker answered an error without keys.

    `version` is the one asked for. Raises MalformedError, also for bytes left over.
    """
    entries, _, _ = _scan(payload, version)
    return {key: (lowest, highest) for key, lowest, highest, _ in entries}


def api_versions_error(payload: Buffer) -> int:
    """The top-level error code, which stands at the same place in every version."""
    cur = Cursor(payload, 4)
    return cur.i16()


def patch_api_versions(
    payload: Buffer,
    version: int,
    limits: Mapping[int, tuple[int, int]],
    known: Collection[int],
) -> bytes:
    """The response with its key list cut down to what we understand.

    `limits` maps keys to the (lowest, highest) version we read or patch: those ranges are intersected with
    the broker's. Keys outside `known` and keys whose range becomes empty are dropped. `version` is the one
    asked for. Raises MalformedError, also for bytes left over.
    """
    entries, end, flexible = _scan(payload, version)
    kept = 0
    out = bytearray()
    for key, lowest, highest, tags in entries:
        if key not in known:
            continue
        low, high = limits.get(key, (lowest, highest))
        low, high = max(low, lowest), min(high, highest)
        if low > high:
            continue
        kept += 1
        out += _ENTRY.pack(key, low, high) + tags
    count = put_uvarint(kept + 1) if flexible else kept.to_bytes(4, "big")
    return b"".join((payload[:_KEYS_AT], count, out, payload[end:]))


def unsupported_api_versions(correlation_id: int) -> bytes:
    """Payload of the answer to a version nobody knows: 16 bytes, as Kafka 4.3.1 sends them.

    Error 35 and ApiVersions' own range, so that the client can ask again (KIP-511).
    """
    head = _UNSUPPORTED.pack(correlation_id, ErrorCode.UNSUPPORTED_VERSION, 1)
    return head + _ENTRY.pack(ApiKey.API_VERSIONS, *_OWN_RANGE)


_Entry: TypeAlias = tuple[int, int, int, bytes]
"""Key, lowest version, highest version, the entry's tag section (b"" if the layout has none)."""


def _scan(payload: Buffer, version: int) -> tuple[list[_Entry], int, bool]:
    """The key list, where it ends, and whether the layout is flexible. Checks the rest, too."""
    if api_versions_error(payload) == ErrorCode.UNSUPPORTED_VERSION:
        version = 0
    flexible = is_flexible(ApiKey.API_VERSIONS, version)
    cur = Cursor(payload, _KEYS_AT)
    entries: list[_Entry] = []
    for _ in range(cur.compact_array_len(7) if flexible else cur.array_len(6)):
        key, lowest, highest = cur.unpack(_ENTRY)
        start = cur.pos
        if flexible:
            cur.skip_tags()
        entries.append((key, lowest, highest, bytes(payload[start : cur.pos])))
    end = cur.pos
    if version >= 1:
        cur.skip(4)
    if flexible:
        cur.skip_tags()
    cur.finish()
    return entries, end, flexible
