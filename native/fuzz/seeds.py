"""Writes the seeds of the fuzzers below native/fuzz/seeds/: python3 native/fuzz/seeds.py

Headers and files laid out by hand after the RFCs and formats. Tunnels are told by port numbers and magic values, which
a fuzzer guesses too seldom.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

# As `types` in fuzz_decode.c.
LINK_TYPES = [1, 0, 6, 7, 8, 9, 10, 11, 12, 50, 101, 104, 108, 113, 129, 178, 192, 228, 229, 239, 242, 276,
              51, 105, 107, 109, 117, 119, 122, 123, 127, 138, 149, 163, 166, 197, 204, 205, 206, 226, 258]  # fmt: skip
MACS = bytes.fromhex("020000000002020000000001")
A4, B4 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
A6 = bytes.fromhex("20010db8000000000000000000000001")
B6 = bytes.fromhex("20010db8000000000000000000000002")


def folded(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol: int, payload: bytes, *, options: bytes = b"", fragment: int = 0) -> bytes:
    words = (0x40 | 5 + len(options) // 4, 0, 20 + len(options) + len(payload), 0x1234, fragment, 64, protocol)
    head = struct.pack("!BBHHHBB", *words)
    return head + struct.pack("!H", folded(head + b"\0\0" + A4 + B4 + options)) + A4 + B4 + options + payload


def ipv6(following: int, payload: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + A6 + B6 + payload


def tcp(options: bytes = b"", payload: bytes = b"data") -> bytes:
    head = struct.pack("!HHIIBBHHH", 1234, 80, 100, 200, (5 + len(options) // 4) << 4, 0x18, 8192, 0, 0) + options
    total = head + payload
    value = folded(A4 + B4 + struct.pack("!HH", 6, len(total)) + total)
    return total[:16] + struct.pack("!H", value) + total[18:]


def udp(port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", 53000, port, 8 + len(payload), 0) + payload


def ethernet(ethertype: int, payload: bytes) -> bytes:
    return MACS + struct.pack("!H", ethertype) + payload


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


TCP4, TCP6 = ipv4(6, tcp()), ipv6(6, tcp())
INNER = ethernet(0x0800, TCP4)
OPTIONS = {
    "syn": raw("020405b4 0402080a 00000001 00000000 01030307"),
    "timestamps": raw("0101080a 00000005 00000006"),
    "sack": raw("0101051a 00000001 00000002 00000003 00000004 00000005 00000006"),
    "fast_open": raw("220a0102 03040506 07080101"),
    "fast_open_experimental": raw("fe04f989"),
    "multipath": raw("1e0c0081 01020304 05060708 1e080000 01020304"),
    "wrong": raw("02030303 0f080204 05000000"),
}


def fragments() -> list[bytes]:
    """An IPv4 datagram of three fragments, the last one first."""
    datagram = tcp(payload=b"x" * 60)
    return [
        ethernet(0x0800, ipv4(6, datagram[at : at + 32], fragment=at // 8 | (0x2000 if at + 32 < len(datagram) else 0)))
        for at in (64, 32, 0)
    ]


def fragments6() -> list[bytes]:
    datagram = udp(53, b"y" * 40)
    return [
        ethernet(0x86DD, ipv6(44, struct.pack("!BBHI", 17, 0, field, 7) + part))
        for field, part in ((1, datagram[:24]), (24, datagram[24:]))
    ]


def frames() -> dict[str, tuple[int, list[bytes]]]:
    """Name to link type and frames."""
    extensions = raw("2b00050200000100 3c02000100000000") + B6
    extensions += raw("3300010400000000 06040000 00000001 00000002 000000000000000000000000")
    wlan = raw("08010000") + MACS + MACS[:6] + raw("0000")
    error = ipv4(1, raw("0301000000000000") + ipv4(6, tcp())[:28])
    over_ethernet = {
        "tcp": INNER,
        "qinq": ethernet(0x88A8, raw("00648100 00c80800") + TCP4),
        "snap": MACS + struct.pack("!H", len(TCP4) + 8) + raw("aaaa03 000000 0800") + TCP4,
        "mpls": ethernet(0x8847, raw("00010040 00020140") + TCP4),
        "mpls_ethernet": ethernet(0x8847, raw("00010140 00000000") + INNER),
        "pppoe": ethernet(0x8864, raw("11000007") + struct.pack("!H", len(TCP4) + 2) + raw("0021") + TCP4),
        "provider_backbone": ethernet(0x88E7, raw("00000001") + INNER),
        "fabric_path": ethernet(0x8903, raw("0001") + INNER),
        "nsh": ethernet(0x894F, raw("00020101 00000100") + TCP4),
        "source_route": ethernet(0x0800, ipv4(6, tcp(), options=raw("83070408 080808 00"))),
        "ipv6_extensions": ethernet(0x86DD, ipv6(0, extensions + tcp())),
        "icmp_echo": ethernet(0x0800, ipv4(1, raw("0800f7fd00010001"))),
        "icmp_error": ethernet(0x0800, error),
        "icmp6_error": ethernet(0x86DD, ipv6(58, raw("0100000000000000") + TCP6)),
        "sctp": ethernet(0x0800, ipv4(132, raw("04d20050 00000001 00000000 01000014"))),
        "ip_in_ip": ethernet(0x0800, ipv4(4, TCP4)),
        "six_in_four": ethernet(0x0800, ipv4(41, TCP6)),
        "gre": ethernet(0x0800, ipv4(47, raw("b0000800 00000000 0000002a 00000001") + TCP4)),
        "nvgre": ethernet(0x0800, ipv4(47, raw("20006558 00002a00") + INNER)),
        "pptp": ethernet(0x0800, ipv4(47, raw("3081880b 00300007 00000001 00000001 ff030021") + TCP4)),
        "erspan_2": ethernet(0x0800, ipv4(47, raw("100088be 00000001 1000002d 00000000") + INNER)),
        "erspan_3": ethernet(0x0800, ipv4(47, raw("100022eb 00000001 2000002e 00000000 00000001") + bytes(8) + INNER)),
        "vxlan": ethernet(0x0800, ipv4(17, udp(4789, raw("08000000 00002f00") + INNER))),
        "vxlan_gpe": ethernet(0x0800, ipv4(17, udp(4790, raw("0c000001 00002f00") + TCP4))),
        "geneve": ethernet(0x0800, ipv4(17, udp(6081, raw("01006558 00003000 01020304") + INNER))),
        "gtp": ethernet(0x0800, ipv4(17, udp(2152, raw("34ff0034 00000032 00000085 01000900") + TCP4))),
        "teredo": ethernet(0x0800, ipv4(17, udp(3544, bytes([0, 1]) + bytes(11) + raw("0000010203040506") + TCP6))),
        "capwap": ethernet(0x0800, ipv4(17, udp(5247, raw("00100000 00000000") + INNER))),
        "mpls_udp": ethernet(0x0800, ipv4(17, udp(6635, raw("00010140") + TCP4))),
        "l2tp": ethernet(0x0800, ipv4(17, udp(1701, raw("0a02 0003 0004 00010001 0002 0000 0021") + TCP4))),
        "lisp": ethernet(0x0800, ipv4(17, udp(4341, bytes(8) + TCP4))),
        "tzsp": ethernet(0x0800, ipv4(17, udp(37008, raw("01000001 0a0120 00 01") + INNER))),
        "ayiya": ethernet(0x0800, ipv4(17, udp(5072, raw("41521129 00000000") + bytes(28) + TCP6))),
        "macsec": ethernet(0x88E5, raw("20 00 00000001 0000000000000000 0800") + TCP4),
        "trill": ethernet(0x22F3, raw("0041 0001 0002 00000000") + INNER),
        "wlan": ethernet(0x0800, ipv4(47, raw("00008200") + wlan + raw("aaaa03 000000 0800") + TCP4)),
    }
    over_others = {
        "loopback": (0, raw("02000000") + TCP4),
        "token_ring": (6, raw("1040") + MACS[:6] + raw("820000000001 0630 0011 0022 aaaa03 000000 0800") + TCP4),
        "arcnet": (7, raw("0102f0") + TCP4),
        "slip": (8, TCP4),
        "ppp": (9, raw("ff030021") + TCP4),
        "fddi": (10, raw("50") + MACS + raw("aaaa03 000000 0800") + TCP4),
        "raw": (101, TCP6),
        "cisco_hdlc": (104, raw("0f000800") + TCP4),
        "cooked": (113, raw("0000 0001 0006 0200000000020000 0800") + TCP4),
        "cooked_2": (276, raw("0800 0000 00000002 0001 00 06 0200000000020000") + TCP4),
        "juniper": (178, raw("4d474300") + INNER),
        "ppi": (192, raw("00000800 65000000") + TCP4),
        "nflog": (239, raw("02000000 08000100 08000300") + struct.pack("<HH", len(TCP4) + 4, 9) + TCP4),
        "infiniband": (242, bytes(40) + raw("08000000") + TCP4),
        "monitor": (105, wlan + raw("aaaa03 000000 0800") + TCP4),
        "radiotap": (
            127,
            raw("00001200 03000000 0000000000000000 1000") + wlan + raw("aaaa030000000800") + TCP4 + bytes(4),
        ),
        "prism": (119, raw("44000000 0c000000 00000000") + wlan + raw("aaaa03 000000 0800") + TCP4),
        "frame_relay": (107, raw("1841 0300 80 0080c2 0007") + INNER),
        "pflog": (117, raw("3d020000") + bytes(60) + TCP4),
        "endace": (197, bytes(8) + raw("8204 0060 0000 0048 0000000000000000 0000") + INNER),
        "pktap": (258, raw("0c000000 01000000 01000000") + INNER),
    }
    seeds = {name: (1, [frame]) for name, frame in over_ethernet.items()}
    seeds.update({name: (linktype, [frame]) for name, (linktype, frame) in over_others.items()})
    for name, options in OPTIONS.items():
        seeds[f"options_{name}"] = (1, [ethernet(0x0800, ipv4(6, tcp(options)))])
    return seeds | {"fragments": (1, fragments()), "fragments_6": (1, fragments6())}


def captures() -> dict[str, bytes]:
    """Small files in each format that is read."""

    def pcap(order: str, magic: int, linktype: int = 1) -> bytes:
        head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, linktype)
        frame = ethernet(0x0800, TCP4)
        full = struct.pack(f"{order}IIII", 1000, 500, len(frame), len(frame)) + frame
        cut = struct.pack(f"{order}IIII", 1001, 600, 60, len(frame)) + frame[:60]
        return head + full + cut + full

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)

    frame = ethernet(0x0800, TCP4)
    section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    interface = block(1, struct.pack("<HHI", 1, 0, 65535) + struct.pack("<HHB3x", 9, 1, 9) + bytes(4))
    loopback = block(1, struct.pack("<HHI", 0, 0, 100))
    packet = block(6, struct.pack("<IIIII", 0, 5, 6, len(frame), len(frame)) + frame)
    second = block(6, struct.pack("<IIIII", 1, 5, 7, 44, 44) + raw("02000000") + TCP4)
    simple = block(3, struct.pack("<I", len(frame)) + frame)
    old = block(2, struct.pack("<HHIIII", 0, 0, 5, 8, len(frame), len(frame)) + frame)
    names = block(4, struct.pack("<HH4s5s3x", 1, 9, A4, b"host\0") + bytes(4))
    ng = section + interface + loopback + packet + second + simple + old + names
    little = pcap("<", 0xA1B2C3D4)
    # One block as it is (RFC 8878 3.1.1): a single segment, its size in four bytes.
    size = struct.pack("<I", len(little))
    zstd = raw("28b52ffd a0") + size + struct.pack("<I", len(little) << 3 | 1)[:3] + little
    return {
        "little": little,
        "big_nanoseconds": pcap(">", 0xA1B23C4D),
        "modified": pcap("<", 0xA1B2CD34),
        "cooked": pcap("<", 0xA1B2C3D4, 113),
        "ng": ng,
        "ng_two_sections": ng + section + interface + packet,
        "gzip": gzip.compress(little, mtime=0),
        "gzip_ng": gzip.compress(ng, mtime=0),
        "zstd": zstd,
        "cut": little[:-7],
    }


def conversations() -> dict[str, bytes]:
    """As fuzz_engine.c reads them: eight bytes of configuration, then eight for each packet."""
    syn, ack, fin, rst, urg = 2, 16, 1, 4, 32

    def packet(
        server: int, flags: int, payload: int = 0, *, seq: int = 0, ahead: int = 0, how: int = 0, pair: int = 0
    ) -> bytes:
        return struct.pack("BBBBbbBB", pair | server << 2, 1, payload, flags, seq, ahead, 32, how)

    begin = packet(0, syn) + packet(1, syn | ack, ahead=0) + packet(0, ack)
    talk = packet(0, ack, 40) + packet(1, ack, 0x41) + packet(1, ack, 30)
    end = packet(0, fin | ack) + packet(1, fin | ack) + packet(0, ack)
    holes = (
        packet(0, ack, 20, seq=40) + packet(0, ack, 20, seq=10) + packet(0, ack, 20, seq=20, how=9) + packet(0, ack, 20)
    )
    listening = {"quiet": 0, "listening": 3}
    lives = {
        "whole": begin + talk + end,
        "holes": begin + holes + packet(1, ack, ahead=60) + talk + end,
        "reset": begin + talk + packet(1, rst | ack) + packet(0, ack, 9),
        "urgent": begin + packet(0, ack | urg, 5, how=3) + end,
        "midstream": talk + holes + end,
        "again": begin + end + begin + talk,
        "timestamps": begin.replace(bytes([syn]), bytes([syn | 0x40]))
        + packet(0, ack | 0x40, 20, how=9)
        + packet(0, ack | 0x40, 20),
        "many": b"".join(packet(0, syn, pair=pair) + packet(1, syn | ack, pair=pair) for pair in range(4)) + talk,
        "fragments": b"".join(struct.pack("BBBBbbBB", 0x10 | 8, 1, 24, 0, 0, 0, at, 5) for at in (0x20, 0x23, 0x06)),
    }
    return {
        f"{name}_{who}": bytes([0, number % 15, 7, 0, 1, 2, listens, number * 11]) + life
        for number, (name, life) in enumerate(lives.items())
        for who, listens in listening.items()
    }


def segments() -> dict[str, bytes]:
    """As fuzz_assembler.c reads them: policy, pool, limits, base; then start, length and value of each segment."""
    rows = [(10, 20, 2), (40, 20, 4), (15, 30, 6), (0, 5, 8), (0, 200, 3), (100, 0, 255)]
    body = b"".join(struct.pack("<HHB", *row) for row in rows)
    limits = {"wide": bytes([15, 255, 255, 0]), "narrow": bytes([0, 1, 3, 1])}
    return {
        f"{name}_{policy}": bytes([policy]) + limit + body for policy in range(15) for name, limit in limits.items()
    }


def datagrams() -> dict[str, bytes]:
    """As fuzz_defrag.c reads them: policy, form; then packets as they are, or fragments described in four bytes."""
    described = b"".join(bytes(row) for row in [(2, 0, 3, 0), (10, 2, 3, 0), (2, 1, 2, 0), (0, 5, 9, 0)])
    found = {}
    for policy in range(7):
        found[f"described_{policy}"] = bytes([policy, 3]) + described
        for name, frames in (("4", fragments()), ("6", fragments6())):
            packets = [frame[14:] for frame in frames]
            body = b"".join(struct.pack("<HBB", len(each), 0, 0) + each for each in packets)
            found[f"raw{name}_{policy}"] = bytes([policy, 0]) + body
    return found


def main() -> None:
    root = Path(__file__).parent / "seeds"
    files: dict[str, dict[str, bytes]] = {
        "fuzz_capture": captures(),
        "fuzz_engine": conversations(),
        "fuzz_assembler": segments(),
        "fuzz_defrag": datagrams(),
        "fuzz_tcp_options": {name: b"\x02" + options for name, options in OPTIONS.items()},
        "fuzz_decode": {},
    }
    for name, (linktype, wanted) in frames().items():
        head = LINK_TYPES.index(linktype)
        files["fuzz_decode"][name] = b"".join(struct.pack("!BBH", head, 0, len(each)) + each for each in wanted)
    for fuzzer, seeds in files.items():
        (root / fuzzer).mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (root / fuzzer / name).write_bytes(data)


if __name__ == "__main__":
    main()
