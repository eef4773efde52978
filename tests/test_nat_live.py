"""The middlebox nat inline between namespaces: the servers' side has a route to the pool, and none to the clients."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from coordinators import Running, until
from live import Reported, connect, serving, settled, udp_echo
from netns import Namespace, Wire, join, need

DRIVERS = ("af_packet", "af_xdp")
SERVERS = [f"10.7.0.{last}" for last in (2, 3, 4, 5)]
INSIDE, POOL, FIRST = "10.9.0.0/24", "192.0.2.0/28", "192.0.2.0"
FORWARDED = ("192.0.2.15", 8080)


class Translated:
    """clients (10.9.0.x) — box with nat — servers (10.7.0.x), which reach the clients as addresses of the pool only."""

    def __init__(self, wire: Wire, running: Running, workers: int) -> None:
        self.wire, self.running, self.workers = wire, running, workers

    def counters(self) -> dict[str, int]:
        settled(self.running)
        with self.running.client() as client:
            (nat,) = [module for module in client.stats()["sum"]["modules"] if module["name"] == "nat"]
        return dict(nat["counters"])

    def drops(self) -> dict[str, int]:
        """What nat itself dropped. Devices may lose something on a busy machine, which is sent again."""
        return {name: value for name, value in self.counters().items() if value and name.startswith("drop_")}


@pytest.fixture(scope="module", params=[(driver, workers) for driver in DRIVERS for workers in (1, 2)], ids=str)
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Translated]:
    driver, workers = request.param
    home = tmp_path_factory.mktemp("run")
    home.chmod(0o700)
    with Wire(queues=2) as wire, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARDMOS_RUNTIME_DIR", str(home))
        wire.client.ip("address", "flush", "dev", "eth0")
        for last in (1, 2, 3):
            wire.client.ip("address", "add", f"10.9.0.{last}/24", "dev", "eth0")
        wire.client.ip("route", "add", "10.7.0.0/16", "dev", "eth0")
        wire.client.ip("address", "add", "fd07::1/64", "dev", "eth0", "nodad")
        wire.client.write("/proc/sys/net/ipv4/conf/eth0/arp_ignore", "0")
        for address in SERVERS[1:]:
            wire.server.ip("address", "add", f"{address}/24", "dev", "eth0")
        # What a route to the inside next hop says elsewhere: its link-layer address.
        there = wire.client.run("cat", "/sys/class/net/eth0/address").stdout.strip()
        wire.server.ip("route", "add", POOL, "dev", "eth0")
        for last in range(16):
            wire.server.ip("neighbour", "add", f"192.0.2.{last}", "lladdr", there, "dev", "eth0")
        wire.server.ip("route", "add", "unreachable", INSIDE)
        arguments = ["--pair", "left", "right", "-w", str(workers), "--driver", driver]
        # A loaded machine's last words of a connection may come late.
        for setting in ("timeouts.closed=4", "timeouts.reset=4", "timeouts.udp=30", "timeouts.icmp=30"):
            arguments += ["--set", setting]
        with Running(*arguments, prefix=wire.box.command()) as running:
            with running.client() as client:
                forward = f"tcp/{FORWARDED[0]}:{FORWARDED[1]}/10.9.0.2:80"
                client.push("nat", inside=INSIDE, pool=POOL, rest=120, forward=forward)
            yield Translated(wire, running, workers)


def exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def talk(box: Translated, port: int, waves: int, at_once: int) -> list[tuple[str, int]]:
    """Connections to the servers in turn, each with a number to say and to hear again. The names that servers saw."""
    seen: list[tuple[str, int]] = []

    def answer(connection: socket.socket) -> None:
        seen.append(connection.getpeername())
        connection.sendall(exactly(connection, 4) * 500)

    with serving(box.wire.server, ("0.0.0.0", port), answer):
        for wave in range(waves):
            opened = [connect(box.wire.client, (SERVERS[i % len(SERVERS)], port)) for i in range(at_once)]
            for i, connection in enumerate(opened):
                connection.sendall(struct.pack("!I", wave * at_once + i))
            for i, connection in enumerate(opened):
                assert exactly(connection, 2000) == struct.pack("!I", wave * at_once + i) * 500
                connection.close()
    return seen


@pytest.mark.timeout(400)
def test_thousands_of_connections_to_several_servers(box: Translated) -> None:
    """None is lost, and each is one flow with both its directions: answers come to the worker that knows them."""
    before, count = box.counters(), 2000 if box.workers == 2 else 400
    with Reported(box.running) as reported:
        seen = talk(box, 7001, waves=count // 200, at_once=200)
        flows = reported.wait(lambda flow: flow["server_port"] == 7001, count, seconds=120)
    assert len(seen) == count
    assert all(address.startswith("192.0.2.") for address, _ in seen)
    assert {flow["conn_state"] for flow in flows} == {"SF"}
    assert {tuple(flow["stream_bytes"]) for flow in flows} == {(4, 2000)}
    assert {flow["client"] for flow in flows} <= {"10.9.0.1", "10.9.0.2", "10.9.0.3"}
    after = box.counters()
    assert after["connections"] - before["connections"] == count
    assert box.drops() == {}


def test_forwarded_connections_are_one_flow_each(box: Translated) -> None:
    """From outside to a port of the pool: what the inside host answers goes to the worker that has the connection."""
    count, before = 300, box.counters()

    def answer(connection: socket.socket) -> None:
        connection.sendall(exactly(connection, 4) * 500)

    with Reported(box.running) as reported, serving(box.wire.client, ("10.9.0.2", 80), answer):
        for number in range(count):
            with connect(box.wire.server, FORWARDED) as connection:
                connection.sendall(struct.pack("!I", number))
                assert exactly(connection, 2000) == struct.pack("!I", number) * 500
        flows = reported.wait(lambda flow: flow["server_port"] == FORWARDED[1], count, seconds=120)
    assert {flow["server"] for flow in flows} == {FORWARDED[0]}
    assert {(flow["conn_state"], *flow["stream_bytes"]) for flow in flows} == {("SF", 4, 2000)}
    assert box.counters()["forwarded"] - before["forwarded"] == count
    assert box.drops() == {}


def test_datagrams_and_version_6_pass(box: Translated) -> None:
    udp_echo(box.wire, [os.urandom(size) for size in (0, 1, 1000, 1472, 1473, 9000, 65_000)], 7101)
    before = box.counters()
    udp_echo(box.wire, [os.urandom(size) for size in (0, 1, 1000)], 7102, 6)
    assert box.counters() == before and box.drops() == {}


def test_ping_through_it(box: Translated) -> None:
    need("ping", "iputils-ping")
    # Fragments arrive at one worker, are put together at a second, and the flow is of a third: each may be each.
    pings = [(server, "56", "10.9.0.1") for server in SERVERS]
    pings += [(server, "9000", f"10.9.0.{last}") for server in SERVERS for last in (1, 2, 3)]
    for server, size, source in pings:
        done = box.wire.client.run("ping", "-c", "3", "-i", "0.05", "-w", "30", "-s", size, "-I", source, server)
        assert done.returncode == 0, done.stdout + done.stderr  # three answers, however late
    assert box.drops() == {}


@pytest.fixture
def far(box: Translated) -> Iterator[Namespace]:
    """10.8.0.2, behind a router that the server's host becomes, over a link of 1,280 bytes."""
    server = box.wire.server
    with Namespace("far") as far:
        join(server, "far0", far, "eth0", mtu=1280)
        server.ip("address", "add", "10.8.0.1/24", "dev", "far0")
        far.ip("address", "add", "10.8.0.2/24", "dev", "eth0")
        far.ip("route", "add", "default", "via", "10.8.0.1")
        server.write("/proc/sys/net/ipv4/ip_forward", "1")
        for host in (server, far):
            host.write("/proc/sys/net/ipv4/icmp_ratelimit", "0")
        box.wire.client.ip("route", "add", "10.8.0.0/24", "via", "10.7.0.2", "onlink", "dev", "eth0")
        try:
            yield far
        finally:
            box.wire.client.ip("route", "del", "10.8.0.0/24")
            server.ip("link", "del", "far0")


