"""The bytes in tests/vectors that belong to the archive; segment-v1.md there says where they came from."""

from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "vectors"

SEGMENT_FILE = _FOLDER / "segment-v1.log.zst"
SEGMENT = SEGMENT_FILE.read_bytes()
SEGMENT_LOG = (_FOLDER / "segment-v1.log").read_bytes()
"""The plain Kafka log that SEGMENT holds, as the broker wrote it."""
