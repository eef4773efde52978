"""A network interface as the kernel shows it: what it is, whether it is up, what it counted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from shardmos.errors import ShardmosError

_NET = Path("/sys/class/net")
_ETHERNET = (1, 772)  # ARPHRD_ETHER, ARPHRD_LOOPBACK
_RAW_IP = (65534, 768, 769, 776, 778, 823)  # ARPHRD_NONE and IP tunnels
_IFF_UP = 1
_SIOCGIFADDR, _SIOCGIFHWADDR, _LINK_SCOPE = 0x8915, 0x8927, "20"
_ELSEWHERE = "{name}: /sys shows another network namespace; enter by ip netns exec, which mounts the right one"
_SOL_PACKET, _ADD_MEMBERSHIP, _MR_PROMISC = 263, 1, 1
LINKTYPE_ETHERNET, LINKTYPE_RAW = 1, 101
COUNTERS = (
    "rx_packets", "rx_dropped", "rx_errors", "rx_fifo_errors", "rx_missed_errors", "rx_nohandler",
    "tx_packets", "tx_dropped", "tx_errors",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interface:
    """`mtu` in bytes without the Ethernet header."""

    name: str
    index: int
    mtu: int
    linktype: int
    up: bool


def find(name: str) -> Interface:
    """ShardmosError with one line where there is none, or none that packets can be read from."""
    try:
        index = socket.if_nametoindex(name)
        kind, mtu, flags = (int(_read(name, what), 0) for what in ("type", "mtu", "flags"))
    except (OSError, ValueError):
        there = ", ".join(sorted(each for _, each in socket.if_nameindex())) or "none"
        if index_of(name):
            raise ShardmosError(_ELSEWHERE.format(name=name)) from None
        raise ShardmosError(f"no interface {name}; there are: {there}") from None
    if int(_read(name, "ifindex")) != index or not address(name).startswith(_read(name, "address")[:17]):
        raise ShardmosError(_ELSEWHERE.format(name=name))
    if kind in _ETHERNET:
        linktype = LINKTYPE_ETHERNET
    elif kind in _RAW_IP:
        linktype = LINKTYPE_RAW
    else:
        raise ShardmosError(f"{name} is no Ethernet or IP interface (ARPHRD type {kind}); it cannot be a port")
    return Interface(name, index, mtu, linktype, bool(flags & _IFF_UP))


def address(name: str) -> str:
    """Its hardware address, or the first six bytes of it, zeros where it has fewer; OSError where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, struct.pack("=16s24x", name.encode()))
    return ":".join(f"{byte:02x}" for byte in answer[18:24])


def index_of(name: str) -> int:
    """0 while there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def mtu_of(name: str) -> int:
    """0 while there is none."""
    with contextlib.suppress(OSError, ValueError):
        return int(_read(name, "mtu"))
    return 0


def is_up(name: str) -> bool:
    """Up, and with a carrier."""
    return not why_down(name)


def why_down(name: str) -> str:
    """What keeps packets away, and what mends it; "" where nothing does."""
    with contextlib.suppress(OSError, ValueError):
        if int(_read(name, "flags"), 0) & _IFF_UP:
            return "" if _read(name, "carrier") == "1" else "has no carrier: {}; is its other end plugged in and up?"
    return f"is down: {{}}: ip link set {name} up"


def has_address(name: str) -> bool:
    """The host itself uses it: it has an IPv4 address, or an IPv6 one that is not only the link's."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("=16s24x", name.encode()))
        return True
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as file:
        return any(fields[5] == name and fields[3] != _LINK_SCOPE for fields in map(str.split, file))
    return False


def promiscuous(of: Interface) -> socket.socket:
    """It takes frames to other stations as long as this socket is open, which receives nothing."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        opened.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("=iHH8s", of.index, _MR_PROMISC, 0, b""))
    except OSError:
        opened.close()
        raise
    return opened


def witness(of: Interface) -> socket.socket:
    """A socket that is bound to the interface, and receives nothing; see `is_bound`."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        opened.bind((of.name, 0))
    except OSError:
        opened.close()
        raise
    return opened


def is_bound(to_one: socket.socket) -> bool:
    """Its interface is in this namespace since then. One that was in another meanwhile may have the number that it had,
    but no socket is bound to it any more."""
    return bool(to_one.getsockname()[0])


def counters(name: str) -> dict[str, int]:
    """The device's own counters; empty while it is gone."""
    found = {}
    for counter in COUNTERS:
        with contextlib.suppress(OSError, ValueError):
            found[counter] = int(_read(name, f"statistics/{counter}"))
    return found


def backlog() -> dict[str, int]:
    """The kernel's queues before any socket, over all cores: taken, dropped for want of room, cut short."""
    names = ("backlog_packets", "backlog_dropped", "backlog_squeezed")
    total = dict.fromkeys(names, 0)
    with contextlib.suppress(OSError, ValueError), open("/proc/net/softnet_stat") as file:
        for line in file:
            for name, value in zip(names, line.split(), strict=False):
                total[name] += int(value, 16)
    return total


def _read(name: str, what: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(name)
    return os.fspath((_NET / name / what).read_text().strip())
