"""AF_PACKET ports: the coordinator's half. Opens, configures and binds the sockets.

Workers map their rings (native/src/port/af_packet.h). A ring belongs to its socket, so it outlives the worker that
reads it. Struct layouts and numbers: linux/if_packet.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from shardmos.control import interface, memory
from shardmos.control import pair as pairs
from shardmos.control.fanout import owner_program
from shardmos.control.interface import Interface
from shardmos.errors import ShardmosError

_SOL_PACKET = 263
_ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _COPY_THRESH, _VERSION, _RESERVE = 1, 5, 6, 7, 10, 12
_VNET_HDR, _FANOUT, _QDISC_BYPASS, _FANOUT_DATA, _IGNORE_OUTGOING = 15, 18, 20, 22, 23
_V2, _V3 = 1, 2
_ETH_P_ALL = 3
_MR_PROMISC = 1
_SO_ATTACH_FILTER, _SO_DETACH_FILTER, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 26, 27, 32, 33
_FANOUT_MODES = {"hash": 0, "round-robin": 1, "cpu": 2, "random": 4, "queue": 5, "owner": 6}
_FANOUT_UNIQUE, _FANOUT_IGNORE_OUTGOING = 0x2000, 0x4000
_DENY_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0)

_PAGE = os.sysconf("SC_PAGE_SIZE")
_BLOCK = 1 << 18
_SLOT_HEADER = 128  # tpacket2_hdr, sockaddr_ll, virtio header, the reserve, Ethernet with tags
_RESERVED = 32
_SOCKET_BUFFER = 32 << 20  # super packets wait there, and what is being sent
GRANT = "run it as root, or: sudo setcap cap_net_raw,cap_net_admin+ep $(readlink -f $(command -v python3))"


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


@dataclass(slots=True)
class Ring:
    """As PACKET_RX_RING got it."""

    block_bytes: int
    blocks: int
    frame_bytes: int
    block_ms: int = 0


@dataclass(slots=True)
class PacketPort:
    """One passive interface, or the two ends of a pair, for all workers: `sockets[worker][end]`."""

    names: list[str]
    interfaces: list[Interface]
    ring: Ring
    fail_open: bool
    sockets: list[list[socket.socket]] = field(default_factory=list)
    locks: list[socket.socket] = field(default_factory=list)
    counted: list[dict[str, int]] = field(default_factory=list)
    driver: str = "af_packet"

    def fds(self, worker: int) -> list[int]:
        return [each.fileno() for each in self.sockets[worker]]

    def spec(self, worker: int) -> dict[str, Any]:
        """What `Shard.add_packet_port` takes."""
        return {
            "driver": self.driver, "names": self.names, "fds": self.fds(worker),
            "linktype": self.interfaces[0].linktype, "mtu": max(each.mtu for each in self.interfaces),
            "block_bytes": self.ring.block_bytes, "blocks": self.ring.blocks, "frame_bytes": self.ring.frame_bytes,
            "fail_open": self.fail_open,
        }  # fmt: skip

    def counters(self) -> list[dict[str, int]]:
        """Per worker what its sockets were given, and what of that their rings had no room for."""
        for total, ends in zip(self.counted, self.sockets, strict=True):
            for end in ends:  # the kernel forgets what it tells
                received, dropped = struct.unpack_from("=II", end.getsockopt(_SOL_PACKET, _STATISTICS, 12))
                total["received"] += received
                total["dropped"] += dropped
        return self.counted

    def details(self) -> dict[str, int]:
        return {}

    @property
    def mode(self) -> str:
        late = f"a TPACKET_V3 ring, packets wait {self.ring.block_ms} ms at most for their block to fill"
        return "two TPACKET_V2 rings" if self.inline else late

    @property
    def inline(self) -> bool:
        return len(self.names) == 2

    def stale(self) -> bool:
        """An interface has gone and come back: the sockets belong to the one that is no more."""
        now = [interface.index_of(name) for name in self.names]
        bound = all(interface.is_bound(end) for ends in self.sockets for end in ends)
        return all(now) and (now != [each.index for each in self.interfaces] or not bound)

    def close(self) -> None:
        for each in [*(end for ends in self.sockets for end in ends), *self.locks]:
            each.close()


def open_port(names: list[str], workers: int, owner_seed: int, options: dict[str, Any]) -> PacketPort:
    """One name: passive; two: a pair. ShardmosError with one line, and nothing left open."""
    interfaces = [interface.find(name) for name in names]
    pair = len(names) == 2
    if pair:
        pairs.check(interfaces)
    largest, size = max(each.mtu for each in interfaces), options["ring"]
    ring = _pair_ring(largest, size) if pair else _block_ring(size, options["block_time"])
    memory.check(names, ring.block_bytes * ring.blocks * len(names) * workers)
    port = PacketPort(names, interfaces, ring, options["fail"] == "open")
    try:
        if pair:
            port.locks = [pairs.claim(each) for each in interfaces]
        port.sockets = [[] for _ in range(workers)]
        port.counted = [{"received": 0, "dropped": 0} for _ in range(workers)]
        for each in interfaces:
            for number, opened in enumerate(_open_end(each, ring, pair, workers, owner_seed, options)):
                port.sockets[number].append(opened)
        for ends in port.sockets:
            for opened in ends:
                opened.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except PermissionError:
        port.close()
        raise ShardmosError(f"{' and '.join(names)}: no permission to open packet sockets; {GRANT}") from None
    except OSError as error:
        port.close()
        raise ShardmosError(f"{' and '.join(names)}: {_explain(error)}") from None
    except ShardmosError:
        port.close()
        raise
    return port


def _explain(error: OSError) -> str:
    if error.errno == errno.ENOMEM:
        return "no memory for the receive rings; give a smaller --set port.ring"
    return f"the packet sockets cannot be opened: {error.strerror}"


def _block_ring(size: int, seconds: float) -> Ring:
    return Ring(_BLOCK, max(4, size // _BLOCK), _BLOCK, max(1, round(seconds * 1000)))


def _pair_ring(mtu: int, size: int) -> Ring:
    """Slots for a frame of the MTU with two tags; odd in cache lines, so that not all fall into the same sets."""
    slot = -(-(mtu + 14 + 8 + _SLOT_HEADER + _RESERVED) // 128) * 128 + 64
    blocks = max(2, size // _BLOCK)
    while _BLOCK // slot * blocks < 256:
        blocks += 1
    return Ring(_BLOCK, blocks, slot)


def _open_end(
    of: Interface, ring: Ring, pair: bool, workers: int, owner_seed: int, options: dict[str, Any]
) -> list[socket.socket]:
    """A socket per worker, which get nothing while their filter is attached."""
    opened: list[socket.socket] = []
    group = 0
    try:
        for _ in range(workers):
            opened.append(each := socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0))
            _configure(each, of, ring, pair, options)
            if workers > 1:
                group = _join(each, group, workers, owner_seed, options["fanout"], pair)
        return opened
    except OSError:
        for each in opened:
            each.close()
        raise


def _configure(each: socket.socket, of: Interface, ring: Ring, pair: bool, options: dict[str, Any]) -> None:
    def number(option: int, value: int) -> None:
        each.setsockopt(_SOL_PACKET, option, value)

    number(_VERSION, _V2 if pair else _V3)
    number(_RESERVE, _RESERVED)
    for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
        with contextlib.suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
    if pair:
        number(_VNET_HDR, 1)
        number(_COPY_THRESH, 1)
        number(_QDISC_BYPASS, 1)
    if pair or of.name == "lo":  # what we send is not to come back; on lo every packet is seen when it arrives
        number(_IGNORE_OUTGOING, 1)
    frames = ring.block_bytes // ring.frame_bytes * ring.blocks
    request = [ring.block_bytes, ring.blocks, ring.frame_bytes, frames]
    if not pair:
        request += [ring.block_ms, 0, 0]
    each.setsockopt(_SOL_PACKET, _RX_RING, struct.pack(f"={len(request)}I", *request))
    _attach(each, socket.SOL_SOCKET, _SO_ATTACH_FILTER, _DENY_ALL)  # until all are open: nothing is seen twice
    each.bind((of.name, _ETH_P_ALL))
    if pair or options["promiscuous"]:
        each.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("=iHH8s", of.index, _MR_PROMISC, 0, b""))


def _join(each: socket.socket, group: int, workers: int, owner_seed: int, mode: str, pair: bool) -> int:
    kind = _FANOUT_MODES[mode] | (_FANOUT_IGNORE_OUTGOING if pair else 0)
    first = not group
    each.setsockopt(_SOL_PACKET, _FANOUT, struct.pack("=HH", group, kind | (_FANOUT_UNIQUE if first else 0)))
    if first:
        group = each.getsockopt(_SOL_PACKET, _FANOUT) & 0xFFFF
        if mode == "owner":
            _attach(each, _SOL_PACKET, _FANOUT_DATA, owner_program(owner_seed, workers))
    return group


def _attach(each: socket.socket, level: int, option: int, code: bytes) -> None:
    program = _Program(len(code) // 8, code)
    each.setsockopt(level, option, bytes(program))
