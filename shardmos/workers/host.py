"""Runs a Python middlebox in a shard: its manifest, and the function that the engine calls at each of its events.

The call is short on purpose: one look at the event's number, one look into a dict for the flow, and then the handler.
What a handler does not ask for (packet fields, addresses, state) is not made.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgpack

from shardmos.errors import ModuleError, ShardmosError
from shardmos.events import Event, Hook, Side, TcpState, anomaly_name, end_reason_text, limit_text
from shardmos.flow import Flow
from shardmos.middlebox import DEFAULT_HOOKS, Gap, Handler, Middlebox, State
from shardmos.workers.binding import ffi
from shardmos.workers.handover import Inherited, Step, as_own, state_layout

if TYPE_CHECKING:
    from shardmos.workers.shard import Box, Shard

MAX_KEPT_ERRORS = 10
MAX_TRACEBACK = 16_384
MAX_INHERITED = 8  # earlier versions with flows that were silent since; beyond, the oldest's states are taken at once
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


def _hook(handler: Handler) -> int:
    """The hooks that a handler is for, 0 where its event has none."""
    return int(DEFAULT_HOOKS.get(handler.event, Hook.NONE) if handler.hook is None else handler.hook)


class Host:
    """One middlebox in one shard."""

    def __init__(self, shard: Shard, middlebox: Middlebox) -> None:
        if not isinstance(middlebox, Middlebox):
            raise ModuleError(f"a middlebox is an instance of a subclass of shardmos.Middlebox, not {middlebox!r}")
        if middlebox._host is not None:
            raise ModuleError(f"middlebox {type(middlebox).name} is running already; make another instance")
        self.shard = shard
        self.middlebox = middlebox
        self.errors = 0
        self.kept_errors: list[str] = []
        self.packet = Packet(self)
        self.box: Box | None = None
        self.make_state: Callable[[], Any] = getattr(type(middlebox), "State", State)
        self._call: Any = None
        self._flows: dict[int, LiveFlow] = {}
        self._inherited: list[Inherited] = []
        self._layout = state_layout(type(middlebox))
        self._table: list[Any] = [None] * 16
        self.registrations = self._register(middlebox.handlers)
        middlebox._host = self

    def release(self) -> None:
        """The middlebox may run elsewhere; live flows are forgotten."""
        self.middlebox._host = None
        self._flows, self._inherited = {}, []  # not cleared: a newer version may hold them

    def take_over(self, old: Host) -> None:
        """Between runs, once this version is in the place of `old`: flows keep their states (Middlebox.migrate)."""
        step: Step | None = None
        if old._layout != self._layout:
            step = self.middlebox.migrate
        elif self.make_state is not old.make_state:
            step = as_own(self.make_state)
        mine = [*old._inherited, Inherited(old._flows)]
        self._inherited = [each.followed_by(step) for each in mine if each.flows]
        while len(self._inherited) > MAX_INHERITED:
            for key in list(self._inherited[0].flows):
                self._make_flow(key)
            del self._inherited[0]

    # ---- what handlers reach ----

    def current(self) -> Any:
        """The call being handled."""
        if self._call is None:
            raise ModuleError("this is valid only during a handler's call; copy what you want to keep")
        return self._call

    def emit(self, topic: str, obj: Any) -> bool:
        return self.shard.emit(topic, msgpack.packb(obj, default=_plain))

    def log(self, text: str, level: int) -> None:
        self.shard.log(level, text)

    def now_ns(self) -> int:
        return self.shard.now_ns()

    # ---- registration ----

    def _register(self, handlers: tuple[Handler, ...]) -> list[tuple[int, int, int]]:
        """Fills the table of calls by event; one registration per event, so that no handler is called twice."""
        by_event: dict[Event, list[Handler]] = {}
        for handler in handlers:
            by_event.setdefault(handler.event, []).append(handler)
        registrations = []
        for event, group in by_event.items():
            if event is Event.CONN_END:
                continue
            sides = {int(Side.BOTH if handler.side is None else handler.side) for handler in group}
            hooks = {_hook(handler) for handler in group}
            hook = 0
            for each in hooks:
                hook |= each
            side = sides.pop() if len(sides) == 1 else int(Side.BOTH)
            self._table[event] = self._caller(event, group, hook, side)
            registrations.append((int(event), hook, side))
        # Always asked for: it is when a flow's object is let go.
        self._table[Event.CONN_END] = self._end_caller(by_event.get(Event.CONN_END, []))
        registrations.append((int(Event.CONN_END), 0, int(Side.BOTH)))
        return registrations

    def _caller(self, event: Event, group: list[Handler], hook: int, side: int) -> Callable[[Any], None]:
        parts = []
        for handler in group:
            own_side = int(Side.BOTH if handler.side is None else handler.side)
            own_hook = _hook(handler)
            call = self._one(event, getattr(self.middlebox, handler.method), handler.wants)
            parts.append((call, None if own_side in (side, 2) else own_side, None if own_hook == hook else own_hook))
        if len(parts) == 1:
            return parts[0][0]

        def several(call: Any) -> None:
            for part, only_side, only_hook in parts:
                if (only_side is None or call.side == only_side) and (only_hook is None or call.hook & only_hook):
                    part(call)

        return several

    def _one(self, event: Event, method: Callable[..., Any], wants: int) -> Callable[[Any], None]:
        """The call of one handler: specialised by event, so that nothing is decided per packet."""
        get, make, failed = self._flows.get, self._make_flow, self._failed
        if wants == 1:

            def plain(call: Any) -> None:
                self._call = call
                key = call.flow
                try:
                    method(get(key) or make(key))
                except Exception:
                    failed(event)
                self._call = None

            return plain

        if event is Event.NEW_DATA:
            return self._data_caller(method)

        argument = self._arguments()[event]

        def with_argument(call: Any) -> None:
            self._call = call
            key = call.flow
            try:
                method(get(key) or make(key), argument(call))
            except Exception:
                failed(event)
            self._call = None

        return with_argument

    def _arguments(self) -> dict[Event, Callable[[Any], Any]]:
        packet = self.packet

        def of_packet(call: Any) -> Packet | None:
            return packet if call.packet != _NULL else None

        return {
            Event.PKT_IN: lambda call: packet,
            Event.CONN_START: of_packet,
            Event.CONN_SETUP: of_packet,
            Event.REXMIT: of_packet,
            Event.ORPHAN: of_packet,
            Event.TCP_STATE_CHANGE: lambda call: TcpState(call.detail),
            Event.GAP: lambda call: Gap(call.offset, call.length),
            Event.ANOMALY: lambda call: anomaly_name(call.detail),
            Event.ERROR: lambda call: limit_text(call.detail),
        }

    def _data_caller(self, method: Callable[..., Any]) -> Callable[[Any], None]:
        get, make, failed = self._flows.get, self._make_flow, self._failed
        buffer, references = ffi.buffer, sys.getrefcount

        def with_data(call: Any) -> None:
            self._call = call
            key = call.flow
            memory = buffer(call.data, call.length)
            view = memoryview(memory).toreadonly()
            try:
                method(get(key) or make(key), view)
            except Exception:
                failed(Event.NEW_DATA)
            try:
                view.release()
            except BufferError:
                self._kept_data()
            else:
                if references(memory) > 2:  # a slice of the view lives on, and would show other bytes later
                    self._kept_data()
            self._call = None

        return with_data

    def _kept_data(self) -> None:
        try:
            raise ModuleError("a NEW_DATA handler kept a part of `data` beyond its call; keep bytes(data) instead")
        except ModuleError:
            self._failed(Event.NEW_DATA)

    def _end_caller(self, group: list[Handler]) -> Callable[[Any], None]:
        whole = [(getattr(self.middlebox, h.method), h.wants) for h in group if h.side is None]
        sided = [(getattr(self.middlebox, h.method), h.wants, h.side) for h in group if h.side is not None]
        flows = self._flows

        def end(call: Any) -> None:
            self._call = call
            key, side = call.flow, call.side
            flow = flows.get(key)
            if flow is None:
                if not group:
                    for each in self._inherited:
                        each.flows.pop(key, None)
                    self._call = None
                    return
                flow = self._make_flow(key)
                assert flow is not None
            first = not flow._ends
            if first:
                record = self.shard.flow_info(key)
                if record is not None:
                    flow._last = Flow(record)
            if group:
                reason = end_reason_text(call.detail)
                for method, wants in whole if first else ():
                    self._end_call(method, wants, flow, reason)
                for method, wants, only in sided:
                    if only in (side, Side.BOTH):
                        self._end_call(method, wants, flow, reason)
            flow._ends |= 3 if side == Side.BOTH else 1 << side
            if flow._ends == 3:
                flows.pop(key, None)
            self._call = None

        return end

    def _end_call(self, method: Callable[..., Any], wants: int, flow: LiveFlow, reason: str | None) -> None:
        try:
            if wants == 1:
                method(flow)
            else:
                method(flow, reason)
        except Exception:
            self._failed(Event.CONN_END)

    def _make_flow(self, key: int) -> LiveFlow | None:
        if key == 0:
            return None  # ORPHAN
        self._flows[key] = flow = LiveFlow(self, key)
        for each in self._inherited:
            old = each.flows.pop(key, None)
            if old is not None:
                self._inherit(flow, old, each.steps)
        return flow

    def _inherit(self, flow: LiveFlow, old: LiveFlow, steps: tuple[Step, ...]) -> None:
        flow._ends, flow._last = old._ends, old._last
        try:
            state = object.__getattribute__(old, "state")
        except AttributeError:
            return  # it was never asked for
        try:
            for step in steps:
                state = step(state)
                if state is None:
                    return
            flow.state = state
        except Exception:
            self._failed(None)

    def dispatcher(self) -> Callable[[Any], None]:
        table = self._table

        def dispatch(call: Any) -> None:
            table[call.event](call)

        return dispatch

    # ---- failures ----

    def _failed(self, event: Event | None) -> None:
        """Inside an except clause: counts the failure, keeps the first ones, publishes it. The run goes on."""
        self.errors += 1
        if self.box is not None:
            self.box.count_error()
        error = sys.exc_info()[1]
        text = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
        if len(self.kept_errors) < MAX_KEPT_ERRORS:
            self.kept_errors.append(text)
        with contextlib.suppress(ShardmosError):  # it is counted and kept all the same
            where = event.name if event else "migrate"
            self.emit("error", {"module": type(self.middlebox).name, "event": where, "traceback": text})


def attach(shard: Shard, middlebox: Middlebox, version: str = "1") -> Host:
    """Puts a middlebox into a shard, between runs. Refused (ShardmosError) with its reason: nothing is changed."""
    host, box = prepare(shard, middlebox, version)
    shard.commit(box)
    return host


def prepare(shard: Shard, middlebox: Middlebox, version: str = "1") -> tuple[Host, Box]:
    """PREPARE: the middlebox's host and its box, for `Shard.commit`."""
    from shardmos.workers.shard import BoxManifest

    host = Host(shard, middlebox)
    try:
        manifest = BoxManifest(
            name=type(middlebox).name,
            filter=middlebox.filter,
            registrations=host.registrations,
            fail_closed=bool(middlebox.fail_closed),
        )
        host.box = shard.create_python_box(manifest, version, host.dispatcher())
    except ShardmosError:
        host.release()
        raise
    return host, host.box


def _plain(value: Any) -> Any:
    """What msgpack does not know by itself."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"emit(): {type(value).__name__} cannot be sent; use numbers, texts, bytes, lists and dicts")
