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
from shardmos.workers.live import LiveFlow, Packet

if TYPE_CHECKING:
    from shardmos.workers.shard import Box, Shard

MAX_KEPT_ERRORS = 10
MAX_TRACEBACK = 16_384
MAX_INHERITED = 8  # earlier versions with flows that were silent since; beyond, the oldest's states are taken at once
_NULL = ffi.NULL


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
