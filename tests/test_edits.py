"""Packets that middleboxes edit, drop, inject and reset, as they come out in a capture; read back with scapy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.utils import rdpcap
from traffic import ACK, CLIENT, FIN, PSH, SERVER, SYN, tcp_frame, write_pcap

import shardmos as sm
from shardmos.errors import ShardmosError

C, S = 1001, 9001  # first bytes of client and server


def frames() -> list[bytes]:
    """A request and a reply, acknowledged, and the close."""
    request, reply = b"GET /index", b"HTTP/1.0 200 OK"
    return [
        tcp_frame(CLIENT, SERVER, C - 1, 0, SYN),
        tcp_frame(SERVER, CLIENT, S - 1, C, SYN | ACK),
        tcp_frame(CLIENT, SERVER, C, S, ACK),
        tcp_frame(CLIENT, SERVER, C, S, PSH | ACK, request),
        tcp_frame(SERVER, CLIENT, S, C + 10 + 6, PSH | ACK, reply),  # as the server counts: six bytes more
        tcp_frame(CLIENT, SERVER, C + 10, S + 15, FIN | ACK),
        tcp_frame(SERVER, CLIENT, S + 15, C + 17, FIN | ACK),
        tcp_frame(CLIENT, SERVER, C + 11, S + 16, ACK),
    ]


def packets_of(path: Path) -> list[Any]:
    """The packets of a capture; every checksum and length in them is right."""
    packets = list(rdpcap(str(path)))
    for packet in packets:
        again = IP(bytes(packet[IP]))
        wrote = (again.chksum, again[TCP].chksum)
        del again.chksum, again[TCP].chksum
        again = IP(bytes(again))
        assert (again.chksum, again[TCP].chksum) == wrote
    return packets


class Rewrite(sm.Middlebox):
    @sm.on(sm.PKT_IN)
    def packet(self, flow: sm.LiveFlow, packet: sm.Packet) -> None:
        if bytes(packet.payload).startswith(b"GET /index"):
            packet.insert(5, b"other-")
            assert bytes(packet.payload) == b"GET /other-index"
            packet.overwrite(0, b"PUT")

    @sm.on(sm.NEW_DATA, side=sm.SERVER)
    def data(self, flow: sm.LiveFlow, data: memoryview) -> None:
        self.seen = bytes(data).decode()


def test_inserted_bytes_and_the_numbers_of_both_ends(tmp_path: Path) -> None:
    source, out = write_pcap(tmp_path / "in.pcap", frames()), tmp_path / "out.pcap"
    assert sm.run(source, Rewrite(), write=out)["seen"] == "PUT /other-index"
    packets = packets_of(out)
    assert len(packets) == 8
    assert bytes(packets[3][TCP].payload) == b"PUT /other-index" and packets[3][TCP].seq == C
    assert packets[4][TCP].ack == C + 10
    assert (packets[5][TCP].seq, packets[6][TCP].ack) == (C + 16, C + 11)
    assert packets[7][TCP].seq == C + 17
    # A second pass finds a plain connection in it.
    flow = next(iter(sm.flows(out)))
    assert flow.conn_state == "SF" and tuple(flow.stream_bytes) == (16, 15) and sum(flow.missing_bytes) == 0


def test_what_is_dropped_is_not_written(tmp_path: Path) -> None:
    class Wall(sm.Middlebox):
        @sm.on(sm.PKT_IN)
        def packet(self, flow: sm.LiveFlow, packet: sm.Packet) -> None:
            if packet.payload_len:
                flow.drop()

    out = tmp_path / "out.pcap"
    sm.run(write_pcap(tmp_path / "in.pcap", frames()), Wall(), write=out)
    assert [len(packet[TCP].payload) for packet in packets_of(out)] == [0] * 6


def test_a_reset_reaches_both_ends(tmp_path: Path) -> None:
    class Guard(sm.Middlebox):
        @sm.on(sm.NEW_DATA, side=sm.CLIENT)
        def data(self, flow: sm.LiveFlow, data: memoryview) -> None:
            flow.reset()

    out = tmp_path / "out.pcap"
    sm.run(write_pcap(tmp_path / "in.pcap", frames()), Guard(), write=out)
    packets = packets_of(out)
    assert [str(packet[TCP].flags) for packet in packets[4:]] == ["RA", "RA"]
    to_client, to_server = packets[4], packets[5]
    assert to_client[IP].dst == CLIENT[0] and to_client[TCP].seq == S  # the reply never came through
    assert to_server[IP].dst == SERVER[0] and to_server[TCP].seq == C + 10


def test_injected_packets_come_from_the_other_end(tmp_path: Path) -> None:
    class Greeter(sm.Middlebox):
        @sm.on(sm.CONN_SETUP)
        def setup(self, flow: sm.LiveFlow) -> None:
            flow.inject(sm.CLIENT, b"hello")

    out = tmp_path / "out.pcap"
    sm.run(write_pcap(tmp_path / "in.pcap", frames()), Greeter(), write=out)
    greeting = next(packet for packet in packets_of(out) if bytes(packet[TCP].payload) == b"hello")
    assert (greeting[IP].src, greeting[IP].dst, greeting[TCP].seq) == (SERVER[0], CLIENT[0], S)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p.insert(99, b"x"), "insert: Invalid argument"),
        (lambda p: p.overwrite(8, b"too long"), "overwrite: Invalid argument"),
        (lambda p: p.overwrite(0, b"x", base="tail"), "choose one of frame, ip, l4, payload"),
        (lambda p: p.remove(-1, 2), "whole number"),
    ],
)
def test_what_cannot_be_edited_is_one_line(tmp_path: Path, edit: Any, message: str) -> None:
    told: list[str] = []

    class Try(sm.Middlebox):
        @sm.on(sm.PKT_IN)
        def packet(self, flow: sm.LiveFlow, packet: sm.Packet) -> None:
            if bytes(packet.payload).startswith(b"GET"):
                try:
                    edit(packet)
                except ShardmosError as error:
                    told.append(str(error))

    sm.run(write_pcap(tmp_path / "in.pcap", frames()), Try())
    assert len(told) == 1 and message in told[0] and "\n" not in told[0]


def test_injecting_where_nothing_can_be_sent(tmp_path: Path) -> None:
    told: list[str] = []

    class Try(sm.Middlebox):
        @sm.on(sm.CONN_SETUP)
        def setup(self, flow: sm.LiveFlow) -> None:
            try:
                flow.inject(sm.CLIENT, b"x")
            except ShardmosError as error:
                told.append(str(error))

    sm.run(write_pcap(tmp_path / "in.pcap", frames()), Try())
    assert told == ["inject: Operation not supported"]


def run_cli(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from shardmos.cli.main import main; main()", *(str(arg) for arg in args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_write_on_the_command_line(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "in.pcap", frames())
    done = run_cli("run", "-r", source, "--write", tmp_path / "out.pcap")
    assert done.returncode == 0, done.stderr
    assert [bytes(packet) for packet in rdpcap(str(tmp_path / "out.pcap"))] == [bytes(p) for p in rdpcap(str(source))]
    for wrong, message in (
        ((tmp_path / "no" / "out.pcap",), "cannot be written: No such file or directory"),
        ((source,), "is the capture that is read"),
        ((tmp_path / "x.pcap", "-w", "2"), "leave -w out"),
    ):
        done = run_cli("run", "-r", source, "--write", *wrong)
        assert done.returncode in (1, 2) and message in done.stderr and len(done.stderr.splitlines()) == 1
