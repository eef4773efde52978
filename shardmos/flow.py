"""One flow of a capture, as a typed view of the record that the engine writes when it ends.

A record is an `smos_flow_info_t` (shardmos.h): 296 bytes of fixed layout. A `Flow` keeps those bytes and decodes a
field when it is asked for, so that making one costs a fraction of a microsecond. Pairs are `(client, server)`, each
counting what that end sent.
"""

from __future__ import annotations

import json
import socket
import struct
from functools import lru_cache
from typing import Any, NamedTuple

from shardmos.events import end_reason_text, state_text

RECORD_SIZE = 296
_SIDE = "6Q6IHBBB3x"
_RECORD = struct.Struct(f"=Q16s16sHHBBHIIqq{_SIDE}{_SIDE}8s40sHHIBBBBI")
_PROTO_AT = 44
_SIDE_AT, _SIDE_SIZE = 72, 80
_U64 = struct.Struct("=Q").unpack_from
_I64 = struct.Struct("=q").unpack_from
_U32 = struct.Struct("=I").unpack_from
_U16 = struct.Struct("=H").unpack_from

_PROTO_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_TUNNEL_NAMES = {
    1: "ipip", 2: "gre", 3: "vxlan", 4: "geneve", 5: "gtpu", 6: "erspan", 7: "teredo", 8: "pppoe", 9: "mpls",
}  # fmt: skip
_MAPPED = b"\0" * 10 + b"\xff\xff"


class Run(NamedTuple):
    """A contiguous run of delivered bytes: where it begins in the stream, its length, and its hash."""

    offset: int
    length: int
    sha256: str


