"""Inline between two namespaces: real programs work as over a cable, and what is reported is what they did."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinators import Running, until
from live import (
    Reported,
    bridged,
    check_ledger,
    check_lossless,
    connect,
    digest_of,
    lost,
    quiet,
    serving,
    settled,
    since,
    transfer,
    udp_echo,
)
from netns import Namespace, Wire, need

DRIVERS = ("af_packet", "af_xdp")


@pytest.fixture(scope="module", params=[(driver, workers) for driver in DRIVERS for workers in (1, 2)], ids=str)
def bridge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Wire, Running]]:
    with bridged(tmp_path_factory, *request.param) as bridge:
        yield bridge


Bridge = tuple[Wire, Running]


def driver(running: Running) -> str:
    with running.client() as client:
        return str(client.status()["ports"][0]["driver"])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("up", [False, True], ids=["download", "upload"])
def test_a_bulk_transfer_is_whole_and_its_flow_is_told(bridge: Bridge, version: int, up: bool) -> None:
    wire, running = bridge
    size, port = 24 << 20, 8000 + 2 * version + up
    with Reported(running) as reported:
        transfer(wire, size, port, version, up)
        (flow,) = reported.wait(lambda flow: flow["server_port"] == port, 1)
    assert flow["server"] == (wire.SERVER if version == 4 else wire.SERVER6)
    assert flow["client"] == (wire.CLIENT if version == 4 else wire.CLIENT6)
    assert flow["stream_span"] == ([size, 0] if up else [0, size])
    assert (flow["conn_state"], flow["end_reason"], flow["missing_bytes"]) == ("SF", "fin", [0, 0])
    check_ledger(running)


def test_curl_gets_the_files_that_a_web_server_has(bridge: Bridge, tmp_path: Path) -> None:
    wire, running = bridge
    need("curl", "curl")
    contents = {f"file{number}": os.urandom(size) for number, size in enumerate((0, 1, 1447, 1449, 70_000, 3_000_000))}
    (tmp_path / "www").mkdir()
    for name, content in contents.items():
        (tmp_path / "www" / name).write_bytes(content)
    program = (sys.executable, "-m", "http.server", "8081", "-d", str(tmp_path / "www"), "-b", wire.SERVER)
    server = wire.server.start(*program)
    try:
        until(lambda: wire.server.run("curl", "-s", f"http://{wire.SERVER}:8081/").returncode == 0)
        with Reported(running) as reported:
            for name, content in contents.items():
                out = tmp_path / "got"
                done = wire.client.run("curl", "-sS", "-o", str(out), f"http://{wire.SERVER}:8081/{name}")
                assert done.returncode == 0, done.stderr
                assert (out.read_bytes() if content else b"") == content
            flows = reported.wait(lambda flow: flow["server_port"] == 8081, len(contents))
        sizes = sorted(flow["stream_span"][1] for flow in flows)
        for told, content in zip(sizes, sorted(contents.values(), key=len), strict=True):
            assert 0 < told - len(content) < 400  # the header
    finally:
        server.kill()
        server.communicate()


def test_hundreds_of_connections_are_as_many_flows(bridge: Bridge) -> None:
    wire, running = bridge
    count, port = 300, 8090
    before = settled(running)

    def answer(connection: socket.socket) -> None:
        size = struct.unpack("!I", connection.recv(4, socket.MSG_WAITALL))[0]
        connection.sendall(b"x" * size)

    with Reported(running) as reported:
        with serving(wire.server, (wire.SERVER, port), answer):
            for number in range(count):
                with connect(wire.client, (wire.SERVER, port)) as connection:
                    connection.sendall(struct.pack("!I", number))
                    assert digest_of(connection)[0] == number
        flows = reported.wait(lambda flow: flow["server_port"] == port, count)
    assert sorted(flow["stream_span"][1] for flow in flows) == list(range(count))
    assert {flow["conn_state"] for flow in flows} == {"SF"}
    check_lossless(running, before)


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_of_any_size_come_through_in_fragments_too(bridge: Bridge, version: int) -> None:
    wire, running = bridge
    before = settled(running)
    payloads = [os.urandom(size) for size in (0, 1, 1400, 1472, 1473, 9000, 40_000, 65_000)]
    with Reported(running) as reported:
        udp_echo(wire, payloads, 9000 + version, version)
        (flow,) = reported.wait(lambda flow: flow["server_port"] == 9000 + version, 1)
    total = sum(len(payload) for payload in payloads)
    assert flow["payload_bytes"] == [total, total]
    counters = check_lossless(running, before)
    assert counters["datagrams_reassembled"] - before["datagrams_reassembled"] == 2 * (4 if version == 4 else 5)


def test_ping_with_packets_larger_than_the_mtu(bridge: Bridge) -> None:
    wire, running = bridge
    need("ping", "iputils-ping")
    before = settled(running)
    for address in (wire.SERVER, wire.SERVER6):
        done = wire.client.run("ping", "-c", "5", "-i", "0.2", "-s", "9000", "-W", "20", address)
        assert " 0% packet loss" in done.stdout, done.stdout + done.stderr
    check_lossless(running, before)


def frame(destination: bytes, source: bytes, ethertype: int, payload: bytes) -> bytes:
    return destination + source + struct.pack("!H", ethertype) + payload.ljust(46, b"\0")


def test_frames_come_out_as_they_went_in(bridge: Bridge) -> None:
    """Tags, unknown types, multicast that a bridge keeps, bad checksums, short and full frames, each way."""
    wire, running = bridge
    a, b = b"\x02\x00\x00\x00\x0a\x01", b"\x02\x00\x00\x00\x0a\x02"
    ip = bytes.fromhex("45000022000100004011000001020304050607080035003500 0e0000".replace(" ", "")) + b"abcdef"
    sent = [
        frame(b, a, 0x88B5, b"experimental"),
        frame(b"\x01\x80\xc2\x00\x00\x00", a, 0x0026, b"\x42\x42\x03" + b"\0" * 35),  # STP
        frame(b"\x01\x80\xc2\x00\x00\x0e", a, 0x88CC, b"\x02\x07\x04lldp"),
        frame(b, a, 0x8100, struct.pack("!HH", 0x6005, 0x0800) + ip),  # priority 3, VLAN 5
        frame(b, a, 0x88A8, struct.pack("!HHHH", 100, 0x8100, 200, 0x0800) + ip),
        frame(b, a, 0x8100, struct.pack("!HH", 4095, 0x88B5) + b"a tag with nothing known behind it"),
        frame(b, a, 0x0800, ip),
        frame(b, a, 0x0800, b"\x45\xff lies about everything"),
        frame(b, a, 0x88B5, os.urandom(1500)),
        frame(b, a, 0x8100, struct.pack("!HH", 7, 0x88B5) + os.urandom(1500)),
    ]
    before = settled(running)
    ordered = driver(running) == "af_packet" and len(running.status()["workers"]) == 1  # frames of no flow: any worker
    ends: list[tuple[Namespace, Namespace]] = [(wire.client, wire.server), (wire.server, wire.client)]
    for near, far in ends:
        with near.packet_socket("eth0") as out, far.packet_socket("eth0") as back:
            back.settimeout(30)
            back.setsockopt(263, 8, 1)  # PACKET_AUXDATA: the tag, which the kernel takes out
            for each in sent:
                out.send(each)
            got: list[bytes] = []
            while len(got) < len(sent):
                data, ancillary, _, (_, _, kind, _, _) = back.recvmsg(65536, 256)
                if kind == 4 or data[6:12] != a:  # what this host sends itself
                    continue
                status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", ancillary[0][2][:20])
                got.append(data[:12] + struct.pack("!HH", tpid, tci) + data[12:] if status & 0x10 else data)
            assert got == sent if ordered else sorted(got) == sorted(sent)
    check_lossless(running, before)


def test_path_mtu_discovery_works_through_the_box(bridge: Bridge) -> None:
    """A router beyond the server says "too big": the ICMP error comes through, and the transfer goes on with less."""
    wire, running = bridge
    size, port = 3 << 20, 8100
    wire.server.ip("route", "change", "10.7.0.0/24", "dev", "eth0", "mtu", "lock", "1500")
    with Namespace("far") as far:
        from netns import join

        join(wire.server, "far0", far, "eth0", mtu=1280)
        wire.server.ip("address", "add", "10.8.0.1/24", "dev", "far0")
        far.ip("address", "add", "10.8.0.2/24", "dev", "eth0")
        far.ip("route", "add", "default", "via", "10.8.0.1")
        wire.server.write("/proc/sys/net/ipv4/ip_forward", "1")
        wire.client.ip("route", "add", "10.8.0.0/24", "via", wire.SERVER)
        try:
            done = threading.Event()
            got: list[tuple[int, str]] = []

            def handle(connection: socket.socket) -> None:
                got.append(digest_of(connection))
                done.set()

            data = os.urandom(size)
            # The far end offers a segment size that does not fit its link, so that only the router can tell.
            with serving(far, ("10.8.0.2", port), handle):
                far.ip("link", "set", "eth0", "mtu", "1500")
                with connect(wire.client, ("10.8.0.2", port)) as connection:
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                    assert done.wait(30)
            assert got == [(size, hashlib.sha256(data).hexdigest())]
            assert "mtu 1280" in wire.client.run("ip", "route", "get", "10.8.0.2").stdout
        finally:
            wire.client.ip("route", "del", "10.8.0.0/24")
            wire.server.ip("link", "del", "far0")
    assert settled(running)["icmp_errors_tied"] >= 1


def test_iperf3_both_ways(bridge: Bridge) -> None:
    wire, running = bridge
    need("iperf3", "iperf3")
    server = wire.server.start("iperf3", "-s", "-B", wire.SERVER)
    try:
        for way in ((), ("-R",), ("-u", "-b", "20M"), ("-u", "-b", "20M", "-R")):
            # It listens anew after each round.
            until(lambda: "LISTEN" in wire.server.run("ss", "-ltnH", "sport = 5201").stdout)
            done = wire.client.run("iperf3", "-c", wire.SERVER, "-t", "1", "-P", "2", *way)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        server.kill()
        server.communicate()
    check_ledger(running)  # they send as fast as they can, so that rings may have overflown


def test_nothing_that_came_is_unaccounted_for(bridge: Bridge) -> None:
    """What the devices counted as received is what the workers saw, where each packet waits for the one before it."""
    wire, running = bridge
    before = quiet(running)
    udp_echo(wire, [os.urandom(1000)] * 500, 8200)
    counted = since(before, running)
    assert counted["devices_received"] == counted["received"] == counted["packets"] >= 1000
    assert lost(counted) == {}
    # Its program gives each packet to its owner, but for the hosts' multicast reports; queues need not.
    if driver(running) == "af_packet":
        assert counted["packets_handed_over"] < 100
