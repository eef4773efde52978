"""Policies by network: from the command line, the settings' file and Python; what is wrong is told in one line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

import shardmos as sm
from shardmos import config
from shardmos.errors import ShardmosError, UsageError


def _segment(to_server: bool, flags: str, seq: int, ack: int, data: bytes = b"") -> Ether:
    ends = ("10.1.0.1", "10.2.0.2", 40000, 80) if to_server else ("10.2.0.2", "10.1.0.1", 80, 40000)
    source, target, sport, dport = ends
    head = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src=source, dst=target)
    return head / TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack) / Raw(data)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Both ends send "old!" and then "new!" for the same four bytes, behind a hole that is filled later."""
    packets = [_segment(True, "S", 100, 0), _segment(False, "SA", 500, 101), _segment(True, "A", 101, 501)]
    for data, at in ((b"old!", 4), (b"new!", 4), (b"head", 0)):
        packets.append(_segment(True, "A", 101 + at, 501, data))
        packets.append(_segment(False, "A", 501 + at, 101, data))
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number / 100
    path = tmp_path / "overlap.pcap"
    wrpcap(str(path), packets)
    return path


def _streams(path: Path, *options: str) -> list[str]:
    """What the client and the server sent, as it was delivered: old or new."""
    names = {hashlib.sha256(b"head" + data).hexdigest(): data.decode() for data in (b"old!", b"new!")}
    command = [
        str(Path(sys.executable).with_name("shardmos")),
        "flows",
        str(path),
        "--json",
        "--hash",
        "sha256",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [names[value] for value in json.loads(done.stdout)["sha256"]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["old!", "old!"]),
        (["--overlap-policy", "last"], ["new!", "new!"]),
        (["--overlap-policy", "10.2.0.0/16=last"], ["new!", "old!"]),  # the receiver's network
        (["--overlap-policy", "10.1.0.0/16=last"], ["old!", "new!"]),
        (["--overlap-policy", "last", "--overlap-policy", "10.0.0.0/8=first"], ["old!", "old!"]),
        (["--overlap-policy", "10.0.0.0/8=last", "--overlap-policy", "10.1.0.1=first"], ["new!", "old!"]),
        (["--overlap-policy", "::/0=last"], ["old!", "old!"]),  # says nothing of IPv4
        (["--set", "overlap_networks=0.0.0.0/0=last"], ["new!", "new!"]),
    ],
)
def test_the_receivers_network_decides(capture: Path, options: list[str], expected: list[str]) -> None:
    assert _streams(capture, *options) == expected


def test_different_data_is_told_with_both_copies(capture: Path) -> None:
    seen = []

    class Watch(sm.Middlebox):
        @sm.on(sm.ANOMALY)
        def anomaly(self, flow: Any, anomaly: Any) -> None:
            seen.append((str(anomaly), anomaly.offset, anomaly.before, anomaly.now))

    sm.run(str(capture), Watch())
    copies = ("reassembly_overlap_different_data", 4, b"old!", b"new!")
    assert [entry for entry in seen if entry[0] == copies[0]] == [copies, copies]


def test_fragments_by_the_destinations_network(tmp_path: Path) -> None:
    head = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    packets = []
    for target in ("10.1.0.1", "10.2.0.2"):
        whole = IP(src="10.9.0.9", dst=target, id=7, proto=17) / Raw(bytes.fromhex("03e8003500280000") + b"A" * 32)
        first, second, last = fragment(whole, fragsize=16)  # type: ignore[no-untyped-call]
        other = second.copy()
        other[Raw].load = b"B" * 16
        packets += [head / first, head / second, head / other, head / last]
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number / 100
    path = tmp_path / "fragments.pcap"
    wrpcap(str(path), packets)
    seen: dict[str, bytes] = {}

    class Watch(sm.Middlebox):
        @sm.on(sm.PKT_IN, hook=sm.SENDER)
        def packet(self, flow: Any, packet: Any) -> None:
            seen[flow.server] = bytes(packet.payload)

    sm.run(str(path), Watch(), defrag_networks="10.2.0.0/16=last,10.0.0.0/8=first", checksums="ignore")
    assert seen["10.1.0.1"] == b"A" * 32
    assert b"B" * 16 in seen["10.2.0.2"]


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.0/8",
        "10.0.0.0/33=first",
        "10.0.0.0/8=best",
        "=first",
        ",".join(f"10.{i}.0.0/16=last" for i in range(65)),
    ],
)
def test_what_is_wrong_is_one_line(capture: Path, text: str) -> None:
    with pytest.raises(ShardmosError) as caught:
        list(sm.flows(str(capture), overlap_networks=text))
    assert "overlap_networks" in str(caught.value) and "\n" not in str(caught.value)


def test_two_policies_for_everything_are_refused(capture: Path) -> None:
    command = [str(Path(sys.executable).with_name("shardmos")), "flows", str(capture)]
    command += ["--overlap-policy", "first", "--overlap-policy", "last"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--overlap-policy" in done.stderr


def test_tables_in_the_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        '[[overlap]]\nnetworks = ["10.0.0.0/8", "fd00::/8"]\npolicy = "windows"\n'
        '[[overlap]]\nnetworks = ["10.1.0.0/16"]\npolicy = "linux"\n[[defrag]]\nnetworks = ["::/0"]\npolicy = "bsd"\n'
    )
    options = config.load(str(path)).shard_options()
    assert options["overlap_networks"] == "10.0.0.0/8=windows,fd00::/8=windows,10.1.0.0/16=linux"
    assert options["defrag_networks"] == "::/0=bsd"


@pytest.mark.parametrize("text", ["[overlap]\n", "[[overlap]]\nnetworks = 1\n", "[[defrag]]\npolicy = 'bsd'\n"])
def test_tables_that_are_wrong(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        config.load(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