@lru_cache(maxsize=65536)
def address_text(address: bytes, version: int = 4) -> str:
    """16 bytes in network order as text; what an IPv4 packet carried (::ffff:a.b.c.d) as IPv4."""
    if version != 6 and address[:12] == _MAPPED:
        return socket.inet_ntoa(address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def seconds_text(nanoseconds: int) -> str:
    """Epoch seconds with nine decimals, exactly."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{sign}{seconds}.{rest:09d}"


def endpoint_text(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def proto_text(number: int) -> str:
    return _PROTO_NAMES.get(number) or str(number)


class Flow:
    """A flow of a capture. Every key of the JSON contract is a property of the same name."""

    __slots__ = ("_hashes", "_record")

    def __init__(self, record: bytes, hashes: Any = None) -> None:
        """`record` is RECORD_SIZE bytes; `hashes` is (sha256 pair, ranges pair) where hashes were asked for."""
        self._record = record
        self._hashes = hashes

    @property
    def handle(self) -> int:
        """The engine's handle of the flow: unique in its worker while the capture is read."""
        return int(_U64(self._record, 0)[0])

    @property
    def proto_number(self) -> int:
        return self._record[_PROTO_AT]

    @property
    def proto(self) -> str:
        """`tcp`, `udp`, `icmp`, `icmp6`, or the IP protocol's number as text."""
        return proto_text(self._record[_PROTO_AT])

    @property
    def version(self) -> int:
        """4 or 6."""
        return self._record[45]

    @property
    def client(self) -> str:
        """The client's address as text."""
        return address_text(self._record[8:24], self._record[45])

    @property
    def client_port(self) -> int:
        return int(_U16(self._record, 40)[0])

    @property
    def server(self) -> str:
        """The server's address as text."""
        return address_text(self._record[24:40], self._record[45])

    @property
    def server_port(self) -> int:
        return int(_U16(self._record, 42)[0])

    @property
    def client_endpoint(self) -> str:
        """Address and port, as in `10.0.0.1:80` or `[::1]:80`."""
        return endpoint_text(self.client, self.client_port)

    @property
    def server_endpoint(self) -> str:
        return endpoint_text(self.server, self.server_port)

    @property
    def start_ns(self) -> int:
        """Time of the first packet in nanoseconds since the epoch."""
        return int(_I64(self._record, 56)[0])

    @property
    def end_ns(self) -> int:
        """Time of the last packet in nanoseconds since the epoch."""
        return int(_I64(self._record, 64)[0])

    @property
    def start(self) -> str:
        """Epoch seconds with nine decimals, as text: a float would lose the nanoseconds. See `start_ns`."""
        return seconds_text(self.start_ns)

    @property
    def end(self) -> str:
        return seconds_text(self.end_ns)

    @property
    def duration(self) -> float:
        """Seconds from the first packet to the last."""
        return (self.end_ns - self.start_ns) / 1e9

    def _pair64(self, offset: int) -> tuple[int, int]:
        record = self._record
        return _U64(record, _SIDE_AT + offset)[0], _U64(record, _SIDE_AT + _SIDE_SIZE + offset)[0]

    def _pair32(self, offset: int) -> tuple[int, int]:
        record = self._record
        return _U32(record, _SIDE_AT + offset)[0], _U32(record, _SIDE_AT + _SIDE_SIZE + offset)[0]

    @property
    def packets(self) -> tuple[int, int]:
        return self._pair64(0)

    @property
    def payload_bytes(self) -> tuple[int, int]:
        """Transport payload by the headers, retransmissions included."""
        return self._pair64(8)

    @property
    def wire_bytes(self) -> tuple[int, int]:
        """Bytes of the frames."""
        return self._pair64(16)

    @property
    def stream_bytes(self) -> tuple[int, int]:
        """Bytes delivered in order."""
        return self._pair64(24)

    @property
    def stream_span(self) -> tuple[int, int]:
        """Distance in sequence space (Zeek's orig_bytes and resp_bytes)."""
        return self._pair64(32)

    @property
    def missing_bytes(self) -> tuple[int, int]:
        return self._pair64(40)

    @property
    def retransmits(self) -> tuple[int, int]:
        return self._pair32(48)

    @property
    def out_of_order(self) -> tuple[int, int]:
        return self._pair32(52)

    @property
    def overlaps_conflicting(self) -> tuple[int, int]:
        """Segments that carried other bytes for a place that had been sent before."""
        return self._pair32(56)

    @property
    def zero_window_ms(self) -> tuple[int, int]:
        return self._pair32(60)

    @property
    def rtt_handshake_us(self) -> tuple[int, int]:
        """From this end's SYN or SYN/ACK to its acknowledgement; 0 unknown."""
        return self._pair32(64)

    @property
    def rtt_min_us(self) -> tuple[int, int]:
        """The least round trip of data; 0 unknown."""
        return self._pair32(68)

    @property
    def mss(self) -> tuple[int, int]:
        """As announced; 0 if not."""
        return _U16(self._record, _SIDE_AT + 72)[0], _U16(self._record, _SIDE_AT + _SIDE_SIZE + 72)[0]

    @property
    def wscale(self) -> tuple[int | None, int | None]:
        """The window's shift as announced; None if not."""
        client, server = self._record[_SIDE_AT + 74], self._record[_SIDE_AT + _SIDE_SIZE + 74]
        return None if client == 255 else client, None if server == 255 else server

    @property
    def tcp_state(self) -> tuple[str | None, str | None]:
        """Both ends' last state by its RFC 9293 name; None for what is not TCP."""
        record = self._record
        if record[_PROTO_AT] != 6:
            return None, None
        return state_text(record[_SIDE_AT + 75]), state_text(record[_SIDE_AT + _SIDE_SIZE + 75])

    @property
    def conn_state(self) -> str | None:
        """As in Zeek's conn.log; None where Zeek has none."""
        return _text(self._record[232:240]) or None

    @property
    def history(self) -> str:
        """As in Zeek's conn.log; cut at the end if longer than 39 letters."""
        return _text(self._record[240:280])

    @property
    def end_reason(self) -> str | None:
        """`fin, rst, idle, evicted, capture_end` or `stopped`; None while the flow lives."""
        return end_reason_text(self._record[289])

    @property
    def midstream(self) -> bool:
        """No SYN was seen."""
        return bool(self._record[290])

    @property
    def vlan(self) -> list[int]:
        """VLAN ids of the first packet, outermost first."""
        record = self._record
        return [tag for tag in (_U16(record, 280)[0], _U16(record, 282)[0]) if tag]

    @property
    def tunnel(self) -> dict[str, Any] | None:
        """`{"kind": "vxlan", "id": 42}` for a flow inside a tunnel, else None."""
        kind = self._record[288]
        return _tunnel(kind, _U32(self._record, 284)[0])

    @property
    def anomalies(self) -> int:
        """How many anomalies were raised on the flow."""
        return int(_U32(self._record, 292)[0])

    @property
    def sha256(self) -> tuple[str | None, str | None] | None:
        """Hash of what each end's stream delivered, None where it delivered nothing; None without `hash="sha256"`."""
        if not self._hashes:
            return None
        client, server = self._hashes[0]
        return client, server

    @property
    def ranges(self) -> tuple[list[Run] | None, list[Run] | None] | None:
        """Up to 64 contiguous delivered runs of each end's stream; None like `sha256`."""
        if not self._hashes:
            return None
        client, server = ([Run(*run) for run in runs] if runs else None for runs in self._hashes[1])
        return client, server

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract's object: `json.dumps(flow.to_dict())` is a line of `shardmos flows --json`."""
        result: dict[str, Any] = json.loads(self.to_json())
        return result

    def to_json(self) -> str:
        """The JSON contract's object as text, without a line's end."""
        # Written out by hand: it is three times as fast as json.dumps, and nothing in it needs escaping.
        (
            _, client, server, client_port, server_port, proto, version, _, _, _, start, end,
            c_packets, c_payload, c_wire, c_stream, c_span, c_missing, c_rexmit, c_disorder, c_conflict,
            _, _, _, _, _, c_state, _,
            s_packets, s_payload, s_wire, s_stream, s_span, s_missing, s_rexmit, s_disorder, s_conflict,
            _, _, _, _, _, s_state, _,
            conn_state, history, vlan0, vlan1, tunnel_id, tunnel, reason, midstream, _, _,
        ) = _RECORD.unpack(self._record)  # fmt: skip
        state = _text(conn_state)
        reason_text = end_reason_text(reason)
        tcp = f'["{state_text(c_state)}", "{state_text(s_state)}"]' if proto == 6 else "[null, null]"
        line = (
            f'{{"proto": "{proto_text(proto)}", "client": "{address_text(client, version)}", '
            f'"client_port": {client_port}, '
            f'"server": "{address_text(server, version)}", "server_port": {server_port}, '
            f'"start": "{seconds_text(start)}", "end": "{seconds_text(end)}", "packets": [{c_packets}, {s_packets}], '
            f'"payload_bytes": [{c_payload}, {s_payload}], "wire_bytes": [{c_wire}, {s_wire}], '
            f'"stream_bytes": [{c_stream}, {s_stream}], "stream_span": [{c_span}, {s_span}], '
            f'"missing_bytes": [{c_missing}, {s_missing}], "retransmits": [{c_rexmit}, {s_rexmit}], '
            f'"out_of_order": [{c_disorder}, {s_disorder}], "overlaps_conflicting": [{c_conflict}, {s_conflict}], '
            f'"tcp_state": {tcp}, "conn_state": {_quoted(state)}, "history": "{_text(history)}", '
            f'"end_reason": {_quoted(reason_text)}, "midstream": {"true" if midstream else "false"}, '
            f'"vlan": {[tag for tag in (vlan0, vlan1) if tag]}, "tunnel": {json.dumps(_tunnel(tunnel, tunnel_id))}'
        )
        if self._hashes:
            line += f', "sha256": {json.dumps(self._hashes[0])}, "ranges": {json.dumps(self._hashes[1])}'
        return line + "}"

    def __repr__(self) -> str:
        c_packets, s_packets = self.packets
        return (
            f"<Flow {self.proto} {self.client_endpoint} > {self.server_endpoint} "
            f"packets={c_packets}+{s_packets} {self.conn_state or '-'} {self.end_reason or 'alive'}>"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Flow):
            return NotImplemented
        return self._record == other._record and self._hashes == other._hashes

    def __hash__(self) -> int:
        return hash(self._record)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", "replace")


def _quoted(text: str | None) -> str:
    return f'"{text}"' if text else "null"


def _tunnel(kind: int, identifier: int) -> dict[str, Any] | None:
    return {"kind": _TUNNEL_NAMES.get(kind, str(kind)), "id": identifier} if kind else None


def split_records(data: bytes) -> list[bytes]:
    """The records of a batch, each as bytes of its own, so that a kept flow does not keep its batch."""
    return [data[at : at + RECORD_SIZE] for at in range(0, len(data), RECORD_SIZE)]
