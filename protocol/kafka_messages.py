"""kafka-python's message classes, made strict: what encodes and decodes with them.

They know every field of every version, but they are untyped, move fast, and let broken bytes through in several ways
(3.0.12; tests/unit/protocol/test_codec.py pins what we lean on):

- Bytes left over after the message are ignored, and a string that runs past the end is cut short in silence.
  So we ask for the position where decoding stopped and compare it with the end.
- Truncation surfaces as IndexError, struct.error, TypeError or ValueError, and tags inside tagged structures as
  AssertionError. All become MalformedError.
- The zero topic id is decoded as None.
- Unknown tags are dropped on encoding.
"""

import struct
from typing import Any

from protocol.errors import MalformedError
from protocol.headers import response_body_at
from protocol.wire import Buffer


def encode(message: Any, version: int) -> bytes:
    """A request's or an answer's body."""
    return bytes(message.encode(version=version))


def decode_response(message_class: Any, payload: Buffer, version: int) -> Any:
    """The message of a whole answer, header included."""
    return decode(message_class, payload, response_body_at(message_class.API_KEY, version, payload), version)


def decode(message_class: Any, payload: Buffer, pos: int, version: int) -> Any:
    """Decode the message that fills `payload` from `pos` to its end. Raises MalformedError.

    `decode()` hides where it stopped, which is the only way to notice bytes that are left over or missing at
    the very end. The compiled decoder underneath returns it.
    """
    flexible = message_class.flexible_version_q(version)
    compiled = message_class._struct.compiled_decode_from(
        version, compact=flexible, tagged=flexible, data_class=message_class[None]
    )
    try:
        message, end = compiled(memoryview(payload), pos)
    except (IndexError, struct.error, TypeError, ValueError, OverflowError, MemoryError, AssertionError) as error:
        raise MalformedError(f"{message_class.name} v{version}: {error}") from error
    if end != len(payload):
        kind = "bytes are missing at the end" if end > len(payload) else "bytes are left over"
        raise MalformedError(f"{message_class.name} v{version}: {abs(len(payload) - end)} {kind}")
    return message
