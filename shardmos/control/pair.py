"""What both drivers ask of an inline pair."""

from __future__ import annotations

import socket

from shardmos.control import interface
from shardmos.control.interface import Interface
from shardmos.errors import ShardmosError


def check(ends: list[Interface]) -> None:
    """ShardmosError with one line where the two cannot be joined."""
    if ends[0].index == ends[1].index:
        raise ShardmosError(f"--pair {ends[0].name} {ends[1].name}: a pair needs two interfaces, this is one")
    for end in ends:
        if end.linktype != interface.LINKTYPE_ETHERNET or end.name == "lo":
            raise ShardmosError(f"--pair: {end.name} is no Ethernet interface")
    if ends[0].mtu != ends[1].mtu:
        raise ShardmosError(
            f"--pair: {ends[0].name} has MTU {ends[0].mtu} and {ends[1].name} {ends[1].mtu}; "
            f"make them equal: ip link set {ends[1].name} mtu {ends[0].mtu}"
        )


def claim(end: Interface) -> socket.socket:
    """Two bridges over one interface would double every packet. The lock lives in the namespace with its holder, and by
    number: the interface may be renamed."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(f"\0shardmos-inline-{end.index}")
    except OSError:
        lock.close()
        raise ShardmosError(f"{end.name} is an end of another process's inline pair; stop that one first") from None
    return lock
