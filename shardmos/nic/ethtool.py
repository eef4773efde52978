"""What a card's driver is asked by ethtool: channels, receive-side scaling, what is hashed.

By the ioctl: it reaches the same functions of the driver as netlink does, on every kernel. Netlink takes changes of RSS
only since Linux 6.17, and pyroute2 has messages for neither RSS nor channels (it uses this ioctl too). Layouts and
numbers: linux/ethtool.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import Protocol

from shardmos.errors import ShardmosError

_SIOCETHTOOL = 0x8946
_GDRVINFO, _GFLAGS, _GRXFH, _SRXFH, _GCHANNELS, _SCHANNELS, _GRSSH, _SRSSH = 3, 0x25, 0x29, 0x2A, 0x3C, 0x3D, 0x46, 0x47
_LRO = 1 << 15
TOEPLITZ = 1  # ETH_RSS_HASH_TOP
SYMMETRIC_XOR = 1  # RXH_XFRM_SYM_XOR
ADDRESSES_AND_PORTS = 0xF0  # RXH_IP_SRC, RXH_IP_DST, RXH_L4_B_0_1, RXH_L4_B_2_3
FLOW_TYPES = {"tcp4": 1, "udp4": 2, "tcp6": 5, "udp6": 6}


@dataclass(frozen=True, slots=True)
class Channels:
    """Queue counts. Cards have `combined` ones, or (veth) `rx` and `tx` apart."""

    rx: int
    tx: int
    combined: int
    max_rx: int
    max_tx: int
    max_combined: int

    @property
    def queues(self) -> int:
        """Receive queues."""
        return self.combined + self.rx

    @property
    def most(self) -> int:
        return self.max_combined or min(self.max_rx, self.max_tx)


@dataclass(frozen=True, slots=True)
class Rss:
    """`table[hash mod its length]` is the receive queue; `transform`: SYMMETRIC_XOR combines both ends before."""

    key: bytes
    table: tuple[int, ...]
    function: int = TOEPLITZ
    transform: int = 0


class Card(Protocol):
    """The layer that `shardmos.nic.plan` works on. None: the driver has no such thing."""

    name: str

    def driver(self) -> str: ...

    def channels(self) -> Channels | None: ...

    def set_channels(self, wanted: Channels) -> None: ...

    def rss(self) -> Rss | None: ...

    def set_rss(self, wanted: Rss) -> None: ...

    def hashed(self, flow_type: str) -> int | None: ...

    def set_hashed(self, flow_type: str, fields: int) -> None: ...


class Ethtool:
    """A Card, by ioctl. Every method raises ShardmosError, of one line, for what the kernel refuses."""

    def __init__(self, name: str) -> None:
        try:
            socket.if_nametoindex(name)
        except OSError:
            there = ", ".join(sorted(each for _, each in socket.if_nameindex())) or "none"
            raise ShardmosError(f"no interface {name}; there are: {there}") from None
        self.name = name

    def driver(self) -> str:
        """Its name, "" where it has none."""
        answer = self._ask(struct.pack("=I", _GDRVINFO).ljust(196, b"\0"))
        return answer[4:36].split(b"\0")[0].decode("ascii", "replace") if answer else ""

    def channels(self) -> Channels | None:
        answer = self._ask(struct.pack("=9I", _GCHANNELS, *[0] * 8))
        if answer is None:
            return None
        _, max_rx, max_tx, _, max_combined, rx, tx, _, combined = struct.unpack("=9I", answer)
        return Channels(rx, tx, combined, max_rx, max_tx, max_combined)

    def set_channels(self, wanted: Channels) -> None:
        before = self._ask(struct.pack("=9I", _GCHANNELS, *[0] * 8)) or bytes(36)
        other = struct.unpack("=9I", before)[7]
        self._tell(
            struct.pack("=9I", _SCHANNELS, 0, 0, 0, 0, wanted.rx, wanted.tx, other, wanted.combined),
            f"{wanted.queues} queue{'s' * (wanted.queues > 1)} (an open AF_XDP port keeps those it has)",
        )

    def rss(self) -> Rss | None:
        """None too where the driver has a table but no key that can be read."""
        sizes = self._ask(struct.pack("=4I4BI", _GRSSH, 0, 0, 0, 0, 0, 0, 0, 0))
        if sizes is None:
            return None
        _, _, entries, key_bytes = struct.unpack_from("=4I", sizes)
        if not entries or not key_bytes:
            return None
        request = struct.pack("=4I4BI", _GRSSH, 0, entries, key_bytes, 0, 0, 0, 0, 0)
        answer = self._ask(request + bytes(4 * entries + key_bytes))
        if answer is None:
            return None
        function, transform = answer[16], answer[17]
        table = struct.unpack_from(f"={entries}I", answer, 24)
        return Rss(answer[24 + 4 * entries :][:key_bytes], table, function, transform)

    def set_rss(self, wanted: Rss) -> None:
        entries = len(wanted.table)
        request = struct.pack("=4I4BI", _SRSSH, 0, entries, len(wanted.key), wanted.function, wanted.transform, 0, 0, 0)
        self._tell(request + struct.pack(f"={entries}I", *wanted.table) + wanted.key, "this RSS key and table")

    def hashed(self, flow_type: str) -> int | None:
        """Which fields of such packets are hashed (RXH_*)."""
        answer = self._ask(struct.pack("=IIQ", _GRXFH, FLOW_TYPES[flow_type], 0).ljust(192, b"\0"))
        return int(struct.unpack_from("=Q", answer, 8)[0]) if answer else None

    def set_hashed(self, flow_type: str, fields: int) -> None:
        request = struct.pack("=IIQ", _SRXFH, FLOW_TYPES[flow_type], fields).ljust(192, b"\0")
        self._tell(request, f"hashing those fields of {flow_type}")

    def merges(self) -> bool:
        """Large receive offload is on: the card glues segments together, for good."""
        answer = self._ask(struct.pack("=II", _GFLAGS, 0))
        return bool(answer and struct.unpack("=II", answer)[1] & _LRO)

    def _ask(self, request: bytes) -> bytes | None:
        """The answer to a request for what is; None where the driver has none."""
        try:
            return self._ioctl(request)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.EPERM):
                return None
            raise ShardmosError(f"{self.name}: {error.strerror}") from None

    def _tell(self, request: bytes, what: str) -> None:
        try:
            self._ioctl(request)
        except OSError as error:
            raise _refusal(self.name, what, error.errno or 0) from None

    def _ioctl(self, request: bytes) -> bytes:
        memory = ctypes.create_string_buffer(request, len(request))
        asked = struct.pack("16sP16x", self.name.encode(), ctypes.addressof(memory))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCETHTOOL, asked)
        return memory.raw


def _refusal(name: str, what: str, number: int) -> ShardmosError:
    if number in (errno.EPERM, errno.EACCES):
        return ShardmosError(f"{name}: no permission to change it; run as root: sudo shardmos nic {name} ...")
    if number == errno.EOPNOTSUPP:
        return ShardmosError(f"{name}: its driver cannot do {what}")
    return ShardmosError(f"{name}: the driver refused {what}: {os.strerror(number)}")
