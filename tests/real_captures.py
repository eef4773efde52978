"""Real captures as frames, for tests that work out by themselves what becomes of each."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from renaming import link_bytes, sums_right

LARGEST = 4 << 20
Record = tuple[bytes, bytes]  # the header of a record, the frame


def records(path: Path) -> list[Record] | None:
    """Of a plain little-endian Ethernet capture that has all bytes of its frames; None for any other."""
    data = path.read_bytes()
    if len(data) < 24 or data[:4] not in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        return None
    if struct.unpack_from("<I", data, 20)[0] != 1:
        return None
    out, at = [], 24
    while at + 16 <= len(data):
        size, length = struct.unpack_from("<II", data, at + 8)
        if size != length or at + 16 + size > len(data):
            return None
        out.append((data[at : at + 16], data[at + 16 : at + 16 + size]))
        at += 16 + size
    return out if at == len(data) else None


def translatable(frame: bytes) -> bool:
    """A whole datagram of TCP, UDP or echo over IPv4 whose checksums are right."""
    if len(frame) < 34:
        return False
    link = link_bytes(frame)
    ip = frame[link:]
    if (
        frame[link - 2 : link] != b"\x08\0"
        or len(ip) < 28
        or ip[0] >> 4 != 4
        or struct.unpack_from("!H", ip, 6)[0] & 0x3FFF
    ):
        return False
    header, total = (ip[0] & 15) * 4, struct.unpack_from("!H", ip, 2)[0]
    least = {6: 20, 17: 8, 1: 8}.get(ip[9])
    if least is None or header < 20 or not header + least <= total <= len(ip) or ip[16] >= 224:
        return False
    if ip[9] == 6 and not 20 <= (ip[header + 12] >> 4) * 4 <= total - header:
        return False
    if ip[9] == 17 and struct.unpack_from("!H", ip, header + 4)[0] != total - header:
        return False
    return (ip[9] != 1 or ip[header] in (0, 8)) and sums_right(ip)


def fragment_of(frame: bytes) -> tuple[tuple[bytes, ...], int] | None:
    """Its datagram, and its offset in that; None where it is none of IPv4."""
    link = link_bytes(frame)
    ip = frame[link:]
    if frame[link - 2 : link] != b"\x08\0" or len(ip) < 20 or ip[0] >> 4 != 4:
        return None
    field = struct.unpack_from("!H", ip, 6)[0]
    if not field & 0x3FFF:
        return None
    return (frame[12:link], ip[12:20], ip[9:10], ip[4:6]), (field & 0x1FFF) * 8


def as_datagrams(frames: list[bytes]) -> list[bytes]:
    """The frames as they leave where datagrams are put together (RFC 791 3.2): the fragments of one follow each other,
    in their order, at the place of the last that came; what came twice, or of one that was never whole, does not."""
    left: list[bytes] = []
    waiting: dict[tuple[bytes, ...], dict[int, bytes]] = {}
    for frame in frames:
        fragment = fragment_of(frame)
        if fragment is None:
            left.append(frame)
            continue
        datagram, offset = fragment
        pieces = waiting.setdefault(datagram, {})
        pieces.setdefault(offset, frame)
        end = 0
        for at in sorted(pieces):
            ip = pieces[at][link_bytes(pieces[at]) :]
            if at != end:
                break
            end += struct.unpack_from("!H", ip, 2)[0] - (ip[0] & 15) * 4
            if not ip[6] & 0x20:
                left += [pieces[at] for at in sorted(pieces)]
                del waiting[datagram]
                break
    return left


def write(path: Path, head: bytes, kept: list[Record]) -> Path:
    path.write_bytes(head + b"".join(header + frame for header, frame in kept))
    return path


def candidates(corpus: Path) -> list[Path]:
    lines = [json.loads(line) for line in (corpus / "INDEX.jsonl").read_text().splitlines()]
    paths = [corpus / next(str(line[key]) for key in ("path", "file", "capture") if key in line) for line in lines]
    return sorted({path for path in paths if path.is_file() and path.stat().st_size <= LARGEST})
