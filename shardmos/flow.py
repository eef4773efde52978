"""One flow of a capture, as a typed view of the record that the engine writes when it ends.

A record is an `smos_flow_info_t` (shardmos.h): 296 bytes of fixed layout. A `Flow` keeps those bytes and makes a
field when it is asked for, so that a flow costs a fraction of a microsecond. Pairs are `(client, server)`, each
counting what that end sent.
"""

from __future__ import annotations

import json
import socket
import struct
from functools import lru_cache
from typing import Any, NamedTuple

from shardmos._record import Batch, FlowRecord, split
from shardmos.events import end_reason_text, state_text

RECORD_SIZE = 296
_SIDE = "6Q6IHBBB3x"
_RECORD = struct.Struct(f"=Q16s16sHHBBHIIqq{_SIDE}{_SIDE}8s40sHHIBBBBI")
_SIDE_AT, _SIDE_SIZE = 72, 80
_U32 = struct.Struct("=I").unpack_from
_U16 = struct.Struct("=H").unpack_from

_PROTO_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_TUNNEL_NAMES = {
    1: "ipip", 2: "gre", 3: "vxlan", 4: "geneve", 5: "gtpu", 6: "erspan", 7: "teredo", 8: "pppoe", 9: "mpls",
    10: "l2tp",
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


class Flow(FlowRecord):
    """A flow of a capture. Every key of the JSON contract is a property of the same name.

    `Flow(record, hashes)`: RECORD_SIZE bytes, and (sha256 pair, ranges pair) where hashes were asked for. What a record
    holds as it is comes from FlowRecord, in C; here is what is derived from it.
    """

    __slots__ = ()

    @property
    def proto(self) -> str:
        """`tcp`, `udp`, `icmp`, `icmp6`, or the IP protocol's number as text."""
        return proto_text(self.proto_number)

    @property
    def client_endpoint(self) -> str:
        """Address and port, as in `10.0.0.1:80` or `[::1]:80`."""
        return endpoint_text(self.client, self.client_port)

    @property
    def server_endpoint(self) -> str:
        return endpoint_text(self.server, self.server_port)

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

    @property
    def wscale(self) -> tuple[int | None, int | None]:
        """The window's shift as announced; None if not."""
        client, server = self._record[_SIDE_AT + 74], self._record[_SIDE_AT + _SIDE_SIZE + 74]
        return None if client == 255 else client, None if server == 255 else server

    @property
    def tcp_state(self) -> tuple[str | None, str | None]:
        """Both ends' last state by its RFC 9293 name; None for what is not TCP."""
        record = self._record
        if self.proto_number != 6:
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

    def __reduce__(self) -> tuple[type[Flow], tuple[bytes, Any]]:
        return Flow, (self._record, self._hashes)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", "replace")


def _quoted(text: str | None) -> str:
    return f'"{text}"' if text else "null"


def _tunnel(kind: int, identifier: int) -> dict[str, Any] | None:
    return {"kind": _TUNNEL_NAMES.get(kind, str(kind)), "id": identifier} if kind else None


def make_flows(records: bytes) -> Batch[Flow]:
    """The flows of a batch of records, each made when the loop comes to it."""
    return split(Flow, records)


def split_records(data: bytes) -> list[bytes]:
    """The records of a batch, each as bytes of its own, so that a kept flow does not keep its batch."""
    return [data[at : at + RECORD_SIZE] for at in range(0, len(data), RECORD_SIZE)]
