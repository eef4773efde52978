"""What a handler may read of a packet that came in IP fragments: the datagram, and nothing behind it."""

from __future__ import annotations

import struct
from pathlib import Path

from traffic import checksum, write_pcap

import shardmos as sm
from shardmos.run import execute


def fragment(data: bytes, offset: int, more: bool) -> bytes:
    place = (0x2000 if more else 0) | offset // 8
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 7, place, 64, 17, 0)
    header += bytes([10, 0, 0, 1, 10, 0, 0, 2])
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0" + header + data


def test_the_datagram_and_nothing_behind_it(tmp_path: Path) -> None:
    content = bytes(range(250)) * 4
    datagram = struct.pack("!HHHH", 4000, 53, 8 + len(content), 0) + content
    seen: list[tuple[bytes, bytes]] = []

    class Reader(sm.Middlebox):
        @sm.on(sm.PKT_IN)
        def packet(self, flow: sm.LiveFlow, packet: sm.Packet) -> None:
            seen.append((bytes(packet.ip), bytes(packet.payload)))

    frames = [fragment(datagram[:512], 0, True), fragment(datagram[512:], 512, False)]
    result = execute(write_pcap(tmp_path / "a.pcap", frames), [Reader()])
    assert result.error_count == 0
    ((ip, payload),) = seen
    assert payload == content
    assert ip[20:] == datagram
    assert ip[9:10] == bytes([17]) and ip[12:20] == bytes([10, 0, 0, 1, 10, 0, 0, 2])
