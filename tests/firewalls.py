"""The shipped firewall over frames of a test: what leaves it, and what it counted."""

from __future__ import annotations

import struct
from pathlib import Path

from traffic import ip_frame, write_pcap

from shardmos.run import execute
from shardmos.workers.load import load


def frames_of(path: Path) -> list[bytes]:
    data, at, frames = path.read_bytes(), 24, []
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        frames.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return frames


def filtered(
    tmp_path: Path, frames: list[bytes], rules: str, default: str = "pass"
) -> tuple[list[bytes], dict[str, int]]:
    """What leaves, and the firewall's own counters."""
    (tmp_path / "rules").write_text(rules)
    box = load(f"firewall:rules=@{tmp_path / 'rules'}:default={default}")
    out = tmp_path / "out.pcap"
    result = execute(write_pcap(tmp_path / "in.pcap", frames), [box], write=str(out))
    assert result.error_count == 0, result.errors
    return frames_of(out), result.summaries[0]["counters"]


def udp_frame(source: tuple[str, int], destination: tuple[str, int], data: bytes = b"x") -> bytes:
    header = struct.pack("!HHHH", source[1], destination[1], 8 + len(data), 0)
    return ip_frame(source[0], destination[0], 17, header + data)
