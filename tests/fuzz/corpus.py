"""The kept inputs, a folder for each target. `python -m tests.fuzz.corpus` adds what the golden vectors give."""

import hashlib
from pathlib import Path

from protocol.apis import ApiKey
from tests.fuzz.targets import TARGETS, WITH_ENDPOINTS
from tests.vectors import HERE as VECTORS
from tests.vectors import vector, vectors, version_of

CORPUS = Path(__file__).parent / "corpus"
MOST_BYTES = 4096
"""Larger inputs are not kept: they slow every run down, and what they cover smaller ones do."""


def kept(target: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((CORPUS / target).glob("*"))]


def keep(target: str, data: bytes) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    if len(data) <= MOST_BYTES:
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def _seed() -> None:
    for name in vectors("fetch-request-"):
        payload = vector(name)
        keep("fetch_request", payload)
        keep("frames", b"\x05" + len(payload).to_bytes(4, "big") + payload)
        keep("conversation", _talk(payload))
    for name in vectors("fetch-v"):
        payload, version = vector(name), version_of(name)
        keep("fetch_answer", bytes([version - 4]) + payload)
        keep("fetch_stream", bytes([version - 4, 7]) + payload)
        keep("messages", bytes([0, version]) + payload)
    for name in vectors("api-versions-v"):
        keep("api_versions", bytes([version_of(name) % 5]) + vector(name))
    for number, key in enumerate(WITH_ENDPOINTS):
        prefix = ApiKey(key).name.lower().replace("_", "-")
        for path in sorted(VECTORS.glob(f"{prefix}-v*.bin")):
            keep("endpoints", bytes([number, version_of(path.stem)]) + path.read_bytes())
            keep("messages", bytes([4, version_of(path.stem)]) + path.read_bytes())
    for path in sorted(VECTORS.glob("segment-v1.*")):
        for target in ("index", "manifest", "batches"):
            keep(target, path.read_bytes())
    for target in TARGETS:
        keep(target, b"\0")


def _talk(payload: bytes) -> bytes:
    """A client's frame, in the portions that the conversation's target takes."""
    frame = len(payload).to_bytes(4, "big") + payload
    return b"".join(b"\x03" + frame[at : at + 9] for at in range(0, len(frame), 9))


if __name__ == "__main__":
    _seed()