def error_of(sock: socket.socket) -> tuple[int, int, int]:
    """The ICMP error that the kernel keeps for the socket that it is about: origin, type, code."""
    _, ancillary, _, _ = sock.recvmsg(2000, 512, 0x2000 | socket.MSG_DONTWAIT)  # MSG_ERRQUEUE
    (data,) = [data for level, kind, data in ancillary if (level, kind) == (socket.SOL_IP, 11)]
    return data[4], data[5], data[6]


def test_errors_reach_the_socket_that_they_are_about(box: Translated, far: Namespace) -> None:
    """As for traceroute: time exceeded at the router, port unreachable at the end."""
    before = box.counters()["icmp_errors"]
    for number in range(20):  # of different ports: either worker's
        with box.wire.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.SOL_IP, 11, 1)  # IP_RECVERR
            for ttl, expected in ((1, (2, 11, 0)), (9, (2, 3, 3))):
                probe.setsockopt(socket.SOL_IP, socket.IP_TTL, ttl)
                probe.sendto(b"probe", ("10.8.0.2", 33434 + number))
                until(partial(ready, probe))
                assert error_of(probe) == expected
    assert box.counters()["icmp_errors"] - before == 40
    assert box.drops() == {}


def ready(sock: socket.socket) -> bool:
    """Something is in its queue of errors."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


def test_path_mtu_discovery_works_through_it(box: Translated, far: Namespace) -> None:
    box.wire.server.ip("route", "change", POOL, "dev", "eth0", "mtu", "lock", "1500")
    far.ip("link", "set", "eth0", "mtu", "1500")
    data, got, done = os.urandom(1 << 20), [], threading.Event()

    def handle(connection: socket.socket) -> None:
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
        got.append(b"".join(parts))
        done.set()

    with serving(far, ("10.8.0.2", 7201), handle), connect(box.wire.client, ("10.8.0.2", 7201)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert done.wait(30)
    assert got == [data]
    assert "mtu 1280" in box.wire.client.run("ip", "route", "get", "10.8.0.2").stdout
    assert box.counters()["icmp_errors"] >= 1


def test_a_new_version_keeps_the_connections(box: Translated, tmp_path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        while data := connection.recv(100):
            connection.sendall(data)

    with serving(box.wire.server, ("0.0.0.0", 7301), answer):
        opened = [connect(box.wire.client, (SERVERS[i % len(SERVERS)], 7301)) for i in range(50)]
        with box.running.client() as client:
            forward = f"tcp/{FORWARDED[0]}:{FORWARDED[1]}/10.9.0.2:80"
            client.push("nat", inside=INSIDE, pool=POOL, rest=121, forward=forward)
        fresh = [connect(box.wire.client, (SERVERS[i % len(SERVERS)], 7301)) for i in range(50)]
        for connection in opened + fresh:
            connection.sendall(b"still there")
        for connection in opened + fresh:
            assert exactly(connection, 11) == b"still there"
            connection.close()
    assert box.counters()["connections"] == 50
    assert box.drops() == {}
