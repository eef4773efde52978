"""What handlers get: the flow that passes, and the packet that is being handled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardmos.errors import ModuleError, ShardmosError
from shardmos.events import Hook, Side
from shardmos.flow import Flow
from shardmos.workers.binding import ffi

if TYPE_CHECKING:
    from shardmos.workers.host import Host

_NULL = ffi.NULL


class LiveFlow:
    """A flow while it passes: what handlers get. The same object for every event of the flow.

    `side`, `hook`, `offset` and `time_ns` are those of the event being handled. After the flow's end `info` stays at
    its last value.
    """

    __slots__ = ("_ends", "_host", "_last", "handle", "state")
    state: Any

    def __init__(self, host: Host, handle: int) -> None:
        self._host = host
        self.handle = handle
        self._last: Flow | None = None
        self._ends = 0

    def __getattr__(self, name: str) -> Any:
        # Only reached while `state` is unset: it is made when it is first asked for.
        if name == "state":
            self.state = state = self._host.make_state()
            return state
        raise AttributeError(f"a flow has no {name!r}; its counters are in flow.info")

    @property
    def info(self) -> Flow:
        """The flow as it is now: counters, states, history, with the names of `shardmos.Flow`."""
        if self._ends != 3:
            record = self._host.shard.flow_info(self.handle)
            if record is not None:
                self._last = Flow(record)
        if self._last is None:
            raise ModuleError("the flow has ended, and nothing of it was kept")
        return self._last

    def _tuple(self) -> Flow:
        return self._last or self.info

    @property
    def client(self) -> str:
        """The client's address as text."""
        return self._tuple().client

    @property
    def client_port(self) -> int:
        return self._tuple().client_port

    @property
    def server(self) -> str:
        """The server's address as text."""
        return self._tuple().server

    @property
    def server_port(self) -> int:
        return self._tuple().server_port

    @property
    def client_endpoint(self) -> str:
        return self._tuple().client_endpoint

    @property
    def server_endpoint(self) -> str:
        return self._tuple().server_endpoint

    @property
    def proto(self) -> str:
        return self._tuple().proto

    @property
    def side(self) -> Side:
        """The event's side."""
        return Side(self._host.current().side)

    @property
    def hook(self) -> Hook:
        """The event's hook."""
        return Hook(self._host.current().hook)

    @property
    def offset(self) -> int:
        """NEW_DATA and GAP: the first byte's place in its stream, 0 being the byte after the SYN."""
        return int(self._host.current().offset)

    @property
    def time_ns(self) -> int:
        """The event's time in nanoseconds since the epoch."""
        return int(self._host.current().time_ns)

    @property
    def existing(self) -> bool:
        """The flow was there before the middlebox was pushed."""
        return bool(self._host.current().existing)

    @property
    def packet(self) -> Packet | None:
        """The packet that caused the event, None where none did."""
        return self._host.packet if self._host.current().packet != _NULL else None

    def drop(self) -> None:
        """Drops the current packet; in NEW_DATA also every later copy of those bytes."""
        self._host.shard.drop()

    def reset(self) -> bool:
        """Ends the flow: RSTs to both ends on an inline port. False if it had ended."""
        return self._host.shard.reset(self.handle)

    def stop(self, side: int = Side.BOTH) -> bool:
        """This middlebox gets no more events of that side (BOTH: none but CONN_END). False if it had ended."""
        return self._host.shard.stop(self.handle, int(side))

    def __repr__(self) -> str:
        try:
            return f"<LiveFlow {self.proto} {self.client_endpoint} > {self.server_endpoint}>"
        except ShardmosError:
            return f"<LiveFlow {self.handle:#x}>"


class Packet:
    """The packet being handled, valid during the handler's call; what is read afterwards raises ShardmosError."""

    __slots__ = ("_host",)

    def __init__(self, host: Host) -> None:
        self._host = host

    def _packet(self) -> Any:
        packet = self._host.current().packet
        if packet == _NULL:
            raise ModuleError("no packet caused this event")
        return packet

    @property
    def frame(self) -> bytes:
        """The captured bytes of the frame."""
        packet = self._packet()
        return bytes(ffi.buffer(packet.frame, packet.caplen))

    @property
    def payload(self) -> bytes:
        """The captured transport payload."""
        packet = self._packet()
        if packet.payload == _NULL:
            return b""
        return bytes(ffi.buffer(packet.payload, packet.payload_captured))

    @property
    def payload_len(self) -> int:
        """Bytes of payload by the headers."""
        return int(self._packet().payload_len)

    @property
    def caplen(self) -> int:
        return int(self._packet().caplen)

    @property
    def len(self) -> int:
        """Bytes of the frame on the wire."""
        return int(self._packet().len)

    @property
    def ip_len(self) -> int:
        return int(self._packet().ip_len)

    @property
    def time_ns(self) -> int:
        return int(self._packet().time_ns)

    @property
    def number(self) -> int:
        """Of the packet at its port, from 1."""
        return int(self._packet().number)

    @property
    def sender(self) -> Side:
        return Side(getattr(self._packet(), "from"))

    @property
    def seq(self) -> int:
        return int(self._packet().seq)

    @property
    def ack(self) -> int:
        return int(self._packet().ack)

    @property
    def window(self) -> int:
        """As on the wire, not scaled."""
        return int(self._packet().window)

    @property
    def tcp_flags(self) -> int:
        """CWR ECE URG ACK PSH RST SYN FIN, from bit 7 to bit 0."""
        return int(self._packet().tcp_flags)

    @property
    def flags(self) -> str:
        """The flags' initials, as in "SA" for a SYN/ACK."""
        return flags_text(self._packet().tcp_flags)


def flags_text(flags: int) -> str:
    return "".join(letter for bit, letter in enumerate("FSRPAUEC") if flags >> bit & 1)
