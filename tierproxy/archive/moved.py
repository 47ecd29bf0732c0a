"""What lies in a manifest's place when the partition's archive lies elsewhere.

    {
      "format": "tierproxy-moved",
      "version": 1,
      "to": "glacier",                    the archive to look into, by its name in the configuration
      "move": "0f3a…",                    one name for both ends of a move; "" when it is over
      "manifest": null,                   or a whole manifest, handed over to that archive
      "checksum": "sha256:..."
    }

`moving` says in which order such documents are written, and why a reader always finds the truth.
"""

import json
from dataclasses import dataclass
from typing import Self

from tierproxy.archive.json_fields import Fields, sealed
from tierproxy.archive.manifest import Manifest

FORMAT = "tierproxy-moved"
VERSION = 1
_BEGINNING = f'{{\n  "format": "{FORMAT}"'.encode()


@dataclass(frozen=True, slots=True)
class Moved:
    """Look into archive `to`. With `manifest` that is the truth, until `to` has one of its own."""

    to: str
    move: str
    manifest: Manifest | None = None

    def to_json(self) -> bytes:
        manifest = json.loads(self.manifest.to_json()) if self.manifest is not None else None
        fields = {"format": FORMAT, "version": VERSION, "to": self.to, "move": self.move, "manifest": manifest}
        return sealed(json.dumps(fields, indent=2).encode() + b"\n")

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """From the stored form. FormatError for anything not right."""
        fields = Fields.of_document(data, "what is in the manifest's place", FORMAT, VERSION)
        to, move, manifest = fields.text("to"), fields.text("move"), fields.document("manifest")
        fields.finish()
        return cls(to, move, Manifest.from_json(manifest) if manifest is not None else None)


def read_manifest(data: bytes) -> Manifest | Moved:
    """What is in a manifest's place. FormatError for anything else."""
    return Moved.from_json(data) if data.startswith(_BEGINNING) else Manifest.from_json(data)
