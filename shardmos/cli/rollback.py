"""`shardmos rollback`: see push.py."""

from shardmos.cli.push import rollback

__all__ = ["rollback"]
