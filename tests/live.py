"""What tests of live ports share: traffic through sockets of a namespace, and what a coordinator told of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from coordinators import Running
from netns import Namespace, Wire

# Flows end soon after their last packet, so that a test need not wait for their records.
QUICK = ("timeouts.closed=0.3", "timeouts.reset=0.3", "timeouts.udp=1", "timeouts.icmp=1")


def quick(*arguments: str) -> list[str]:
    return [*arguments, *(part for setting in QUICK for part in ("--set", setting))]


@contextlib.contextmanager
def bridged(
    factory: pytest.TempPathFactory, driver: str, workers: int, *more: str, relay: bool = False
) -> Iterator[tuple[Wire, Running]]:
    """A wire whose box bridges with shardmos."""
    with Wire(queues=2, relay=relay) as wire, pytest.MonkeyPatch.context() as patch:
        home = factory.mktemp("run")
        home.chmod(0o700)
        patch.setenv("SHARDMOS_RUNTIME_DIR", str(home))
        arguments = quick("--pair", "left", "right", "-w", str(workers), "--driver", driver, *more)
        with Running(*arguments, prefix=wire.box.command()) as running:
            yield wire, running


def totals(running: Running) -> dict[str, int]:
    """The workers' counters, added up."""
    with running.client() as client:
        counters: dict[str, int] = client.stats()["sum"]["counters"]
    return counters


def settled(running: Running) -> dict[str, int]:
    """The counters when they have stopped moving."""
    before = totals(running)
    while True:
        time.sleep(0.25)
        now = totals(running)
        if all(now[key] == before[key] for key in ("packets", "packets_forwarded", "port_lost")):
            return now
        before = now


def quiet(running: Running) -> dict[str, int]:
    """All that was counted, by kernel and workers, at a moment when no packet was on its way: the counters are read one
    after the other, and hosts send packets of their own (neighbours, routers, multicast reports) when they like.

    What came while ports were being opened may be in some of the counters only: compare differences of two readings.
    """
    before: dict[str, int] = {}
    while True:
        with running.client() as client:
            stats = client.stats()
        now: dict[str, int] = {**stats["sum"]["counters"], **stats["ports"]}
        arrived = now["received"] == now["port_packets"] + now["lost_ring"]
        if arrived and all(now[key] == before.get(key) for key in ("devices_received", "devices_sent", "received")):
            return now
        before = now
        time.sleep(0.25)


def since(before: dict[str, int], running: Running) -> dict[str, int]:
    """What was counted between a `quiet` moment before and one now."""
    return {name: value - before.get(name, 0) for name, value in quiet(running).items()}


def lost(counted: dict[str, int]) -> dict[str, int]:
    """Every loss that has a count. The backlog's is the whole host's, whose other programs may lose there what they
    like."""
    return {name: value for name, value in counted.items() if value and "lost" in name and name != "lost_backlog"}


def drops(counters: dict[str, int]) -> dict[str, int]:
    """What workers took and did not pass on, by name. What never reached them (port_lost) is no part of `packets`."""
    return {name: value for name, value in counters.items() if value and name.startswith("drop_")}


def check_ledger(running: Running) -> dict[str, int]:
    """Everything that workers took was forwarded or dropped by name, however fast it came; the counters."""
    counters = settled(running)
    out = sum(counters[name] for name in ("packets_forwarded", "packets_edited", "packets_joined"))
    assert counters["packets"] == out + sum(drops(counters).values()), counters
    return counters


def check_lossless(running: Running, before: dict[str, int]) -> dict[str, int]:
    """As `check_ledger`, and nothing was lost since `before`: only for senders that wait for each answer, since how
    much a ring must hold for one that does not depends on how busy the machine is."""
    counters = check_ledger(running)
    lost = {name: counters[name] - before[name] for name in (*drops(counters), "port_lost")}
    assert {name: value for name, value in lost.items() if value} == {}
    return counters


class Reported:
    """The flow records that are published while the block lasts."""

    def __init__(self, running: Running) -> None:
        self.flows: list[dict[str, Any]] = []
        self._client = running.client()
        self._events = self._client.events("flow", timeout=60)
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        with contextlib.suppress(Exception):
            for event in self._events:
                self.flows.append(event)

    def wait(self, wanted: Callable[[dict[str, Any]], bool], count: int, seconds: float = 20) -> list[dict[str, Any]]:
        """`count` flows that are wanted; more is an error, and so is fewer after that time."""
        deadline = time.monotonic() + seconds
        while len(found := [flow for flow in self.flows if wanted(flow)]) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} flows were reported: {self.flows}"
            time.sleep(0.05)
        time.sleep(0.2)
        found = [flow for flow in self.flows if wanted(flow)]
        assert len(found) == count, found
        return found

    def __enter__(self) -> Reported:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._thread.join(5)


@contextlib.contextmanager
def serving(host: Namespace, address: tuple[str, int], handle: Callable[[socket.socket], None]) -> Iterator[None]:
    """A TCP server whose connections are handled in a thread each."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = host.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(512)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(60)
            handle(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def connect(host: Namespace, address: tuple[str, int]) -> socket.socket:
    made = host.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    made.settimeout(60)
    made.connect(address)
    return made


def digest_of(connection: socket.socket) -> tuple[int, str]:
    """Bytes and SHA-256 of what comes until the end."""
    digest, count = hashlib.sha256(), 0
    while data := connection.recv(1 << 20):
        digest.update(data)
        count += len(data)
    return count, digest.hexdigest()


def transfer(wire: Wire, size: int, port: int, version: int = 4, up: bool = False) -> None:
    """`size` random bytes over one connection, down from the server or up to it, checked at the other side."""
    data = os.urandom(min(size, 1 << 20)) * max(1, size >> 20)
    expected = (len(data), hashlib.sha256(data).hexdigest())
    got: list[tuple[int, str]] = []
    done = threading.Event()

    def handle(connection: socket.socket) -> None:
        if up:
            got.append(digest_of(connection))
            done.set()
        else:
            connection.sendall(data)

    server = wire.SERVER if version == 4 else wire.SERVER6
    with serving(wire.server, (server, port), handle), connect(wire.client, (server, port)) as connection:
        if up:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            assert done.wait(60)
        else:
            got.append(digest_of(connection))
    assert got == [expected]


def udp_echo(wire: Wire, payloads: list[bytes], port: int, version: int = 4) -> None:
    """Each datagram there and back, one after the other."""
    family, server = (socket.AF_INET, wire.SERVER) if version == 4 else (socket.AF_INET6, wire.SERVER6)
    kind = socket.SOCK_DGRAM
    with wire.server.socket(family, kind) as answering, wire.client.socket(family, kind) as asking:
        answering.bind((server, port))
        asking.connect((server, port))
        for end in (answering, asking):
            end.settimeout(10)
        for payload in payloads:
            asking.send(payload)
            data, address = answering.recvfrom(1 << 16)
            assert data == payload
            answering.sendto(data, address)
            assert asking.recv(1 << 16) == payload
