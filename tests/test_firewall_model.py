"""The firewall's search against the obvious one: a loop over the rules, for all that a rule can say."""

from __future__ import annotations

import ipaddress
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from firewalls import filtered
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

Ports = list[tuple[int, int]]
NUMBERS = {"tcp": [6], "udp": [17], "icmp": [1, 58], "17": [17], "50": [50], "any": None, "": None}
LENGTHS = {4: [0, 1, 8, 9, 15, 24, 31, 32], 6: [0, 3, 32, 48, 64, 65, 127, 128]}


@dataclass(frozen=True)
class Met:
    """A packet that begins a flow."""

    frame: bytes
    proto: int
    source: tuple[str, int]
    destination: tuple[str, int]
    midstream: bool


@dataclass(frozen=True)
class End:
    networks: list[str]  # none: any
    ports: Ports

    def text(self, word: str) -> str:
        if not self.networks and not self.ports:
            return ""
        ports = ",".join(f"{low}-{high}" if low != high else str(low) for low, high in self.ports)
        return f" {word} {','.join(self.networks) or 'any'}" + (f" port {ports}" if ports else "")

    def has(self, end: tuple[str, int]) -> bool:
        address = ipaddress.ip_address(end[0])
        within = not self.networks or any(address in ipaddress.ip_network(each, strict=False) for each in self.networks)
        return within and (not self.ports or any(low <= end[1] <= high for low, high in self.ports))


@dataclass(frozen=True)
class Rule:
    action: str
    proto: str
    source: End
    destination: End
    either: bool
    state: str

    def text(self) -> str:
        tail = (" either" if self.either else "") + (f" {self.state}" if self.state else "")
        return f"{self.action} {self.proto}".rstrip() + self.source.text("from") + self.destination.text("to") + tail

    def fits(self, met: Met) -> bool:
        numbers = NUMBERS[self.proto]
        if (numbers is not None and met.proto not in numbers) or self.state == (
            "new" if met.midstream else "midstream"
        ):
            return False
        there = self.source.has(met.source) and self.destination.has(met.destination)
        return there or (self.either and self.source.has(met.destination) and self.destination.has(met.source))


class Chance(random.Random):
    def address(self, version: int) -> str:
        """Out of few, so that rules meet them, and that they differ at both ends and in the last bits."""
        if version == 4:
            return str(ipaddress.IPv4Address(self.choice([0x0A000000, 0x0A800000, 0xC0000200]) + self.randrange(6)))
        return str(ipaddress.IPv6Address(self.choice([0x20010DB8, 0x3FFE0001, 0x20010DB9]) << 96 | self.randrange(6)))

    def network(self) -> str:
        version = self.choice([4, 6])
        return f"{self.address(version)}/{self.choice(LENGTHS[version])}"

    def ports(self) -> Ports:
        low = self.choice([0, 1, 22, 79, 80, 1023, 1024, 4999])
        return [(low, self.choice([low, low + 1, low + 77, 65535])) for _ in range(self.choice([1, 1, 3]))]

    def end(self, with_ports: bool) -> End:
        networks = [self.network() for _ in range(self.choice([0, 1, 1, 3]))]
        return End(networks, self.ports() if with_ports and self.random() < 0.4 else [])

    def rule(self) -> Rule:
        proto = self.choice(list(NUMBERS))
        ports = proto in ("tcp", "udp", "17")
        action = self.choice(["pass", "drop", "reset"])
        return Rule(
            action,
            proto,
            self.end(ports),
            self.end(ports),
            self.random() < 0.2,
            self.choice(["", "", "new", "midstream"]),
        )

    def packet(self, number: int) -> Met:
        version = self.choice([4, 6])
        source, destination = self.address(version), self.address(version)
        if source == destination:
            return self.packet(number)
        kind = self.choice(["syn", "ack", "udp", "echo", "esp"])
        if kind == "esp":
            source, destination = sorted((source, destination))
        # Each begins a flow, those of ESP excepted, which all come from the end that began theirs. The higher port
        # sends: it is the client's midstream, too.
        sport, dport = 5100 + number, self.choice([0, 22, 23, 80, 81, 1024, 5000])
        ip: Packet = IP(src=source, dst=destination) if version == 4 else IPv6(src=source, dst=destination)
        if kind in ("syn", "ack"):
            ip /= TCP(
                sport=sport, dport=dport, flags="S" if kind == "syn" else "A", seq=7, ack=0 if kind == "syn" else 9
            )
        elif kind == "udp":
            ip /= UDP(sport=sport, dport=dport) / Raw(b"x")
        elif kind == "echo":
            sport = dport = number
            ip /= ICMP(id=number) if version == 4 else ICMPv6EchoRequest(id=number)
        else:
            sport = dport = 0
            ip /= Raw(number.to_bytes(30, "big"))
            ip.setfieldval("proto" if version == 4 else "nh", 50)
        proto = {"syn": 6, "ack": 6, "udp": 17, "echo": 1 if version == 4 else 58, "esp": 50}[kind]
        frame = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ip)
        return Met(frame, proto, (source, sport), (destination, dport), kind == "ack")


@pytest.mark.parametrize("seed", range(10))
def test_the_first_rule_in_the_file_decides(tmp_path: Path, seed: int) -> None:
    chance = Chance(seed)
    rules = [chance.rule() for _ in range([1, 3, 10, 24, 200][seed % 5])]
    default = chance.choice(["pass", "drop", "reset"])
    packets = [chance.packet(number) for number in range(500)]
    hits, expected = [0] * (len(rules) + 1), []
    for met in packets:
        line = next((i for i, rule in enumerate(rules) if rule.fits(met)), len(rules))
        hits[line] += 1
        if (rules[line].action if line < len(rules) else default) == "pass":
            expected.append(met.frame)
    got, counters = filtered(
        tmp_path, [met.frame for met in packets], "\n".join(rule.text() for rule in rules), default
    )
    sent = {met.frame for met in packets}
    assert [frame for frame in got if frame in sent] == expected  # what else leaves are resets
    assert counters["default"] == hits[-1]
    assert [counters[f"line_{line}"] for line in range(1, min(len(rules), 24) + 1)] == hits[:-1][:24]
