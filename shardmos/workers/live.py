"""What handlers get: the flow that passes, and the packet that is being handled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardmos.errors import ModuleError, ShardmosError
from shardmos.events import Hook, Side
from shardmos.flow import Flow
from shardmos.middlebox import check_side
from shardmos.workers.binding import ffi

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardmos.events import Event
    from shardmos.sockets import BufferInfo, Peek
    from shardmos.user_events import UserEvent
    from shardmos.workers.host import Host
    from shardmos.workers.timers import Timer
    from shardmos.workers.watcher import Watcher

_NULL = ffi.NULL
_BASES = ("frame", "ip", "l4", "payload")
ACK, PSH = 0x10, 0x08


def _count(value: int) -> int:
    return _number(value, "a place in a packet", 32)


def _number(value: int, what: str, bits: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise ModuleError(f"{what} is a whole number of {bits} bits, from 0 on, not {value!r}")
    return value


def _memory(data: bytes | bytearray | memoryview, what: str) -> Any:
    """What the engine reads `data` from."""
    try:
        return ffi.from_buffer(data)
    except (TypeError, ValueError, BufferError):
        raise ModuleError(f"{what} wants bytes in one piece, not {type(data).__name__}") from None


class LiveFlow:
    """A flow while it passes: what handlers get. The same object for every event of the flow.

    `side`, `hook`, `offset`, `length` and `time_ns` are those of the event being handled. After the flow's end `info`
    stays at its last value.
    """

    __slots__ = ("_ends", "_host", "_last", "_watcher", "handle", "state")
    state: Any

    def __init__(self, watcher: Watcher, handle: int) -> None:
        self._watcher = watcher
        self._host = watcher.host
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
    def length(self) -> int:
        """Bytes of the NEW_DATA or GAP being handled; of ERROR "unread": how many were lost."""
        return int(self._host.current().length)

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

    def inject(
        self,
        to: Side | int,
        payload: bytes = b"",
        *,
        flags: int = ACK | PSH,
        seq: int | None = None,
        ack: int | None = None,
        window: int = 0,
        urgent: int = 0,
    ) -> None:
        """Sends a packet of our own to one end, as if from the other. TCP: with the numbers that the ends expect,
        unless `seq` and `ack` are given as the receiver counts; bytes shift what the apparent sender sends later.
        `flags` as in Packet.tcp_flags; window 0 is what that end advertised last. ModuleError where the port cannot
        send."""
        packet = ffi.new("smos_injection_t *")
        memory = _memory(payload, "inject()")
        packet.to, packet.tcp_flags = int(check_side(to)), _number(flags, "flags", 8)
        packet.window, packet.urgent = _number(window, "window", 16), _number(urgent, "urgent", 16)
        packet.payload, packet.length = memory, len(memory)
        if seq is not None or ack is not None:
            packet.set_seq = 1
            packet.seq, packet.ack = _number(seq or 0, "seq", 32), _number(ack or 0, "ack", 32)
        self._host.edit("inject", self.handle, packet)

    def reset(self) -> bool:
        """Ends the flow: RSTs to both ends on an inline port. False if it had ended."""
        return self._host.shard.reset(self.handle)

    def stop(self, side: int = Side.BOTH) -> bool:
        """This socket gets no more events of that side (BOTH: none but CONN_END). False if the flow had ended."""
        if self._host.shard.flow_info(self.handle) is None:
            return False
        self._watcher.stop(self.handle, check_side(side))
        return True

    # ---- the flow's own registrations and options ----

    def register(
        self,
        event: Event | UserEvent | int,
        callback: Callable[..., Any],
        *,
        side: Side | int | None = None,
        hook: Hook | int | None = None,
    ) -> None:
        """Calls callback(flow) or callback(flow, what) at the event, for this flow only, from its next event on."""
        from shardmos.sockets import register

        register(self._watcher, self.handle, event, callback, side, hook)

    def unregister(self, event: Event | UserEvent | int, callback: Callable[..., Any] | None = None) -> None:
        """Undoes it, or what the flow began with; without `callback` every handler of that event."""
        from shardmos.sockets import unregister

        unregister(self._watcher, self.handle, event, callback)

    def set(
        self,
        *,
        history: int | None = None,
        buffer: int | None = None,
        overlap: str | None = None,
        side: Side | int = Side.BOTH,
    ) -> None:
        """Options of this flow, as Socket.set()."""
        from shardmos.sockets import set_options

        set_options(self._watcher, self.handle, history, buffer, overlap, check_side(side))

    def leave(self) -> None:
        """The socket does not watch this flow any more."""
        self._watcher.close(self.handle)

    def timer(self, delay: float, callback: Callable[[LiveFlow], Any], period: float | None = None) -> Timer:
        """Calls callback(flow) in `delay` seconds of packet time, then every `period`; it ends with the flow."""
        return self._host.timers.set(delay, callback, period, self._watcher, self)

    def raise_event(self, event: UserEvent) -> None:
        """In the filter of a user-defined event: this outcome of it happened."""
        self._host.raise_event(event)

    # ---- reading its streams; `side` is the receiving end: SERVER is what the client sent ----

    def peek(self, side: Side | int, size: int = 65536) -> Peek:
        """The next unread bytes, at most `size`, as (data, lost); this socket's cursor moves over them.

        b"" if nothing is unread. Needs `history`; bytes that it gave up, or that never came, are counted in `lost`.
        """
        from shardmos.sockets import Peek

        return Peek(*self._watcher.peek(self.handle, check_side(side), size))

    def peek_at(self, side: Side | int, offset: int, size: int = 65536) -> bytes:
        """Bytes from `offset` on, out-of-order ones too, up to the first that is absent; moves nothing."""
        return self._watcher.peek_at(self.handle, check_side(side), offset, size)

    def buffered(self, side: Side | int) -> list[tuple[int, int]]:
        """The contiguous stretches that can be read now, as (start, end), lowest first."""
        return self._watcher.buffered(self.handle, check_side(side))

    def buffer_info(self, side: Side | int) -> BufferInfo:
        from shardmos.sockets import BufferInfo

        info = self._watcher.buffer_info(self.handle, check_side(side))
        return BufferInfo(*(int(getattr(info, name)) for name in BufferInfo._fields))

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

    def _view(self, start: Any, length: int) -> memoryview:
        memory = ffi.buffer(start, length)
        view = memoryview(memory).toreadonly()
        self._host.calls.views.append((memory, view))
        return view

    @property
    def frame(self) -> memoryview:
        """The captured bytes of the frame; bytes(frame) to keep or search them."""
        packet = self._packet()
        return self._view(packet.frame, packet.caplen)

    @property
    def payload(self) -> memoryview:
        """The captured transport payload; bytes(payload) to keep or search it."""
        packet = self._packet()
        if packet.payload == _NULL:
            return self._view(packet.frame, 0)
        return self._view(packet.payload, packet.payload_captured)

    @property
    def ip(self) -> memoryview:
        """From the IP header that belongs to the flow on: to the frame's end, or of a reassembled datagram to the
        payload's, which is somewhere else in memory."""
        packet = self._packet()
        if packet.ip == _NULL:
            return self._view(packet.frame, 0)
        before = packet.ip - packet.frame
        if 0 <= before <= packet.caplen:
            return self._view(packet.ip, packet.caplen - before)
        if packet.payload != _NULL:
            return self._view(packet.ip, packet.payload - packet.ip + packet.payload_captured)
        return self._view(packet.ip, 0 if packet.l4 == _NULL else packet.l4 - packet.ip)

    # ---- edits: for later middleboxes, streams and the port; checksums and lengths follow ----

    def overwrite(self, offset: int, data: bytes | bytearray | memoryview, base: str = "payload") -> None:
        """Overwrites bytes in place; `offset` counts from `base`: "frame", "ip", "l4" or "payload"."""
        if base not in _BASES:
            raise ModuleError(f"overwrite(): base {base!r}; choose one of {', '.join(_BASES)}")
        memory = _memory(data, "overwrite()")
        self._host.edit("overwrite", _BASES.index(base), _count(offset), memory, len(memory))

    def insert(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Puts bytes into the payload, at the SENDER hook. In TCP the numbers of both directions are mended for the
        flow's life, and bytes that come again go out as they did: an edit of those has no effect."""
        memory = _memory(data, "insert()")
        self._host.edit("insert", _count(offset), memory, len(memory))

    def remove(self, offset: int, length: int) -> None:
        """Takes bytes out of the payload, at the SENDER hook, as insert()."""
        self._host.edit("remove", _count(offset), _count(length))

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
