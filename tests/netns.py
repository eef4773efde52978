"""Network namespaces with veth pairs between them, for tests of live ports; skips where they cannot be had."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from socket import AF_INET, AF_PACKET, SOCK_RAW, SOCK_STREAM
from socket import socket as Socket

import pytest

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)


def missing() -> str:
    """Why there can be no namespaces here, "" if there can."""
    if shutil.which("ip") is None:
        return "the program ip is missing: apt-get install iproute2"
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return "namespaces are Linux's"
    capabilities = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
    if not capabilities >> 12 & capabilities >> 13 & capabilities >> 21 & 1:
        return "network namespaces need CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN: run as root"
    return ""


def need(program: str, package: str) -> str:
    """Where the program is; the test skips where it is not."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"the program {program} is missing: apt-get install {package}")
    return found


def require() -> None:
    """Skips the test where namespaces cannot be."""
    if reason := missing():
        pytest.skip(reason)


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"


class Namespace:
    """A network namespace of its own, with its loopback up. `remove` takes it and its interfaces away."""

    def __init__(self, label: str) -> None:
        self.name = f"smos-{os.getpid()}-{next(_numbers)}-{label}"
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> None:
        ip("-n", self.name, *arguments)

    def command(self, *command: str) -> list[str]:
        """The command as it is run inside."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*command), capture_output=True, text=True, timeout=timeout)

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )

    def write(self, path: str, value: str) -> None:
        """A setting below /proc/sys/net of this namespace."""
        with self.inside():
            Path(path).write_text(value)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in the namespace; sockets that it makes there stay there."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as here:
            _set(here.fileno())
            try:
                yield
            finally:
                _set(home.fileno())

    def socket(self, family: int = AF_INET, kind: int = SOCK_STREAM, proto: int = 0) -> Socket:
        with self.inside():
            return Socket(family, kind, proto)

    def packet_socket(self, interface: str) -> Socket:
        """For raw frames through one interface."""
        with self.inside():
            made = Socket(AF_PACKET, SOCK_RAW, 0)
            made.bind((interface, 3))
            return made

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, timeout=20)


def _set(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns")


def join(
    a: Namespace, name_a: str, b: Namespace, name_b: str, queues: int = 1, mtu: int = 1500, up: bool = True
) -> None:
    """A veth pair, an end in each namespace."""
    many = ["numtxqueues", str(queues), "numrxqueues", str(queues)]
    a.ip("link", "add", name_a, *many, "type", "veth", "peer", "name", name_b, "netns", b.name, *many)
    for end, name in ((a, name_a), (b, name_b)):
        end.ip("link", "set", name, "mtu", str(mtu))
        if up:
            end.ip("link", "set", name, "up")


class Wire:
    """client — box — server: hosts at both ends, and between them a box with `left` and `right` and no address.

    The box forwards nothing until something in it does. Without `box` the two hosts are joined directly. With `relay`
    there is one more namespace, with `near` and `far`, between the client and the box, and nothing sends super packets.
    """

    CLIENT, SERVER, CLIENT6, SERVER6 = "10.7.0.1", "10.7.0.2", "fd07::1", "fd07::2"

    def __init__(self, box: bool = True, queues: int = 1, mtu: int = 1500, relay: bool = False) -> None:
        require()
        self.client, self.server = Namespace("client"), Namespace("server")
        self.all = [self.client, self.server]
        try:
            if box:
                self.box = Namespace("box")
                self.all.append(self.box)
                self.box.write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
                if relay:
                    self.relay = Namespace("relay")
                    self.all.append(self.relay)
                    self.relay.write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
                    join(self.client, "eth0", self.relay, "near", queues, mtu)
                    join(self.relay, "far", self.box, "left", queues, mtu)
                else:
                    join(self.client, "eth0", self.box, "left", queues, mtu)
                join(self.server, "eth0", self.box, "right", queues, mtu)
            else:
                join(self.client, "eth0", self.server, "eth0", queues, mtu)
            hosts = ((self.client, self.CLIENT, self.CLIENT6), (self.server, self.SERVER, self.SERVER6))
            for host, address, address6 in hosts:
                host.ip("address", "add", f"{address}/24", "dev", "eth0")
                host.ip("address", "add", f"{address6}/64", "dev", "eth0", "nodad")
            if relay:
                ends = ((self.client, "eth0"), (self.server, "eth0"), (self.relay, "near"), (self.relay, "far"))
                for host, name in ends:
                    done = host.run("ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
                    assert done.returncode == 0, done.stderr
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for namespace in self.all:
            namespace.remove()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
