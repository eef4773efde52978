"""What shardmos raises. Every message is one line that says what went wrong, where, and how to mend it."""

from __future__ import annotations


class ShardmosError(Exception):
    """The base of everything that shardmos raises on purpose; its text is one line."""

    def __init__(self, message: object = "") -> None:
        super().__init__(" ".join(str(message).split()))


class UsageError(ShardmosError, ValueError):
    """An argument or option that cannot be meant; the command line ends with exit code 2."""


class CaptureError(ShardmosError):
    """A capture that is missing, unreadable, damaged, or no capture."""


class ModuleError(ShardmosError):
    """A middlebox that does not compile, load, or start."""


class SegmentError(ShardmosError):
    """A shared-memory segment that is not what it should be."""
