"""Shows each packet of one flow: what it was, what the engine made of it, both ends' states after it (`--explain`)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from shardmos.errors import UsageError
from shardmos.events import (
    ANOMALY,
    CLIENT,
    CONN_END,
    CONN_SETUP,
    CONN_START,
    ERROR,
    GAP,
    NEW_DATA,
    PKT_IN,
    REXMIT,
    TCP_STATE_CHANGE,
    Hook,
)
from shardmos.flow import Flow
from shardmos.middlebox import Gap, Middlebox, on

_SYN = 2
_NAMES = ("client", "server")
_HEADER = (
    f"{'packet':>8} {'time':>13} {'':3} {'flags':<8} {'seq':>10} {'ack':>10} {'len':>6}  "
    f"{'client':<12} {'server':<12} events"
)


class Endpoints(NamedTuple):
    """Two endpoints, in either order."""

    a: tuple[str, int]
    b: tuple[str, int]

    def match(self, flow: Any) -> bool:
        ends = ((flow.client, flow.client_port), (flow.server, flow.server_port))
        return ends in ((self.a, self.b), (self.b, self.a))

    def filter(self) -> str:
        """Flows between the two hosts, in pcap syntax."""
        return f"host {self.a[0]} and host {self.b[0]}"


def parse_flow(text: str) -> Endpoints | int:
    """What `--explain` names: "addr:port-addr:port" in either order, or "#N", the N-th row of the flows."""
    if match := re.fullmatch(r"#?([1-9][0-9]{0,17})", text.strip()):
        return int(match[1])
    ends = text.strip().split("-")
    if len(ends) != 2:
        raise UsageError(f"--explain {text!r}: give ADDRESS:PORT-ADDRESS:PORT, or #N for the N-th row")
    return Endpoints(_endpoint(ends[0], text), _endpoint(ends[1], text))


def _endpoint(text: str, whole: str) -> tuple[str, int]:
    address, colon, port = text.strip().rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError
        return str(ipaddress.ip_address(address)), int(port)
    except ValueError:
        raise UsageError(f"--explain {whole!r}: {text!r} is no ADDRESS:PORT") from None


class Explain(Middlebox):
    """Writes lines about every flow that is meant, as its packets pass."""

    name = "explain"

    class State:
        __slots__ = ("base", "meant", "number", "packet", "states", "what")

        def __init__(self) -> None:
            self.meant: bool | None = None
            self.base: list[int | None] = [None, None]
            self.number = 0  # of the packet being told
            self.packet: list[str] = []
            self.what: list[str] = []
            self.states = ("", "")

    def __init__(
        self, endpoints: Endpoints, write: Callable[[str], None], only: Callable[[Flow], bool] | None = None
    ) -> None:
        super().__init__()
        self.filter = endpoints.filter()
        self.found = 0
        self._endpoints = endpoints
        self._write = write
        self._only = only

    def _meant(self, flow: Any) -> bool:
        state = flow.state
        if state.meant is None:
            info = flow.info
            state.meant = self._endpoints.match(info) and (self._only is None or self._only(info))
            if state.meant:
                self.found += 1
                where = "".join(f", VLAN {tag}" for tag in info.vlan)
                where += f", in {info.tunnel['kind']} {info.tunnel['id']}" if info.tunnel else ""
                self._write(f"{info.proto} {info.client_endpoint} > {info.server_endpoint}{where}, from {info.start}")
                self._write(_HEADER)
        return bool(state.meant)

    def _tell(self, flow: Any, what: str) -> None:
        """Notes an event of the current packet; the first event of a new packet writes out the last one."""
        if not self._meant(flow):
            return
        packet = flow.packet
        state = flow.state
        number = packet.number if packet is not None else 0
        if number != state.number or packet is None:
            self._flush(state)
            state.number = number
            state.packet = self._describe(flow, packet)
        if what:
            state.what.append(what)
        states = flow.info.tcp_state
        state.states = (states[0] or "-", states[1] or "-")

    def _describe(self, flow: Any, packet: Any) -> list[str]:
        begin = (flow._tuple()).start_ns
        if packet is None:
            return ["", f"{(flow.time_ns - begin) / 1e9:.6f}", "", "", "", "", ""]
        sender = int(packet.sender)
        line = [str(packet.number), f"{(packet.time_ns - begin) / 1e9:.6f}", ">" if sender == CLIENT else "<"]
        if flow._tuple().proto != "tcp":
            return [*line, "", "", "", str(packet.payload_len)]
        base = flow.state.base
        # Numbers count from the SYN, or midstream so that the first byte seen is 1, as Wireshark's do.
        if packet.tcp_flags & _SYN or base[sender] is None:
            base[sender] = packet.seq if packet.tcp_flags & _SYN else packet.seq - 1
        ack = ""
        if packet.tcp_flags & 0x10:
            if base[1 - sender] is None:
                base[1 - sender] = packet.ack - 1
            ack = str(_distance(packet.ack, base[1 - sender]))
        return [*line, packet.flags, str(_distance(packet.seq, base[sender])), ack, str(packet.payload_len)]

    def _flush(self, state: Any) -> None:
        if state.packet:
            number, time, direction, flags, seq, ack, length = state.packet
            self._write(
                f"{number:>8} {time:>13} {direction:>3} {flags:<8} {seq:>10} {ack:>10} {length:>6}  "
                f"{state.states[0]:<12} {state.states[1]:<12} {', '.join(state.what)}".rstrip()
            )
        state.packet, state.what = [], []

    @on(PKT_IN, hook=Hook.BOTH)
    def packet(self, flow: Any) -> None:
        self._tell(flow, "")

    @on(CONN_START)
    def start(self, flow: Any) -> None:
        self._tell(flow, "CONN_START" + (" midstream" if flow.info.midstream else ""))

    @on(CONN_SETUP)
    def setup(self, flow: Any) -> None:
        self._tell(flow, "CONN_SETUP")

    @on(NEW_DATA)
    def data(self, flow: Any, data: memoryview) -> None:
        self._tell(flow, f"NEW_DATA to {_NAMES[flow.side]} {flow.offset}+{len(data)}")

    @on(REXMIT)
    def rexmit(self, flow: Any) -> None:
        self._tell(flow, "REXMIT")

    @on(TCP_STATE_CHANGE)
    def change(self, flow: Any, state: Any) -> None:
        self._tell(flow, f"{_NAMES[flow.side]} {state.name}")

    @on(GAP)
    def gap(self, flow: Any, gap: Gap) -> None:
        self._tell(flow, f"GAP to {_NAMES[flow.side]} {gap.offset}+{gap.length}")

    @on(ANOMALY)
    def anomaly(self, flow: Any, anomaly: str) -> None:
        if flow is not None:
            self._tell(flow, f"ANOMALY {anomaly}")

    @on(ERROR)
    def error(self, flow: Any, error: str) -> None:
        if flow is not None:
            self._tell(flow, f"ERROR {error}")

    @on(CONN_END)
    def end(self, flow: Any, reason: str) -> None:
        if not self._meant(flow):
            return
        self._flush(flow.state)
        info = flow.info
        self._write(
            f"CONN_END {reason}: packets {_pair(info.packets)}, payload {_pair(info.payload_bytes)}, delivered "
            f"{_pair(info.stream_bytes)}, missing {_pair(info.missing_bytes)}, "
            f"{info.conn_state or '-'} {info.history}".rstrip()
        )
        self._write("")


def _distance(number: int, base: int) -> int:
    """Signed distance in sequence space."""
    return ((number - base + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def _pair(pair: tuple[int, int]) -> str:
    return f"{pair[0]} > {pair[1]} <"
