"""Whether the host has the memory that rings want.

The kernel gives it page by page, and looks for processes to kill when there is no more: so it is asked first.
"""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from shardmos.errors import ShardmosError


def check(names: Sequence[str], wanted: int) -> None:
    """ShardmosError with one line where `wanted` bytes for the rings of these interfaces are not to be had."""
    _check(f"{' and '.join(names)}: no memory for the receive rings", wanted, "port.ring")


def check_handover(wanted: int) -> None:
    """Likewise for the rings between workers."""
    _check("no memory for the rings between workers", wanted, "port.handover")


def _check(said: str, wanted: int, setting: str) -> None:
    free = psutil.virtual_memory().available
    if wanted > free:
        raise ShardmosError(
            f"{said}: all workers' want {_mebibytes(wanted)}, and {_mebibytes(free)} are free; "
            f"give a smaller --set {setting}"
        )


def _mebibytes(count: int) -> str:
    return f"{count >> 20:,} MiB"
