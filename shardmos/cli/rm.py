"""`shardmos rm`: see push.py."""

from shardmos.cli.push import rm

__all__ = ["rm"]
