"""Whether the host has the memory that a port's rings want.

The kernel gives it page by page, and looks for processes to kill when there is no more: so it is asked first.
"""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from shardmos.errors import ShardmosError


def check(names: Sequence[str], wanted: int) -> None:
    """ShardmosError with one line where `wanted` bytes for the rings of these interfaces are not to be had."""
    free = psutil.virtual_memory().available
    if wanted > free:
        raise ShardmosError(
            f"{' and '.join(names)}: no memory for the receive rings: all workers' want {_mebibytes(wanted)}, "
            f"and {_mebibytes(free)} are free; give a smaller --set port.ring"
        )


def _mebibytes(count: int) -> str:
    return f"{count >> 20:,} MiB"
