"""A small language for flows: segments in, states, events and bytes expected. Its form is packetdrill's.

A script is read line by line; `#` begins a comment.

    option midstream ignore              a field of ShardConfig
    isn client 4294967290                sequence number of that side's SYN from here on (default 1000 and 5000)
    port client 40001                    for another connection
    ip 6                                 IPv6 (default 4)

    0.010 > S 0(0) win 65535 <mss 1460,sackok,wscale 7>
    < S. 0(0) ack 1
    +0.5 > P. 1(5) ack 1 "hello" bad checksum

A segment: its time in seconds (or `+` seconds after the last; default +0.001), `>` from the client or `<` from the
server, the flags (S F R P U E W, `.` for ACK, `-` for none), the sequence number relative to the sender's SYN and in
parentheses the payload's length (`1:6(5)` means the same), `ack` relative to the peer's SYN (`rawack`: the field as it
is, without the flag), `win` as on the wire (default 65535), `urg`, options, and the payload: in quotes, or `X*5`, or by
default the letters a to z (server: A to Z) of the place in the stream, the same in every copy.

`icmp 3 1 of 2` is an ICMP error (ICMPv6 with `ip 6`), type 3, code 1, of a router about segment 2 as it was sent, with
`+ N` as if its sequence number had been higher by N.

After a segment, what it must have caused; states, and of GAP, ANOMALY, ERROR, REXMIT, SETUP, ORPHAN exactly those
that are listed:

    * client ESTABLISHED server ESTABLISHED
    * DATA server 0 "hello"              the *receiving* side, the offset, the bytes (or their length in parentheses)
    * GAP server 100 50                  the receiving side, offset and length
    * ANOMALY rst_invalid_seq
    * REXMIT   * SETUP   * ORPHAN   * ERROR flow_buffer
    * NO DATA                            no byte was delivered at this segment

At the end, of each flow (the first, unless `= flow 2` stands before):

    = bytes client "hello" gap 50 (100)  all that the client sent, as it was delivered: pieces, and gaps between
    = end_reason fin                     and any other property of shardmos.Flow; pairs are `client server`
    = flows 1

Beside what a script says, every flow must start once, end once on each side for the same reason, and deliver
contiguous bytes.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

CLIENT, SERVER = 0, 1
SIDES = {"client": CLIENT, "server": SERVER}
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32, "E": 64, "W": 128, "-": 0}
START_NS = 1_700_000_000_000_000_000
LINKTYPE_RAW = 101

_SEGMENT = re.compile(r"(?:(?P<time>\+?[0-9.]+)\s+)?(?P<side>[<>])\s+(?P<flags>[SFRPUEW.-]+)\s+(?P<rest>.*)")
_RANGE = re.compile(r"(\d+)(?::(\d+))?\((\d+)\)$")
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|<[^>]*>|\S+')


class ScriptError(Exception):
    """A line that cannot be read: file, line and why."""


@dataclass(frozen=True)
class Segment:
    """One packet; numbers are as on the wire."""

    time_ns: int
    side: int
    flags: int
    seq: int
    ack: int
    window: int
    urgent: int
    options: bytes
    payload: bytes
    ports: tuple[int, int]
    ip: int
    bad_checksum: bool
    icmp: bytes = b""  # an ICMP error instead: type, code, zeros, and what it quotes


@dataclass(frozen=True)
class Expectation:
    """What is expected after packet number `packet`, or, with packet 0, at the end of flow `flow` (from 0)."""

    line: int
    words: list[str]
    packet: int = 0
    flow: int = 0


@dataclass
class Script:
    name: str
    options: dict[str, str] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)
    finals: list[Expectation] = field(default_factory=list)


def pattern(side: int, offset: int, length: int) -> bytes:
    """The default payload: the letter of each place in that side's stream."""
    first = ord("A") if side == SERVER else ord("a")
    return bytes(first + (offset + i) % 26 for i in range(length))


def quoted(word: str) -> bytes:
    """The bytes of a word in quotes; Python's escapes are understood."""
    return word[1:-1].encode("latin-1").decode("unicode_escape").encode("latin-1")


def split(text: str) -> list[str]:
    """The words of a line up to its comment; what is in quotes or angle brackets is one word."""
    words = []
    for word in _WORD.findall(text):
        if word.startswith("#"):
            break
        words.append(word)
    return words


def load(path: Path) -> Script:
    return parse(path.read_text(encoding="utf-8"), path.stem)


