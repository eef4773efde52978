"""Small captures made by hand, for tests that need exact bytes and none of a capture library."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from pathlib import Path

SYN, ACK, FIN, RST, PSH = 2, 16, 1, 4, 8
CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_frame(source: str, destination: str, proto: int, segment: bytes) -> bytes:
    """An Ethernet frame with an IPv4 packet around a transport segment."""
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, proto, 0) + addresses
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0" + header + segment


def tcp_frame(
    source: tuple[str, int], destination: tuple[str, int], seq: int, ack: int, flags: int, data: bytes = b""
) -> bytes:
    segment = struct.pack("!HHIIBBHHH", source[1], destination[1], seq % 2**32, ack % 2**32, 5 << 4, flags, 65535, 0, 0)
    segment += data
    pseudo = ipaddress.IPv4Address(source[0]).packed + ipaddress.IPv4Address(destination[0]).packed
    total = checksum(pseudo + struct.pack("!BBH", 0, 6, len(segment)) + segment)
    return ip_frame(source[0], destination[0], 6, segment[:16] + struct.pack("!H", total) + segment[18:])


def conversation(
    request: bytes = b"GET / HTTP/1.0\r\n\r\n",
    response: bytes = b"HTTP/1.0 200 OK\r\n\r\nhello",
    client: tuple[str, int] = CLIENT,
    server: tuple[str, int] = SERVER,
) -> list[bytes]:
    """A whole connection: handshake, request, response, both FINs."""
    c, s = 1000, 9000
    c_end, s_end = c + 1 + len(request), s + 1 + len(response)
    return [
        tcp_frame(client, server, c, 0, SYN),
        tcp_frame(server, client, s, c + 1, SYN | ACK),
        tcp_frame(client, server, c + 1, s + 1, ACK),
        tcp_frame(client, server, c + 1, s + 1, ACK | PSH, request),
        tcp_frame(server, client, s + 1, c_end, ACK | PSH, response),
        tcp_frame(client, server, c_end, s_end, ACK | FIN),
        tcp_frame(server, client, s_end, c_end + 1, ACK | FIN),
        tcp_frame(client, server, c_end + 1, s_end + 1, ACK),
    ]


def conversations(count: int) -> list[bytes]:
    """`count` connections of different clients, one after the other."""
    return [
        frame for number in range(count) for frame in conversation(client=(f"10.1.{number >> 8}.{number & 255}", 40000))
    ]


def write_pcap(path: Path, frames: Iterable[bytes], start: float = 1_700_000_000.0, step: float = 0.001) -> Path:
    """A microsecond pcap of Ethernet frames, `step` seconds apart."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number, frame in enumerate(frames):
        microseconds = round((start + number * step) * 1e6)
        out.append(struct.pack("<IIII", microseconds // 10**6, microseconds % 10**6, len(frame), len(frame)) + frame)
    path.write_bytes(b"".join(out))
    return path
