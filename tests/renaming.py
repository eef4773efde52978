"""What address translation should make of a packet, worked out from RFC 791, 768, 792 and 9293: sums are made anew."""

from __future__ import annotations

import ipaddress
import struct

from traffic import checksum

Name = tuple[str, int]
PORTS = {6: (0, 2), 17: (0, 2), 1: (4, 4)}
SUM_AT = {6: 16, 17: 6, 1: 2}


def link_bytes(frame: bytes) -> int:
    """Bytes of the Ethernet header with its VLAN tags."""
    at = 12
    while frame[at : at + 2] in (b"\x81\0", b"\x88\xa8"):
        at += 4
    return at + 2


def packed(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed


def names_of(ip: bytes) -> tuple[Name, Name]:
    """Source and destination of an IPv4 packet that begins its datagram; for ICMP the identifier is the port."""
    l4 = (ip[0] & 15) * 4
    source, destination = (struct.unpack_from("!H", ip, l4 + at)[0] for at in PORTS[ip[9]])
    return (str(ipaddress.IPv4Address(ip[12:16])), source), (str(ipaddress.IPv4Address(ip[16:20])), destination)


def transport_sum(ip: bytes, data: bytes) -> int:
    """The checksum of a transport packet whose checksum field is zero, between the addresses of that IP header."""
    pseudo = b"" if ip[9] == 1 else ip[12:20] + struct.pack("!BBH", 0, ip[9], len(data))
    return checksum(pseudo + data) or (0xFFFF if ip[9] == 17 else 0)


def sums_right(ip: bytes) -> bool:
    """Of a whole datagram."""
    header, total = (ip[0] & 15) * 4, struct.unpack_from("!H", ip, 2)[0]
    if checksum(ip[:header]) != 0:
        return False
    data, at = ip[header:total], SUM_AT.get(ip[9])
    if at is None or (ip[9] == 17 and data[6:8] == b"\0\0"):
        return True
    stored: int = struct.unpack_from("!H", data, at)[0]
    return stored == transport_sum(ip, data[:at] + b"\0\0" + data[at + 2 :])


def renamed(ip: bytes, source: Name | None = None, destination: Name | None = None) -> bytes:
    """A whole datagram with other names; what follows it (link-layer padding) stays."""
    header, total = (ip[0] & 15) * 4, struct.unpack_from("!H", ip, 2)[0]
    proto, out = ip[9], bytearray(ip)
    for name, address_at, port_at in ((source, 12, PORTS[proto][0]), (destination, 16, PORTS[proto][1])):
        if name is not None:
            out[address_at : address_at + 4] = packed(name[0])
            struct.pack_into("!H", out, header + port_at, name[1])
    return summed(bytes(out), header, total)


def summed(ip: bytes, header: int, total: int) -> bytes:
    """With checksums made anew; a datagram of UDP that had none gets none."""
    out, at = bytearray(ip), SUM_AT[ip[9]]
    out[10:12] = b"\0\0"
    struct.pack_into("!H", out, 10, checksum(bytes(out[:header])))
    if not (ip[9] == 17 and ip[header + 6 : header + 8] == b"\0\0"):
        out[header + at : header + at + 2] = b"\0\0"
        struct.pack_into("!H", out, header + at, transport_sum(bytes(out), bytes(out[header:total])))
    return bytes(out)


def mended(sums: bytes, old: bytes, new: bytes) -> bytes:
    """A checksum of which that was covered, and now this is (RFC 1624, equation 3)."""
    words = [*struct.unpack(f"!{len(new) // 2}H", new), *(0xFFFF - w for w in struct.unpack(f"!{len(old) // 2}H", old))]
    total = 0xFFFF - int.from_bytes(sums, "big") + sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", 0xFFFF - total)


def renamed_error(ip: bytes, source: str, quoted_destination: Name) -> bytes:
    """An ICMP error from inside about a packet that came in, as it leaves; what it quotes may be cut anywhere."""
    header, total = (ip[0] & 15) * 4, struct.unpack_from("!H", ip, 2)[0]
    quote = bytearray(ip[header + 8 : total])
    l4 = (quote[0] & 15) * 4
    at, sum_at, proto = l4 + PORTS[quote[9]][1], l4 + SUM_AT[quote[9]], quote[9]
    address, port = packed(quoted_destination[0]), struct.pack("!H", quoted_destination[1])
    old = bytes(quote[16:20]), bytes(quote[at : at + 2])
    if sum_at + 2 <= len(quote) and not (proto == 17 and quote[sum_at : sum_at + 2] == b"\0\0"):
        before, after = (old[1], port) if proto == 1 else (old[0] + old[1], address + port)
        quote[sum_at : sum_at + 2] = mended(bytes(quote[sum_at : sum_at + 2]), before, after)
    quote[10:12] = mended(bytes(quote[10:12]), old[0], address)
    quote[16:20], quote[at : at + 2] = address, port
    out = bytearray(ip[:12] + packed(source) + ip[16 : header + 8] + quote + ip[total:])
    return summed(bytes(out), header, total)


def renamed_frame(frame: bytes, source: Name | None = None, destination: Name | None = None) -> bytes:
    link = link_bytes(frame)
    return frame[:link] + renamed(frame[link:], source, destination)


def ipv4(source: str, destination: str, proto: int, data: bytes, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    header = struct.pack("!BBHHHBBH", 0x40 | words, 0, words * 4 + len(data), 7, 0x4000, 64, proto, 0)
    header += packed(source) + packed(destination) + options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + data


def ethernet(ip: bytes, vlan: int | None = None) -> bytes:
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + tag + b"\x08\0" + ip


def udp(source: Name, destination: Name, data: bytes = b"", options: bytes = b"", without_sum: bool = False) -> bytes:
    """An IPv4 packet."""
    segment = struct.pack("!HHHH", source[1], destination[1], 8 + len(data), 0 if without_sum else 1) + data
    ip = ipv4(source[0], destination[0], 17, segment, options)
    return summed(ip, 20 + len(options), len(ip))


def icmp(source: str, destination: str, kind: int, code: int, rest: bytes, data: bytes) -> bytes:
    """An IPv4 packet; `rest` is bytes 4 to 7 of the ICMP header."""
    message = struct.pack("!BBH", kind, code, 0) + rest + data
    return ipv4(source, destination, 1, message[:2] + struct.pack("!H", checksum(message)) + message[4:])


def echo(source: str, destination: str, identifier: int, reply: bool = False, data: bytes = b"ping") -> bytes:
    return icmp(source, destination, 0 if reply else 8, 0, struct.pack("!HH", identifier, 1), data)


def cut_quote(ip: bytes, data_bytes: int = 8) -> bytes:
    """As routers quote a packet: its header and that many bytes behind it (RFC 792)."""
    return ip[: (ip[0] & 15) * 4 + data_bytes]