def parse(text: str, name: str = "script") -> Script:
    """Reads a script; ScriptError names the line that is wrong."""
    return _Parser(name).parse(text)


class _Parser:
    def __init__(self, name: str) -> None:
        self.script = Script(name)
        self.isn = [1000, 5000]
        self.ports = [40000, 80]
        self.ip = 4
        self.time_ns = START_NS
        self.flow = 0

    def parse(self, text: str) -> Script:
        for number, line in enumerate(text.splitlines(), 1):
            words = split(line)
            if not words:
                continue
            try:
                self._line(number, words)
            except (ValueError, IndexError, KeyError, TypeError) as error:
                raise ScriptError(f"{self.script.name}.flow:{number}: {line.strip()!r}: {error}") from error
        if not self.script.segments:
            raise ScriptError(f"{self.script.name}.flow: no segments")
        if not self.script.finals:
            raise ScriptError(f"{self.script.name}.flow: nothing is expected at the end")
        return self.script

    def _line(self, number: int, words: list[str]) -> None:
        head = words[0]
        if head == "option":
            self.script.options[words[1]] = words[2]
        elif head == "isn":
            self.isn[SIDES[words[1]]] = int(words[2])
        elif head == "port":
            self.ports[SIDES[words[1]]] = int(words[2])
        elif head == "ip":
            self.ip = int(words[1])
        elif head == "icmp":
            self.script.segments.append(self._icmp(words[1:]))
        elif head == "*":
            if not self.script.segments:
                raise ValueError("an expectation before the first segment")
            self.script.expectations.append(Expectation(number, words[1:], packet=len(self.script.segments)))
        elif head == "=" and words[1] == "flow":
            self.flow = int(words[2]) - 1
        elif head == "=":
            self.script.finals.append(Expectation(number, words[1:], flow=self.flow))
        else:
            self.script.segments.append(self._segment(words))

    def _icmp(self, words: list[str]) -> Segment:
        kind, code, about = int(words[0]), int(words[1]), int(words[3])
        segment = self.script.segments[about - 1]
        if words[2] != "of" or words[4:5] not in ([], ["+"]):
            raise ValueError("an ICMP error is written `icmp TYPE CODE of SEGMENT` or `… of SEGMENT + N`")
        self.time_ns += 1_000_000
        seq = (segment.seq + (int(words[5]) if len(words) > 4 else 0)) % 2**32
        quoted = packet(replace(segment, seq=seq), about)[: 28 if segment.ip == 4 else 48]
        error = struct.pack("!BBHI", kind, code, 0, 0) + quoted
        return replace(segment, time_ns=self.time_ns, icmp=error)

    def _segment(self, words: list[str]) -> Segment:
        match = _SEGMENT.fullmatch(" ".join(words))
        if not match:
            raise ValueError("not a segment, an expectation or a setting")
        time = match["time"]
        if time is None:
            self.time_ns += 1_000_000
        elif time.startswith("+"):
            self.time_ns += round(float(time[1:]) * 1e9)
        else:
            self.time_ns = START_NS + round(float(time) * 1e9)
        side = CLIENT if match["side"] == ">" else SERVER
        flags = sum(FLAGS[letter] for letter in set(match["flags"]))
        rest = split(match["rest"])
        seq, length = self._range(rest.pop(0))
        settings = {"ack": None, "win": 65535, "urg": 0, "rawack": 0}
        options, bad_checksum = b"", False
        payload = pattern(side, seq - 1 + (flags & 2) // 2, length)
        while rest:
            word = rest.pop(0)
            if word in settings:
                settings[word] = int(rest.pop(0))
            elif word == "bad":
                bad_checksum = rest.pop(0) == "checksum"
            elif word.startswith("<"):
                options = self._options(word[1:-1], side)
            elif word.startswith('"'):
                payload = quoted(word)
            elif word[1:2] == "*":
                payload = word[:1].encode() * int(word[2:])
            else:
                raise ValueError(f"what is {word!r}?")
        if len(payload) != length:
            raise ValueError(f"the payload has {len(payload)} bytes, not {length}")
        ack = settings["ack"]
        if (ack is not None) != bool(flags & 16):
            raise ValueError("`.` among the flags and `ack` go together")
        return Segment(
            time_ns=self.time_ns,
            side=side,
            flags=flags,
            seq=(self.isn[side] + seq) % 2**32,
            ack=settings["rawack"] or 0 if ack is None else (self.isn[1 - side] + ack) % 2**32,
            window=settings["win"] or 0,
            urgent=settings["urg"] or 0,
            options=options,
            payload=payload,
            ports=(self.ports[0], self.ports[1]),
            ip=self.ip,
            bad_checksum=bad_checksum,
        )

    @staticmethod
    def _range(word: str) -> tuple[int, int]:
        match = _RANGE.match(word)
        if not match:
            raise ValueError(f"{word!r} is no sequence number and length, as in 1(100) or 1:101(100)")
        seq, end, length = int(match[1]), match[2], int(match[3])
        if end is not None and int(end) != seq + length:
            raise ValueError(f"{word}: {seq} + {length} is {seq + length}")
        return seq, length

    def _options(self, text: str, side: int) -> bytes:
        packed = b"".join(self._option(option.split(), side) for option in text.split(",") if option.strip())
        packed += b"\x01" * (-len(packed) % 4)
        if len(packed) > 40:
            raise ValueError(f"{len(packed)} bytes of options; at most 40 fit")
        return packed

    def _option(self, words: list[str], side: int) -> bytes:
        name, values = words[0], words[1:]
        if name == "nop":
            return b"\x01"
        if name == "eol":
            return b"\x00"
        if name == "mss":
            return struct.pack("!BBH", 2, 4, int(values[0]))
        if name == "wscale":
            return struct.pack("!BBB", 3, 3, int(values[0]))
        if name == "sackok":
            return b"\x04\x02"
        if name == "sack":  # of the peer's stream
            edges = [int(edge) for block in values for edge in block.split(":")]
            return struct.pack(
                f"!BB{len(edges)}I", 5, 2 + 4 * len(edges), *((self.isn[1 - side] + e) % 2**32 for e in edges)
            )
        if name == "TS":
            return struct.pack("!BBII", 8, 10, int(values[1]) % 2**32, int(values[3]) % 2**32)
        if name == "tfo":
            cookie = bytes.fromhex(values[0]) if values else b""
            return bytes([34, 2 + len(cookie)]) + cookie
        if name == "hex":
            return bytes.fromhex(values[0])
        raise ValueError(f"unknown option {name!r}")


# ---- the capture ----

_ADDRESSES = {
    4: (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])),
    6: (bytes.fromhex("20010db8000000000000000000000001"), bytes.fromhex("20010db8000000000000000000000002")),
}
_ROUTER = {4: bytes([10, 0, 0, 254]), 6: bytes.fromhex("20010db80000000000000000000000fe")}


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def packet(segment: Segment, number: int) -> bytes:
    """The segment as an IP packet with right checksums, unless it asks for a wrong one."""
    addresses = _ADDRESSES[segment.ip]
    source, destination = addresses[segment.side], addresses[1 - segment.side]
    if segment.icmp:  # to the quoted packet's sender
        return _icmp_packet(segment, number, _ROUTER[segment.ip], source)
    sport, dport = segment.ports[segment.side], segment.ports[1 - segment.side]
    words = (5 + len(segment.options) // 4) << 4
    header = struct.pack(
        "!HHIIBBHHH", sport, dport, segment.seq, segment.ack, words, segment.flags, segment.window, 0, segment.urgent
    )
    tcp = header + segment.options + segment.payload
    total = checksum(source + destination + struct.pack("!II", len(tcp), 6) + tcp)
    if segment.bad_checksum:
        total ^= 0x5555
    return _ip(segment.ip, number, 6, source, destination, tcp[:16] + struct.pack("!H", total) + tcp[18:])


def _icmp_packet(segment: Segment, number: int, source: bytes, destination: bytes) -> bytes:
    error, proto = segment.icmp, 1 if segment.ip == 4 else 58
    pseudo = b"" if segment.ip == 4 else source + destination + struct.pack("!II", len(error), proto)
    error = error[:2] + struct.pack("!H", checksum(pseudo + error)) + error[4:]
    return _ip(segment.ip, number, proto, source, destination, error)


def _ip(version: int, number: int, proto: int, source: bytes, destination: bytes, data: bytes) -> bytes:
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, len(data), proto, 64) + source + destination + data
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), number & 0xFFFF, 0x4000, 64, proto, 0) + source + destination
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + data


def capture(script: Script) -> bytes:
    """The segments as a pcap file with nanoseconds, link type RAW."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, LINKTYPE_RAW)]
    for number, segment in enumerate(script.segments, 1):
        data = packet(segment, number)
        seconds, rest = divmod(segment.time_ns, 1_000_000_000)
        parts.append(struct.pack("<IIII", seconds, rest, len(data), len(data)) + data)
    return b"".join(parts)
