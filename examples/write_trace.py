"""Writes the small capture over which the snippets of the documentation run: python examples/write_trace.py trace.pcap

Four flows, 22 packets a millisecond apart: an HTTP exchange with a request that is sent twice and a response out of
order; a login with bytes that are missing, others that come in two versions, and a reset; a query over UDP; one packet
of a connection that began before the capture.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from pathlib import Path

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
End = tuple[str, int]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(source: End, destination: End, proto: int, head: bytes, data: bytes, sum_at: int) -> bytes:
    """Ethernet, IPv4 and the transport's header, whose checksum lies at `sum_at`."""
    addresses = ipaddress.IPv4Address(source[0]).packed + ipaddress.IPv4Address(destination[0]).packed
    total = checksum(addresses + struct.pack("!HH", proto, len(head + data)) + head + data)
    head = head[:sum_at] + struct.pack("!H", total) + head[sum_at + 2 :]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(head + data), 0, 0x4000, 64, proto, 0) + addresses
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return bytes.fromhex("0200000000020200000000010800") + ip + head + data


def tcp(source: End, destination: End, seq: int, ack: int, flags: int, data: bytes = b"") -> bytes:
    head = struct.pack("!HHIIBBHHH", source[1], destination[1], seq, ack, 5 << 4, flags, 65535, 0, 0)
    return frame(source, destination, 6, head, data, 16)


def udp(source: End, destination: End, data: bytes) -> bytes:
    return frame(source, destination, 17, struct.pack("!HHHH", source[1], destination[1], 8 + len(data), 0), data, 6)


def frames() -> list[bytes]:
    ann, bob, web = ("10.0.0.1", 40000), ("10.0.0.3", 40001), ("10.0.0.2", 80)
    request = b"GET /index.html HTTP/1.1\r\nHost: example.org\r\n\r\n"
    head, first, second = b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n", b"abcdefghijklm", b"nopqrstuvwxyz"
    c, s = 1001 + len(request), 5001 + len(head)
    return [
        tcp(ann, web, 1000, 0, SYN),
        tcp(web, ann, 5000, 1001, SYN | ACK),
        tcp(ann, web, 1001, 5001, ACK),
        tcp(ann, web, 1001, 5001, PSH | ACK, request),
        tcp(ann, web, 1001, 5001, PSH | ACK, request),  # again
        tcp(web, ann, 5001, c, PSH | ACK, head),
        tcp(web, ann, s + 13, c, PSH | ACK, second),  # too early
        tcp(web, ann, s, c, ACK, first),
        tcp(ann, web, c, s + 26, FIN | ACK),
        tcp(web, ann, s + 26, c + 1, FIN | ACK),
        tcp(ann, web, c + 1, s + 27, ACK),
        tcp(bob, web, 2000, 0, SYN),
        tcp(web, bob, 7000, 2001, SYN | ACK),
        tcp(bob, web, 2001, 7001, ACK),
        tcp(bob, web, 2001, 7001, PSH | ACK, b"USER bob\r\n"),
        tcp(bob, web, 2016, 7001, PSH | ACK, b"secret\r\n"),  # "PASS " is missing before it
        tcp(bob, web, 2016, 7001, PSH | ACK, b"SECRET\r\n"),  # and here it is said otherwise
        tcp(web, bob, 7001, 2024, ACK),
        tcp(web, bob, 7001, 2024, RST | ACK),
        udp(ann, ("10.0.0.9", 53), b"a query"),
        udp(("10.0.0.9", 53), ann, b"an answer"),
        tcp(("10.0.0.5", 50000), ("10.0.0.2", 22), 1, 1, PSH | ACK, b"ssh"),
    ]


def write(path: Path) -> Path:
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number, data in enumerate(frames()):
        out.append(struct.pack("<IIII", 1_700_000_000, number * 1000, len(data), len(data)) + data)
    path.write_bytes(b"".join(out))
    return path


if __name__ == "__main__":
    print(f"wrote {write(Path(sys.argv[1] if len(sys.argv) > 1 else 'trace.pcap'))}")
