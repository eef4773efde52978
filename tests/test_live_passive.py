"""Passive ports: every packet of real programs is seen, and workers that get others' packets hand them over."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinators import Running, until, write_module
from live import Reported, lost, quick, quiet, settled, since, totals, transfer, udp_echo
from netns import Wire
from traffic import checksum, conversation, ip_frame

READER = "@sm.on(sm.NEW_DATA)\ndef data(self, flow, data):\n    pass"
SAME = (
    "flow_packets_tcp", "flow_packets_udp", "flows_made_tcp", "flows_made_udp", "stream_bytes", "event_new_data",
    "event_state_change", "datagrams_reassembled", "icmp_errors_tied",
)  # fmt: skip


@contextlib.contextmanager
def listening(*arguments: str, interface: str = "eth0") -> Iterator[tuple[Wire, Running]]:
    """A coordinator that listens on the server's own interface; two namespaces joined by a cable."""
    words = quick("-i", interface, *arguments)
    with Wire(box=False, queues=2) as wire, Running(*words, prefix=wire.server.command()) as running:
        yield wire, running


def to_port(port: int) -> Callable[[dict[str, Any]], bool]:
    return lambda flow: bool(flow["server_port"] == port)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_tap_sees_all_that_real_programs_do(runtime_dir: Path, workers: int) -> None:
    size = 1 << 20
    # Rings that hold all of it, and for seconds: nothing can be lost, however long the workers must wait for a core.
    roomy = ("--set", "port.ring=64MiB", "--set", "port.block_time=50ms")
    with listening("-w", str(workers), *roomy) as (wire, running), Reported(running) as reported:
        assert "packets wait 50 ms at most for their block to fill" in running.status()["ports"][0]["mode"]
        before = quiet(running)
        for version in (4, 6):
            transfer(wire, size, 8000 + version, version)
            transfer(wire, size, 8010 + version, version, up=True)
            udp_echo(wire, [b"x" * 5000, b"y"], 9000 + version, version)
        for port, span in ((8004, [0, size]), (8014, [size, 0]), (8006, [0, size]), (8016, [size, 0])):
            (flow,) = reported.wait(to_port(port), 1)
            assert (flow["stream_span"], flow["missing_bytes"], flow["conn_state"]) == (span, [0, 0], "SF")
        for port in (9004, 9006):
            (flow,) = reported.wait(to_port(port), 1)
            assert flow["payload_bytes"] == [5001, 5001]
        counted = since(before, running)
    assert counted["received"] == counted["devices_received"] + counted["devices_sent"] == counted["port_packets"]
    assert counted["waiting_now"] == 0
    assert lost(counted) == {}
    assert counted["bad_checksum"] == 0  # offloaded checksums are none yet


def test_loopback_is_seen_once(runtime_dir: Path) -> None:
    with listening(interface="lo") as (wire, running), Reported(running) as reported:
        with wire.server.socket(kind=socket.SOCK_DGRAM) as one, wire.server.socket(kind=socket.SOCK_DGRAM) as other:
            one.bind(("127.0.0.1", 7000))
            for _ in range(50):
                other.sendto(b"hello", ("127.0.0.1", 7000))
        (flow,) = reported.wait(lambda flow: flow["server_port"] == 7000, 1)
    assert flow["packets"] == [50, 0]


FLOWS = 20 + 4 + 4 + 8 + 1  # of mixture(): plain, in tunnels, the tunnels, in fragments, of ICMP errors


def told(flows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What must not depend on who got which packet; times and the worker do."""
    free = {"topic", "worker", "start", "end", "wire_bytes", "end_reason"}
    return sorted(tuple((key, str(flow[key])) for key in sorted(flow) if key not in free) for flow in flows)


def udp(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    return ip_frame(source, destination, 17, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload)


def fragments(frame: bytes, size: int = 800) -> list[bytes]:
    """The frame's IPv4 packet in fragments of `size` bytes, a multiple of 8."""
    head, body = bytearray(frame[:34]), frame[34:]
    out = []
    for at in range(0, len(body), size):
        part = body[at : at + size]
        more = 0x2000 if at + size < len(body) else 0
        head[16:18] = struct.pack("!H", 20 + len(part))
        head[20:22] = struct.pack("!H", more | at // 8)
        head[24:26] = b"\0\0"
        head[24:26] = struct.pack("!H", checksum(bytes(head[14:34])))
        out.append(bytes(head) + part)
    return out


def mixture() -> list[bytes]:
    """Conversations side by side, in a tunnel too, fragments, ICMP errors about flows, and what is no IP."""
    data = bytes(range(256)) * 2
    plain = [conversation(data, data * 2, client=(f"10.1.0.{number}", 40000 + number)) for number in range(20)]
    inner = [conversation(data, data, client=(f"10.2.0.{number}", 50000)) for number in range(4)]
    vxlan = [
        [udp("10.3.0.1", "10.3.0.2", (6000 + number, 4789), b"\x08\0\0\0\0\0\x07\0" + frame) for frame in frames]
        for number, frames in enumerate(inner)
    ]
    pieces = [fragments(udp(f"10.4.0.{number}", "10.0.0.2", (7000, 53), data * 6)) for number in range(8)]
    frames = [frame for row in itertools.zip_longest(*plain, *vxlan, *pieces) for frame in row if frame]
    quoted = plain[0][3][14:42]
    icmp = struct.pack("!BBHI", 3, 4, 0, 1400) + quoted
    error = ip_frame("10.9.0.1", "10.1.0.0", 1, icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:])
    arp = b"\xff" * 6 + b"\x02\0\0\0\0\x01\x08\x06" + bytes(46)
    for at in (40, 80, 120):
        frames[at:at] = [error, arp]
    return frames


@pytest.mark.parametrize("fanout", ["round-robin", "random", "cpu"])
def test_scattered_packets_give_the_same_flows_as_one_worker(runtime_dir: Path, tmp_path: Path, fanout: str) -> None:
    frames = mixture()

    def sent(*arguments: str) -> tuple[list[tuple[Any, ...]], dict[str, int]] | None:
        """None: a worker that got no core for 200 ms was not waited for, and so the order is not promised."""
        with listening(*arguments) as (wire, running), Reported(running) as reported:
            with running.client() as client:
                client.push(write_module(tmp_path / "probe.py", READER))
            started = settled(running)["port_unordered"]  # a host's own packets, before all workers were there
            with wire.client.packet_socket("eth0") as out:
                for frame in frames:
                    out.send(frame)
            until(lambda: totals(running)["packets"] >= len(frames), 60)
            if settled(running)["port_unordered"] != started:
                return None
            flows = reported.wait(lambda flow: flow["client"].startswith("10."), FLOWS, 60)
            return told(flows), settled(running)

    alone_result = sent("-w", "1")
    result = next(filter(None, (sent("-w", "3", "--set", f"port.fanout={fanout}") for _ in range(6))), None)
    if not alone_result or not result:
        pytest.skip("this machine leaves workers without a core for longer than they wait for each other")
    (one, alone), (many, scattered) = alone_result, result
    assert many == one
    assert scattered["packets_handed_over"] > len(frames) // 4
    assert scattered["packets_handed_over"] == scattered["packets_taken_over"]
    assert scattered["drop_handover"] == scattered["handover_copies_lost"] == 0
    for name in SAME:
        assert scattered[name] == alone[name], name
