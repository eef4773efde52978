"""The middlebox nat: what leaves it, packet by packet, against what tests/renaming.py expects."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from renaming import (
    Name,
    cut_quote,
    echo,
    ethernet,
    icmp,
    ipv4,
    names_of,
    renamed,
    renamed_frame,
    sums_right,
    udp,
)
from scapy.utils import rdpcap
from traffic import ACK, CLIENT, FIN, SERVER, SYN, checksum, conversation, ip_frame, tcp_frame, write_pcap

import shardmos as sm
from shardmos.errors import ShardmosError

POOL = "192.0.2.1"
ONE = "nat:inside=10.0.0.1:pool=192.0.2.1:ports=7000-7000"  # every name is this one
OUTER = (POOL, 7000)
ROUTER = "203.0.113.9"


class Done:
    def __init__(self, frames: list[bytes], counters: dict[str, int]) -> None:
        self.frames = frames
        self.counters = counters


def through(tmp_path: Path, frames: Iterable[bytes], spec: str = ONE, step: float = 0.001, **config: Any) -> Done:
    """What comes out, and what the middlebox counted."""
    source = write_pcap(tmp_path / "in.pcap", frames, step=step)
    summary = sm.run(source, spec, write=tmp_path / "out.pcap", **config)
    return Done([bytes(packet) for packet in rdpcap(str(tmp_path / "out.pcap"))], summary["counters"])


def said(counters: dict[str, int], *quiet: str) -> dict[str, int]:
    """What is not zero, but the names given."""
    return {name: value for name, value in counters.items() if value and name not in quiet}


def both_ways(client: Name = CLIENT, outer: Name = OUTER, server: Name = SERVER) -> tuple[list[bytes], list[bytes]]:
    """A connection as it comes to the box, the server answering the outer name, and as it is to leave."""
    come, leave = [], []
    for frame in conversation(client=client, server=server):
        out = frame[26:30] != bytes(int(part) for part in server[0].split("."))
        come.append(frame if out else renamed_frame(frame, destination=outer))
        leave.append(renamed_frame(frame, source=outer) if out else frame)
    return come, leave


def test_tcp_there_and_back(tmp_path: Path) -> None:
    come, leave = both_ways()
    done = through(tmp_path, come)
    assert done.frames == leave
    assert said(done.counters) == {"connections": 1, "packets_out": 5, "packets_in": 3, "resting_now": 1}


@pytest.mark.parametrize("options", [b"", b"\x01" * 4, bytes(40)], ids=len)
@pytest.mark.parametrize("vlan", [None, 5])
@pytest.mark.parametrize("without_sum", [False, True])
@pytest.mark.parametrize("data", [b"", b"odd", b"even"], ids=len)
def test_udp_with_any_header(tmp_path: Path, options: bytes, vlan: int | None, without_sum: bool, data: bytes) -> None:
    out = udp(CLIENT, SERVER, data, options, without_sum)
    back = udp(SERVER, OUTER, data, options, without_sum)
    done = through(tmp_path, [ethernet(out, vlan), ethernet(back, vlan)])
    assert done.frames == [ethernet(renamed(out, OUTER), vlan), ethernet(renamed(back, None, CLIENT), vlan)]
    assert all(sums_right(frame[-len(out) :]) for frame in done.frames)


def test_a_sum_that_becomes_zero_is_sent_as_ones(tmp_path: Path) -> None:
    """RFC 768: of the 65,536 payloads of two bytes, one makes the sum of the translated datagram zero."""
    seen = 0
    for number in range(0, 65536, 1):
        data = struct.pack("!H", number)
        if renamed(udp(CLIENT, SERVER, data), OUTER)[26:28] == b"\xff\xff":
            done = through(tmp_path, [ethernet(udp(CLIENT, SERVER, data))])
            assert done.frames == [ethernet(renamed(udp(CLIENT, SERVER, data), OUTER))]
            seen += 1
            break
    assert seen == 1


def test_ping_goes_by_another_identifier(tmp_path: Path) -> None:
    out, back = echo(CLIENT[0], SERVER[0], 4711), echo(SERVER[0], POOL, 7000, reply=True)
    done = through(tmp_path, [ethernet(out), ethernet(back)])
    assert done.frames == [
        ethernet(echo(POOL, SERVER[0], 7000)),
        ethernet(echo(SERVER[0], CLIENT[0], 4711, reply=True)),
    ]


def fragments(ip: bytes, *sizes: int) -> list[bytes]:
    """The datagram in fragments with so many bytes of data; the last one has the rest."""
    header, data, at, out = (ip[0] & 15) * 4, ip[(ip[0] & 15) * 4 :], 0, []
    for number in range(len(sizes) + 1):
        last = number == len(sizes)
        part = data[at:] if last else data[at : at + sizes[number]]
        head = ip[:2] + struct.pack("!HHH", header + len(part), 7, (0 if last else 0x2000) | at // 8)
        head += ip[8:10] + b"\0\0" + ip[12:header]
        out.append(head[:10] + struct.pack("!H", checksum(head)) + head[12:] + part)
        at += len(part)
    return out


@pytest.mark.parametrize("vlan", [None, 5])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 0, 2, 1)], ids=str)
@pytest.mark.parametrize("kind", ["udp", "ping", "without a sum"])
def test_fragments_are_translated_all(tmp_path: Path, kind: str, order: tuple[int, ...], vlan: int | None) -> None:
    """In any order: the first, which has the port and the sum, and those behind it; cut as they came."""
    data = bytes(range(256)) * 12
    if kind == "ping":
        out, back = echo(CLIENT[0], SERVER[0], 4711, data=data), echo(SERVER[0], POOL, 7000, True, data)
        left = [echo(POOL, SERVER[0], 7000, data=data), echo(SERVER[0], CLIENT[0], 4711, True, data)]
    else:
        out, back = (udp(*names, data, without_sum=kind != "udp") for names in ((CLIENT, SERVER), (SERVER, OUTER)))
        left = [renamed(out, OUTER), renamed(back, None, CLIENT)]
    come = [fragments(ip, 1480, 1480)[place] for ip in (out, back) for place in order]
    done = through(tmp_path, [ethernet(ip, vlan) for ip in come])
    assert done.frames == [ethernet(ip, vlan) for each in left for ip in fragments(each, 1480, 1480)]
    assert said(done.counters, "resting_now") == {"connections": 1, "packets_out": 1, "packets_in": 1}


def test_fragments_that_it_leaves_alone_and_those_that_never_are_whole(tmp_path: Path) -> None:
    elsewhere = fragments(udp(("172.20.0.1", 5), ("172.20.0.2", 6), bytes(2900)), 1000, 1000)
    torn = fragments(udp(CLIENT, SERVER, bytes(3000)), 1480, 1480)[:2]
    options = fragments(udp(("172.20.0.1", 5), ("172.20.0.3", 6), bytes(90), b"\x07\x04\0\0\x88\x04\0\x01"), 64)
    done = through(tmp_path, map(ethernet, [*torn, *elsewhere, *options]))
    # An option whose copy bit is not set is in the first fragment only (RFC 791 3.1).
    second = bytearray(options[1][:20] + b"\x88\x04\0\x01" + options[1][28:])
    second[0], second[3] = 0x46, second[3] - 4
    second[10:12] = b"\0\0"
    struct.pack_into("!H", second, 10, checksum(bytes(second[:24])))
    assert [frame[14:] for frame in done.frames] == [*elsewhere, options[0], bytes(second)]


def packets_of(kind: str) -> tuple[bytes, bytes, bytes, bytes]:
    """out and back as they come, out and back as they leave; IPv4 packets."""
    if kind == "tcp":
        out = tcp_frame(CLIENT, SERVER, 1000, 0, SYN)[14:]
        back = tcp_frame(SERVER, OUTER, 9000, 1001, SYN | ACK)[14:]
    elif kind == "icmp":
        out, back = echo(CLIENT[0], SERVER[0], 4711), echo(SERVER[0], POOL, 7000, reply=True)
        return out, back, echo(POOL, SERVER[0], 7000), echo(SERVER[0], CLIENT[0], 4711, reply=True)
    else:
        without = kind == "udp without a sum"
        out, back = (udp(*names, b"data!", without_sum=without) for names in ((CLIENT, SERVER), (SERVER, OUTER)))
    return out, back, renamed(out, source=OUTER), renamed(back, destination=CLIENT)


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "whole"])
@pytest.mark.parametrize("kind", ["tcp", "udp", "udp without a sum", "icmp"])
def test_icmp_errors_are_about_the_inner_packet(tmp_path: Path, kind: str, cut: bool) -> None:
    """From a router outside about what left, from the host inside and a router inside about what came."""
    out, back, out_left, back_left = packets_of(kind)
    quote = cut_quote if cut else bytes
    mtu = struct.pack("!HH", 0, 1280)
    come = [
        out,
        back,
        icmp(ROUTER, POOL, 11, 0, bytes(4), quote(out_left)),
        icmp(ROUTER, POOL, 3, 4, mtu, quote(out_left)),
        icmp(CLIENT[0], SERVER[0], 3, 3, bytes(4), quote(back_left)),
        icmp("10.0.0.99", SERVER[0], 11, 0, bytes(4), quote(back_left)),
    ]
    leave = [
        out_left,
        back_left,
        icmp(ROUTER, CLIENT[0], 11, 0, bytes(4), quote(out)),
        icmp(ROUTER, CLIENT[0], 3, 4, mtu, quote(out)),
        icmp(POOL, SERVER[0], 3, 3, bytes(4), quote(back)),
        icmp(POOL, SERVER[0], 11, 0, bytes(4), quote(back)),
    ]
    inside = ONE.replace("inside=10.0.0.1", "inside=10.0.0.1,10.0.0.96/28")
    done = through(tmp_path, map(ethernet, come), inside)
    assert [frame[14:] for frame in done.frames] == leave
    assert said(done.counters, "connections", "packets_out", "packets_in", "resting_now") == {"icmp_errors": 4}


def test_icmp_errors_about_nothing_known_do_not_pass(tmp_path: Path) -> None:
    out, _, out_left, _ = packets_of("udp")
    other = renamed(out_left, source=(POOL, 7001))
    come = [
        out,
        icmp(ROUTER, POOL, 3, 1, bytes(4), other),
        icmp(CLIENT[0], SERVER[0], 3, 3, bytes(4), udp(SERVER, CLIENT, b"?")[:28].replace(b"\0\x50", b"\0\x51")),
    ]
    done = through(tmp_path, map(ethernet, come))
    assert [frame[14:] for frame in done.frames] == [out_left]
    assert (done.counters["drop_stray"], done.counters["drop_unsupported"]) == (1, 1)


def test_what_is_not_its_business_passes_as_it_is(tmp_path: Path) -> None:
    six = bytes.fromhex("6000000000083a40" + "fd" + "00" * 14 + "01" + "fd" + "00" * 14 + "02") + bytes(8)
    come = [
        ethernet(udp(("172.20.0.1", 5), ("172.20.0.2", 6))),  # of hosts that are not inside
        ethernet(udp(CLIENT, ("10.0.0.1", 6))),  # to an inside one
        ethernet(udp(CLIENT, ("239.1.2.3", 6))),
        ethernet(udp(CLIENT, ("255.255.255.255", 67))),
        ethernet(udp(("172.20.0.2", 9), CLIENT)),  # said to its inside name
        ethernet(udp(CLIENT, ("172.20.0.2", 9))),  # and answered
        b"\x33\x33\0\0\0\x01\x02\0\0\0\0\x02\x86\xdd" + six,
        b"\xff" * 6 + b"\x02\0\0\0\0\x02\x08\x06" + bytes(46),
    ]
    done = through(tmp_path, come)
    assert done.frames == come and said(done.counters) == {}


def test_what_it_cannot_translate_does_not_leave_under_its_inside_name(tmp_path: Path) -> None:
    good = udp(CLIENT, SERVER, b"x" * 9)
    come = [
        ethernet(ipv4(CLIENT[0], SERVER[0], 47, bytes(8))),  # GRE
        ethernet(ipv4(CLIENT[0], SERVER[0], 132, bytes(20))),
        ethernet(good[:-1] + b"y"),  # its checksum is wrong
        ethernet(udp(SERVER, (POOL, 7001))),  # to nobody
        ethernet(echo(SERVER[0], POOL, 1)),
        tcp_frame(SERVER, (POOL, 7002), 1, 1, SYN | ACK),
        tcp_frame(SERVER, (POOL, 7003), 1, 1, ACK, b"data"),
    ]
    done = through(tmp_path, come)
    assert done.frames == []
    assert said(done.counters) == {"drop_unsupported": 2, "drop_bad_checksum": 1, "drop_stray": 4}


def test_wrong_sums_are_not_made_right(tmp_path: Path) -> None:
    """With checksums=ignore a damaged packet is translated, and stays one: its sum is mended, not made anew."""
    bad = udp(CLIENT, SERVER, b"x" * 9)[:-1] + b"y"
    done = through(tmp_path, [ethernet(bad)], checksums="ignore")
    (frame,) = done.frames
    assert frame[14:] == renamed(bad[:-1] + b"x", OUTER)[:-1] + b"y" and not sums_right(frame[14:])


def flows_from(count: int, server: Name = SERVER) -> list[bytes]:
    return [ethernet(udp((f"10.1.{number >> 8}.{number & 255}", 5000), server)) for number in range(count)]


def outer_names(frames: Iterable[bytes]) -> list[Name]:
    return [names_of(frame[14:])[0] for frame in frames]


def test_names_of_connections_to_one_server_differ(tmp_path: Path) -> None:
    spec = "nat:inside=10.1.0.0/16:pool=192.0.2.1,192.0.2.8/30:ports=2000-2999"
    names = outer_names(through(tmp_path, flows_from(4000), spec).frames)
    assert len(set(names)) == 4000
    assert {name[0] for name in names} == {"192.0.2.1", *(f"192.0.2.{last}" for last in range(8, 12))}
    assert all(2000 <= port <= 2999 for _, port in names)


def test_a_host_keeps_its_address(tmp_path: Path) -> None:
    spec = "nat:inside=10.0.0.0/8:pool=192.0.2.0/24"
    frames = [ethernet(udp(("10.1.1.1", 5000 + number), (f"172.20.0.{number}", 53))) for number in range(100)]
    assert len({address for address, _ in outer_names(through(tmp_path, frames, spec).frames)}) == 1


def test_an_exhausted_pool_drops_by_name_and_goes_on_after_rest(tmp_path: Path) -> None:
    spec = "nat:inside=10.1.0.0/16:pool=192.0.2.1-192.0.2.2:ports=2000-2004:rest=30"
    frames = flows_from(12)
    done = through(tmp_path, frames, spec)
    assert len(set(outer_names(done.frames))) == 10 and done.counters["drop_exhausted"] == 2
    # Another server: the same ports serve again.
    done = through(tmp_path, frames + flows_from(10, ("10.0.0.3", 80)), spec)
    assert len(done.frames) == 20 and done.counters["drop_exhausted"] == 2
    # Flows end 10 s after their last packet, and their names rest for 30 s more.
    late = udp(("10.1.9.9", 5000), SERVER)
    for pause, served in ((20, False), (150, True)):
        other = udp(("172.20.0.1", 5), ("172.20.0.2", 6))  # time goes by
        times = [*frames[:10], *([ethernet(other)] * pause), ethernet(late)]
        source = write_pcap(tmp_path / "late.pcap", times, step=1)
        counters = sm.run(source, spec, timeout_udp=10)["counters"]
        assert counters["drop_exhausted"] == (0 if served else 1), pause


def test_more_mappings_than_may_be(tmp_path: Path) -> None:
    done = through(tmp_path, flows_from(20), "nat:inside=10.1.0.0/16:pool=192.0.2.0/24:mappings=15")
    assert len(done.frames) == 15 and done.counters["drop_full"] == 5


def test_a_port_is_forwarded_whatever_else_goes_on(tmp_path: Path) -> None:
    spec = "nat:inside=10.1.0.0/16:pool=192.0.2.1:ports=80-81:forward=tcp/192.0.2.1:80/10.1.0.5:8080"
    outside, outer, inner = ("172.20.0.1", 40000), ("192.0.2.1", 80), ("10.1.0.5", 8080)
    come, leave = [], []
    for frame in conversation(client=outside, server=outer):
        toward = names_of(frame[14:])[0] == outside
        come.append(frame if toward else renamed_frame(frame, source=inner))
        leave.append(renamed_frame(frame, destination=inner) if toward else frame)
    quoted = leave[0][14:]
    come.append(ethernet(icmp("10.1.0.5", "172.20.0.1", 3, 4, b"\0\0\4\0", quoted)))
    leave.append(ethernet(icmp("192.0.2.1", "172.20.0.1", 3, 4, b"\0\0\4\0", come[0][14:])))
    come.append(ethernet(icmp(ROUTER, "192.0.2.1", 3, 4, b"\0\0\4\0", leave[1][14:])))
    leave.append(ethernet(icmp(ROUTER, "10.1.0.5", 3, 4, b"\0\0\4\0", come[1][14:])))
    done = through(tmp_path, come, spec)
    assert done.frames == leave
    assert said(done.counters) == {"forwarded": 1, "packets_in": 5, "packets_out": 3, "icmp_errors": 2}
    # What is forwarded is nobody's name; from within it is a hairpin, which is refused.
    hairpin = tcp_frame(("10.1.0.7", 1234), outer, 1, 0, SYN)
    tcp = [tcp_frame((f"10.1.0.{number}", 1000), ("172.20.0.9", 443), 1, 0, SYN) for number in range(2)]
    done = through(tmp_path, [*tcp, hairpin], spec)
    assert outer_names(done.frames) == [("192.0.2.1", 81)]
    assert (done.counters["drop_exhausted"], done.counters["drop_hairpin"]) == (1, 1)


def test_late_packets_of_the_last_one_do_not_take_the_answers(tmp_path: Path) -> None:
    """Something comes for a name before it is given to anybody; then it is."""
    stray = udp(SERVER, OUTER, b"late")
    out, back = udp(CLIENT, SERVER, b"question"), udp(SERVER, OUTER, b"answer")
    done = through(tmp_path, map(ethernet, [stray, out, back]))
    assert [frame[14:] for frame in done.frames] == [renamed(out, OUTER), renamed(back, None, CLIENT)]
    assert done.counters["drop_stray"] == 1


@pytest.mark.parametrize("vlan", [None, 5])
def test_answers_get_the_link_layer_address_of_their_host(tmp_path: Path, vlan: int | None) -> None:
    """With on_link: whoever answers ARP for the pool, its frames go to the host that they are for."""
    router, proxy, host = (b"\x02\0\0\0\x0a" + bytes([last]) for last in (1, 2, 3))
    out, back, out_left, back_left = packets_of("udp")
    error, error_left = (icmp(ROUTER, to, 11, 0, bytes(4), about) for to, about in ((POOL, out_left), (CLIENT[0], out)))
    come = [router + host + ethernet(out, vlan)[12:]]
    come += [proxy + router + ethernet(ip, vlan)[12:] for ip in (back, error)]
    leave = [router + host + ethernet(out_left, vlan)[12:]]
    leave += [host + router + ethernet(ip, vlan)[12:] for ip in (back_left, error_left)]
    assert through(tmp_path, come, ONE + ":on_link=true").frames == leave
    leave[1:] = [proxy + frame[6:] for frame in leave[1:]]
    assert through(tmp_path, come, ONE).frames == leave


def test_a_port_that_is_used_again_by_the_same_client(tmp_path: Path) -> None:
    """After the close the same four names come again: another connection, and another name, for the first rests."""
    spec = "nat:inside=10.0.0.1:pool=192.0.2.1:ports=7000-7001"
    frames = conversation()
    again = [tcp_frame(CLIENT, SERVER, 500_000, 0, SYN), tcp_frame(CLIENT, SERVER, 500_001, 1, ACK | FIN)]
    names = outer_names(f for f in through(tmp_path, [*frames, *again], spec).frames if f[26:30] != b"\x0a\0\0\2")
    assert len(set(names[:5])) == 1 and len(set(names[5:])) == 1 and names[0] != names[5]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("", "pool: which addresses"),
        ("pool=1.2.3", 'pool: "1.2.3" is no address'),
        ("pool=1.2.3.4,,1.2.3.5", 'pool: "" is no address'),
        ("pool=1.2.3.256", "is no address"),
        ("pool=1.2.3.4/24", "1.2.3.4/24 has bits beyond its length"),
        ("pool=1.2.3.9-1.2.3.4", "is no address, range or prefix"),
        ("pool=1.2.3.0/30,1.2.3.2", "1.2.3.2 overlaps what stands before it"),
        ("pool=1.0.0.0/8", "pool: more than 65,536 addresses"),
        ("pool=1.2.3.4:inside=::1", 'inside: "::1" is no address'),
        ("pool=1.2.3.4:ports=0-9", "ports: no range"),
        ("pool=1.2.3.4:ports=9", "ports: no range"),
        ("pool=1.2.3.4:ports=1-99999", "ports: no range"),
        ("pool=1.2.3.4:forward=sctp/1.2.3.4:80/10.0.0.1:80", "is no rule"),
        ("pool=1.2.3.4:forward=tcp/1.2.3.4:80/10.0.0.1", "is no rule"),
        ("pool=1.2.3.4:forward=tcp/1.2.3.4:80/10.0.0.1:1,tcp/1.2.3.4:80/10.0.0.1:2", "forwarded already"),
        ("pool=1.2.3.4:forward=tcp/1.2.3.4:80/10.0.0.1:1,tcp/1.2.3.4:81/10.0.0.1:1", "has a rule already"),
        ("pool=1.2.3.4:rest=-1", "rest: 0 to 86,400"),
        ("pool=1.2.3.4:mappings=0", "mappings: 1 to"),
        ("pool=1.2.3.4:mappings=x", "of type int"),
        ("pool=1.2.3.4:colour=red", 'no parameter "colour"'),
    ],
)
def test_parameters_that_are_wrong_are_one_line(tmp_path: Path, parameters: str, message: str) -> None:
    source = write_pcap(tmp_path / "in.pcap", [ip_frame("10.0.0.1", "10.0.0.2", 17, bytes(8))])
    with pytest.raises(ShardmosError) as caught:
        sm.run(source, "nat:" + parameters if parameters else "nat")
    assert message in str(caught.value) and "\n" not in str(caught.value)
