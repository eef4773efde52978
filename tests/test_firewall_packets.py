"""The firewall and packets that are not plain: fragments, tunnels, ICMP errors, other protocols."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from firewalls import filtered
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

A, B, A6, B6 = "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"
LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
DATA = Raw(bytes(range(256)) * 12)


def left(tmp_path: Path, packets: Sequence[Packet], rules: str, default: str = "drop") -> list[int]:
    """The numbers of those that pass, in order; each as it came."""
    frames = [bytes(packet) for packet in packets]
    got, _ = filtered(tmp_path, frames, rules, default)
    return [frames.index(frame) for frame in got]


def cut(packet: Packet, size: int) -> list[Packet]:
    """IPv4 in fragments."""
    parts: list[Packet] = packet.fragment(size)
    return parts


def cut6(before: Packet, payload: bytes, number: int) -> list[Packet]:
    """UDP in fragments of 1,000 bytes, behind these headers."""
    places = range(0, len(payload), 1000)
    return [
        before / IPv6ExtHdrFragment(id=number, offset=at // 8, m=at != places[-1], nh=17) / Raw(payload[at : at + 1000])
        for at in places
    ]


def pieces(version: int, vlan: int | None = None) -> list[Packet]:
    """A datagram to UDP port 53, in four fragments."""
    link = LINK / Dot1Q(vlan=vlan) if vlan is not None else LINK
    datagram = UDP(sport=5, dport=53) / DATA
    if version == 4:
        return [link / part for part in cut(IP(src=A, dst=B, id=7) / datagram, 1000)]
    ip = IPv6(src=A6, dst=B6)
    return [link / part for part in cut6(ip, bytes(ip / datagram)[40:], 0x12345678)]


@pytest.mark.parametrize("vlan", [None, 5])
@pytest.mark.parametrize("version", [4, 6])
def test_fragments_pass_as_they_came(tmp_path: Path, version: int, vlan: int | None) -> None:
    parts = pieces(version, vlan)
    assert len(parts) == 4
    assert left(tmp_path, parts, "pass udp to any port 53") == [0, 1, 2, 3]
    assert left(tmp_path, [parts[k] for k in (3, 1, 0, 2)], "pass udp to any port 53") == [2, 1, 3, 0]  # in order
    assert left(tmp_path, parts, "pass udp to any port 54") == []


@pytest.mark.parametrize("version", [4, 6])
def test_the_last_fragment_once_more_brings_nothing_through(tmp_path: Path, version: int) -> None:
    """Were the others let through before the datagram is judged, its receiver would have it whole with this one."""
    parts = pieces(version)
    assert left(tmp_path, [*parts, parts[-1], *parts], "drop udp to any port 53", "pass") == []


def after_fragment_header(frame: bytes) -> bytes:
    """With that header."""
    following, at = frame[20], 54
    while following != 44:
        following, at = frame[at], at + 8 * (frame[at + 1] + 1)
    return frame[at:]


@pytest.mark.parametrize("extensions", ["hop", "routing", "destination", "destination routing"])
def test_fragments_behind_other_headers(tmp_path: Path, extensions: str) -> None:
    headers = {
        "hop": IPv6ExtHdrHopByHop(options=PadN(optdata=bytes(4))),
        "routing": IPv6ExtHdrRouting(type=4, addresses=[]),
        "destination": IPv6ExtHdrDestOpt(options=PadN(optdata=bytes(4))),
    }
    before: Packet = IPv6(src=A6, dst=B6)
    for word in extensions.split():
        before = before / headers[word]
    payload = bytes(IPv6(src=A6, dst=B6) / UDP(sport=5, dport=53) / Raw(bytes(range(250)) * 8))[40:]
    parts = [LINK / part for part in cut6(before, payload, 9)]
    frames = [bytes(part) for part in parts]
    got, _ = filtered(tmp_path, frames, "pass udp to any port 53", "drop")
    if (
        extensions == "destination"
    ):  # it may stand behind the fragment header, too (RFC 8200 4.5), and then it is of the data
        data = b"".join(after_fragment_header(frame)[8:] for frame in got)
        assert data == frames[0][54:55].replace(b"\x2c", b"\x11") + frames[0][55:62] + payload
    else:
        assert got == frames
    assert left(tmp_path, parts, "pass tcp") == []


def tunnels() -> list[Packet]:
    inner = IP(src="172.16.0.1", dst="172.16.0.2") / TCP(sport=9000, dport=22, flags="S")
    outer = IP(src=A, dst=B)
    return [
        LINK / outer / GRE() / inner,
        LINK / outer / UDP(sport=1, dport=4789) / VXLAN(vni=3) / LINK / inner,
        LINK / outer / inner,
    ]


@pytest.mark.parametrize(
    ("rules", "default", "passes"),
    [
        ("pass from 10.0.0.1", "drop", False),  # and nothing for what is inside
        ("pass from 172.16.0.1", "drop", False),
        ("pass from 10.0.0.1,172.16.0.1", "drop", True),
        ("drop tcp to any port 22", "pass", False),
        ("drop from 10.0.0.1", "pass", False),
    ],
)
def test_a_tunnel_passes_with_what_is_in_it(tmp_path: Path, rules: str, default: str, passes: bool) -> None:
    assert left(tmp_path, tunnels(), rules, default) == ([0, 1, 2] if passes else [])


def test_protocols_without_ports(tmp_path: Path) -> None:
    esp, ospf = (LINK / IP(src=A, dst=B, proto=number) / Raw(bytes(50)) for number in (50, 89))
    neighbour = LINK / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_NS(tgt="fe80::2")
    assert left(tmp_path, [esp, ospf, neighbour], "pass 50") == [0]
    assert left(tmp_path, [esp, ospf, neighbour], "pass icmp") == [2]
    assert left(tmp_path, [LINK / ARP(), esp], "") == [0]  # not IP: the port's business


def test_errors_about_ipv6_with_extension_headers(tmp_path: Path) -> None:
    def about(port: int, *between: Packet) -> Packet:
        quote: Packet = IPv6(src=A6, dst=B6)
        for header in between:
            quote = quote / header
        return quote / TCP(sport=9000, dport=port, flags="S")

    def error(quote: Packet | Raw) -> Packet:
        return LINK / IPv6(src="2001:db8::9", dst=A6) / ICMPv6PacketTooBig() / quote

    options = [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()]
    later = IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(nh=6, offset=10) / Raw(bytes(40))
    torn = Raw(bytes(about(80, *options))[:50])
    packets = [
        error(about(80)),
        error(about(80, *options)),
        error(about(81, *options)),
        error(about(80, IPv6ExtHdrFragment(m=1))),
        error(later),
        error(torn),
    ]
    assert left(tmp_path, packets, "pass tcp from any to any port 80") == [0, 1, 3]
    back = IPv6(src=B6, dst=A6) / UDP(sport=53, dport=5) / Raw(b"x")  # the answer to what may pass
    asked = LINK / IPv6(src=A6, dst=B6) / ICMPv6DestUnreach() / back
    assert left(tmp_path, [asked], "pass udp to any port 53") == [0]


def test_an_error_that_came_in_fragments(tmp_path: Path) -> None:
    quote = IP(src=A, dst=B, len=3028) / UDP(sport=5, dport=53, len=3008) / Raw(bytes(1000))
    parts = [LINK / part for part in cut(IP(src="192.0.2.1", dst=A, id=77) / ICMP(type=3, code=1) / quote, 500)]
    assert left(tmp_path, parts, "pass udp to any port 53") == list(range(len(parts)))
    assert left(tmp_path, parts, "pass udp to any port 54") == []
