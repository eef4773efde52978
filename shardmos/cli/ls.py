"""`shardmos ls`: see push.py."""

from shardmos.cli.push import ls

__all__ = ["ls"]
