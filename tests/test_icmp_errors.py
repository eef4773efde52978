"""An ICMP error is told to the flow that it quotes (RFC 5927), whoever's flow the error itself is."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from traffic import ACK, SYN, checksum, ip_frame, tcp_frame, write_pcap

import shardmos as sm
from shardmos.run import execute

CLIENT, SERVER, ROUTER = ("10.0.0.1", 40000), ("10.0.0.2", 80), "10.9.9.9"


def icmp_error(to: str, kind: int, code: int, about: bytes, damage: int = 0) -> bytes:
    """About a packet inside an Ethernet frame: its IP header and eight bytes are quoted (RFC 792)."""
    error = struct.pack("!BBHI", kind, code, 0, 0) + about[14:42]
    total = checksum(error) ^ damage
    return ip_frame(ROUTER, to, 1, error[:2] + struct.pack("!H", total) + error[4:])


def udp_frame(source: tuple[str, int], destination: tuple[str, int], data: bytes) -> bytes:
    """Without a checksum, which IPv4 allows."""
    return ip_frame(
        source[0], destination[0], 17, struct.pack("!HHHH", source[1], destination[1], 8 + len(data), 0) + data
    )


def test_a_tcp_flow_hears_of_it(tmp_path: Path) -> None:
    syn = tcp_frame(CLIENT, SERVER, 1000, 0, SYN)
    path = write_pcap(tmp_path / "a.pcap", [syn, icmp_error(CLIENT[0], 3, 1, syn)])
    flows = {flow.proto: flow for flow in sm.flows(path)}
    assert (flows["tcp"].anomalies, flows["icmp"].anomalies) == (1, 0)
    assert flows["tcp"].packets == (1, 0)


def test_a_udp_flow_hears_of_it(tmp_path: Path) -> None:
    query = udp_frame(CLIENT, ("10.0.0.2", 53), b"who")
    path = write_pcap(tmp_path / "a.pcap", [query, icmp_error(CLIENT[0], 3, 3, query)])
    assert {flow.proto: flow.anomalies for flow in sm.flows(path)} == {"udp": 1, "icmp": 0}


def test_not_with_a_wrong_checksum(tmp_path: Path) -> None:
    query = udp_frame(CLIENT, ("10.0.0.2", 53), b"who")
    path = write_pcap(tmp_path / "a.pcap", [query, icmp_error(CLIENT[0], 3, 3, query, damage=0x10)])
    assert {flow.proto: flow.anomalies for flow in sm.flows(path)}["udp"] == 0


def test_not_about_a_flow_that_is_not_there(tmp_path: Path) -> None:
    query, other = (udp_frame(CLIENT, ("10.0.0.2", port), b"who") for port in (53, 54))
    path = write_pcap(tmp_path / "a.pcap", [query, icmp_error(CLIENT[0], 3, 3, other)])
    assert {flow.proto: flow.anomalies for flow in sm.flows(path)} == {"udp": 0, "icmp": 0}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_whichever_worker_has_the_flow(workers: int, tmp_path: Path) -> None:
    """The owners of an error and of the flow it quotes are as often as not two."""
    frames = []
    for number in range(40):
        client = (f"10.1.0.{number}", 40000)
        syn = tcp_frame(client, SERVER, 1000, 0, SYN)
        frames += [syn, icmp_error(client[0], 3, 1, syn)]
    path = write_pcap(tmp_path / "a.pcap", frames)
    told = [flow.anomalies for flow in sm.flows(path, workers=workers) if flow.proto == "tcp"]
    assert told == [1] * 40


def test_a_forged_one_moves_nothing(tmp_path: Path) -> None:
    """What guesses at the sequence number is named; the connection goes on all the same."""
    syn, answer = tcp_frame(CLIENT, SERVER, 1000, 0, SYN), tcp_frame(SERVER, CLIENT, 9000, 1001, SYN | ACK)
    guessed = tcp_frame(CLIENT, SERVER, 77_000_000, 9001, ACK)
    frames = [
        syn,
        answer,
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK),
        icmp_error(CLIENT[0], 3, 2, guessed),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK, b"hello"),
    ]
    (flow,) = [flow for flow in sm.flows(write_pcap(tmp_path / "a.pcap", frames)) if flow.proto == "tcp"]
    assert flow.tcp_state == ("ESTABLISHED", "ESTABLISHED")
    assert (flow.stream_bytes, flow.anomalies) == ((5, 0), 1)


class Wall(sm.Middlebox):
    """Refuses forged errors; notes each anomaly, the flow's protocol and the ICMP type of the packet at hand."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.heard: list[tuple[str, str]] = []

    @sm.on(sm.ANOMALY, side=sm.SERVER)
    def anomaly(self, flow: Any, anomaly: str) -> None:
        self.heard.append((flow.proto, anomaly))
        if anomaly == "icmp_forged":
            flow.drop()

    def summary(self) -> Any:
        return self.heard


def test_a_handler_of_the_flow_may_drop_the_error(tmp_path: Path) -> None:
    """It comes from the server's direction: to the client, about what the client sent."""
    syn, other = tcp_frame(CLIENT, SERVER, 1000, 0, SYN), tcp_frame(CLIENT, SERVER, 9999, 0, SYN)
    frames = [syn, icmp_error(CLIENT[0], 3, 1, syn), icmp_error(CLIENT[0], 3, 1, other)]
    result = execute(write_pcap(tmp_path / "a.pcap", frames), [Wall()])
    assert result.summaries[0] == [("tcp", "icmp_unreachable"), ("tcp", "icmp_forged")]
    assert result.counters["icmp_errors_tied"] == 2
    assert result.counters["drop_verdict"] == 1
