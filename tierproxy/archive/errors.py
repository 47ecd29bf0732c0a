"""What can be wrong with an archive itself. Errors of the store that holds it are in `store`."""

from tierproxy.errors import TierproxyError


class ArchiveError(TierproxyError):
    """Something in the archive is not as it must be."""


class FormatError(ArchiveError):
    """Stored bytes are damaged, or not ours. Reading them again will not help: look at the object."""


class UnknownVersionError(FormatError):
    """Stored by a tierproxy that is newer than this one. Run that version, or a later one."""


class ContinuityError(ArchiveError):
    """A change would leave a hole in the archive, or hold an offset twice. Nothing was changed."""


class ClusterMismatch(ArchiveError):
    """The archive under this name belongs to another Kafka cluster."""
