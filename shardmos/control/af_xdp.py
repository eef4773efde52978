"""AF_XDP ports: the coordinator's half. Attaches the program, opens and binds a socket per queue, passes them on.

Queue q of each interface is worker q mod N's. A worker's sockets share one memory, so that a pair forwards by moving
descriptors (native/src/port/af_xdp.h). The program sees packets before Linux does: the host gets none of them.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardmos.control import bpf, interface, memory
from shardmos.control import pair as pairs
from shardmos.control.interface import Interface
from shardmos.control.protocol import runtime_dir
from shardmos.control.switched_off import SwitchedOff
from shardmos.control.xsk import STATISTICS, Memory, Socket
from shardmos.errors import ShardmosError

log = logging.getLogger("shardmos")

GRANT = (
    "run it as root, or: sudo setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep "
    "$(readlink -f $(command -v python3))"
)
_MOST_SOCKETS = 64  # SMOS_XSK_SOCKETS
_HEADROOM, _TAGGED_HEADER = 256, 14 + 8
# What a frame of AF_XDP cannot tell: a tag that the device took out, packets that it merged.
_UNSEEN = ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse", "rx-lro", "rx-gro-hw")
_UNSEEN_GENERIC = ("rx-gro", "rx-gro-list")  # Linux merges behind a native program, before a generic one
_MODES = {bpf.NATIVE: "native", bpf.GENERIC: "generic"}


@dataclass(slots=True)
class XdpPort:
    """One passive interface, or the two ends of a pair, for all workers: `sockets[worker][end][n]`."""

    names: list[str]
    interfaces: list[Interface]
    options: dict[str, Any]
    native: bool = True
    ring: int = 0
    memories: list[Memory] = field(default_factory=list)
    sockets: list[list[list[Socket]]] = field(default_factory=list)
    locks: list[socket.socket] = field(default_factory=list)
    off: list[SwitchedOff] = field(default_factory=list)
    witnesses: list[socket.socket] = field(default_factory=list)
    kernel: list[int] = field(default_factory=list)  # descriptors of maps, programs and links

    driver: str = "af_xdp"

    def fds(self, worker: int) -> list[int]:
        ends = self.sockets[worker]
        return [self.memories[worker].fd, *(each.socket.fileno() for end in ends for each in end)]

    def spec(self, worker: int) -> dict[str, Any]:
        """What `Shard.add_xsk_port` takes."""
        memory = self.memories[worker]
        return {
            "driver": self.driver, "names": self.names, "fds": self.fds(worker),
            "sockets": [len(end) for end in self.sockets[worker]], "frames": memory.frames,
            "frame_bytes": memory.frame_bytes, "ring": self.ring, "mtu": max(each.mtu for each in self.interfaces),
            "fail_open": self.options["fail"] == "open", "busy_poll": self.options["busy_poll"],
        }  # fmt: skip

    def counters(self) -> list[dict[str, int]]:
        total = []
        for ends in self.sockets:
            each = [one.statistics() for end in ends for one in end]
            dropped = sum(one["rx_dropped"] + one["rx_ring_full"] for one in each)
            total.append({"received": dropped + sum(one["received"] for one in each), "dropped": dropped})
        return total

    def details(self) -> dict[str, int]:
        """What the kernel counts of its sockets, by name."""
        each = [one.statistics() for ends in self.sockets for end in ends for one in end]
        return {f"xsk_{name}": sum(one[name] for one in each) for name in STATISTICS}

    @property
    def mode(self) -> str:
        zero = all(one.zero_copy for ends in self.sockets for end in ends for one in end)
        return f"{'native' if self.native else 'generic'} mode, {'zero copy' if zero else 'the kernel copies'}"

    def stale(self) -> bool:
        """An interface has gone and come back: the sockets belong to the one that is no more. Or frames are too small
        for the MTU that it has now."""
        now = [interface.index_of(name) for name in self.names]
        if not all(now):
            return False
        bound = all(map(interface.is_bound, self.witnesses))
        return now != [each.index for each in self.interfaces] or not bound or self._grown()

    def _grown(self) -> bool:
        """All their MTUs: while one after the other is changed, the port goes on as it is."""
        now = {interface.mtu_of(name) for name in self.names}
        return len(now) == 1 and now.pop() > self.interfaces[0].mtu

    def close(self) -> None:
        for fd in reversed(self.kernel):
            os.close(fd)
        for each in (one for ends in self.sockets for end in ends for one in reversed(end)):
            each.close()
        for frames in self.memories:
            frames.close()
        for each_socket in (*self.locks, *self.witnesses):
            each_socket.close()
        for off in self.off:
            off.restore()


def open_port(names: list[str], workers: int, owner_seed: int, options: dict[str, Any]) -> XdpPort:
    """One name: passive; two: a pair. ShardmosError with one line, and nothing left open or changed."""
    del owner_seed  # queues decide; what is another's is handed over
    interfaces = [interface.find(name) for name in names]
    pair = len(names) == 2
    if pair:
        pairs.check(interfaces)
    queues = [_queues(each, workers) for each in interfaces]
    if options["driver"] == "auto":
        _fits_unasked(interfaces, pair)
    port = XdpPort(names, interfaces, options)
    try:
        if pair:
            port.locks = [pairs.claim(each) for each in interfaces]
        if pair or options["promiscuous"]:
            port.locks += [interface.promiscuous(each) for each in interfaces]
        port.witnesses = [interface.witness(each) for each in interfaces]
        maps = _attach(port, queues, pair)
        unseen = _UNSEEN if port.native else _UNSEEN + _UNSEEN_GENERIC
        port.off += [SwitchedOff(each, unseen, runtime_dir()) for each in interfaces]
        _open_sockets(port, queues, workers)
        places = [(end, queue) for end, count in enumerate(queues) for queue in range(count)]
        opened = [port.sockets[queue % workers][end][queue // workers] for end, queue in places]
        for (end, queue), each in zip(places, opened, strict=True):
            _bind(port, each, interfaces[end], queue)
        for (end, queue), each in zip(places, opened, strict=True):  # binding takes long; all begin together
            bpf.set_socket(maps[end], queue, each.socket.fileno())
    except PermissionError:
        port.close()
        raise ShardmosError(f"{' and '.join(names)}: no permission for AF_XDP; {GRANT}") from None
    except OSError as error:
        port.close()
        raise ShardmosError(f"{' and '.join(names)}: {_explain(error)}") from None
    except ShardmosError:
        port.close()
        raise
    _tell(port, pair)
    return port


def _queues(of: Interface, workers: int) -> int:
    if of.linktype != interface.LINKTYPE_ETHERNET or of.name == "lo":
        raise ShardmosError(f"{of.name}: AF_XDP wants an Ethernet interface; --driver af_packet takes this one")
    if of.mtu + _TAGGED_HEADER + _HEADROOM > 4096:
        raise ShardmosError(
            f"{of.name}: its MTU {of.mtu} does not fit into a frame of AF_XDP, "
            f"at most {4096 - _HEADROOM - _TAGGED_HEADER}; use --driver af_packet"
        )
    there = [path.name for path in Path(f"/sys/class/net/{of.name}/queues").iterdir()]
    receive, transmit = (sum(name.startswith(kind) for name in there) for kind in ("rx-", "tx-"))
    if transmit < receive:
        raise ShardmosError(
            f"{of.name} has {receive} receive queues and {transmit} to transmit; make them equal: ethtool -L {of.name}"
        )
    if workers > receive:
        raise ShardmosError(
            f"{of.name} has {receive} receive queue{'s' * (receive > 1)} for {workers} workers, and each needs one: "
            f"ethtool -L {of.name}, or -w {receive}"
        )
    return receive


def _fits_unasked(interfaces: list[Interface], pair: bool) -> None:
    """What `auto` does not do to a host."""
    for each in interfaces:
        if not pair and interface.has_address(each.name):
            raise ShardmosError(f"it would take {each.name}'s packets from this host, which has an address there")


def _attach(port: XdpPort, queues: list[int], pair: bool) -> list[int]:
    """The program at each interface, at all in the same mode; returns their maps of sockets."""
    maps = [bpf.socket_map(count) for count in queues]
    port.kernel += maps
    programs = [bpf.load_to_sockets(map_fd, bpf.DROP if pair else bpf.PASS) for map_fd in maps]
    port.kernel += programs
    modes = {"native": [bpf.NATIVE], "generic": [bpf.GENERIC], "auto": [bpf.NATIVE, bpf.GENERIC]}
    for mode in modes[port.options["xdp_mode"]]:
        port.native = mode == bpf.NATIVE
        why = _link(port, programs, mode)
        if not why:
            return maps
        if port.options["driver"] == "auto" and port.native:
            raise ShardmosError(why)  # generic mode is slower than packet sockets
        log.info("%s", why)
    raise ShardmosError(why)


def _link(port: XdpPort, programs: list[int], mode: int) -> str:
    """All links, or none and why not."""
    links: list[int] = []
    for of, program in zip(port.interfaces, programs, strict=True):
        try:
            links.append(bpf.attach(program, of.index, mode))
        except OSError as error:
            for link in links:
                os.close(link)
            if isinstance(error, PermissionError):
                raise
            if error.errno in (errno.EBUSY, errno.EEXIST):
                raise _carries(of) from None
            return f"{of.name}: its driver takes no XDP program in {_MODES[mode]} mode ({error.strerror})"
    port.kernel += links
    return ""


def _carries(to: Interface) -> ShardmosError:
    return ShardmosError(
        f"{to.name} carries another XDP program; stop the process that put it there, or: ip link set {to.name} xdp off"
    )


def _open_sockets(port: XdpPort, queues: list[int], workers: int) -> None:
    tallest = max(each.mtu for each in port.interfaces)
    frame_bytes = 2048 if tallest + _TAGGED_HEADER + _HEADROOM <= 2048 else 4096
    port.ring = 1 << max(256, port.options["ring"] // frame_bytes).bit_length() - 1
    each = port.ring + port.ring // 2  # half as many again are on their way out
    memory.check(port.names, each * sum(queues) * frame_bytes)
    for worker in range(workers):
        counts = [len(range(worker, count, workers)) for count in queues]
        if sum(counts) > _MOST_SOCKETS:
            raise ShardmosError(
                f"{' and '.join(port.names)}: {sum(counts)} queues for one worker, at most {_MOST_SOCKETS}; "
                "give more workers"
            )
        frames = Memory(each * sum(counts), frame_bytes)
        port.memories.append(frames)
        port.sockets.append([])
        first, number = None, 0
        for count in counts:
            port.sockets[-1].append([])
            for _ in range(count):
                opened = Socket(frames, port.ring, first, port.options["busy_poll"])
                first = first or opened
                opened.fill(frames, each * number)
                number += 1
                port.sockets[-1][-1].append(opened)


def _bind(port: XdpPort, opened: Socket, of: Interface, queue: int) -> None:
    try:
        opened.bind(of.index, queue, copy=not port.native)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ShardmosError(
                f"queue {queue} of {of.name} is another process's AF_XDP socket's; stop that one first"
            ) from None
        raise


def _explain(error: OSError) -> str:
    if error.errno == errno.EAFNOSUPPORT:
        return "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS); use --driver af_packet"
    if error.errno == errno.ENOSYS:
        return "this kernel has no bpf(2) (CONFIG_BPF_SYSCALL); use --driver af_packet"
    if error.errno in (errno.ENOBUFS, errno.ENOMEM):
        return "the frames may not be locked in memory: ulimit -l unlimited, or a smaller --set port.ring"
    return f"AF_XDP cannot be had: {error.strerror}"


def _tell(port: XdpPort, pair: bool) -> None:
    for name, off in zip(port.names, port.off, strict=True):
        if off.changed:
            log.info("%s: switched off until the end, AF_XDP cannot see them: %s", name, ", ".join(sorted(off.changed)))
        if off.stuck:
            log.warning("%s: cannot be switched off, AF_XDP cannot see them: %s", name, ", ".join(sorted(off.stuck)))
        if not pair and interface.has_address(name):
            log.warning("%s: its packets come here only; this host, which has an address there, gets none", name)
        if not port.native:
            log.warning("%s: generic mode loses packets larger than its MTU, as virtual peers send them (TSO)", name)
