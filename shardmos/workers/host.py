"""Runs a Python middlebox in a shard: its sockets, its user-defined events, its timers, and what handlers reach.

The engine calls handlers straight from C (native/python/calls.c), with the flow's object and what the event brings.
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
from shardmos.events import Event, TcpState, anomaly_name, limit_text
from shardmos.middlebox import Anomaly, Gap, Middlebox, PlainState, wants_of
from shardmos.user_events import UserEvent
from shardmos.workers.binding import ffi, lib
from shardmos.workers.calls import Calls
from shardmos.workers.handover import Inherited, Step, as_own, state_layout
from shardmos.workers.live import LiveFlow, Packet
from shardmos.workers.timers import Timers
from shardmos.workers.watcher import Watcher, raise_for

if TYPE_CHECKING:
    from shardmos.workers.shard import Box, Shard

MAX_KEPT_ERRORS = 10
MAX_TRACEBACK = 16_384
MAX_INHERITED = 8  # earlier versions with flows that were silent since; beyond, the oldest's states are taken at once
_NULL = ffi.NULL
_MIGRATE = -1
_PLACES = {int(lib.SMOS_TIMER): "timer", _MIGRATE: "migrate"}  # of failures, where no event is handled
_CALL = ffi.addressof(lib, "smos_py_call")
_ASK = ffi.addressof(lib, "smos_py_ask")


class Host:
    """One middlebox in one shard."""

    def __init__(self, shard: Shard, middlebox: Middlebox, contained: bool = False) -> None:
        if not isinstance(middlebox, Middlebox):
            raise ModuleError(f"a middlebox is an instance of a subclass of shardmos.Middlebox, not {middlebox!r}")
        if middlebox._host is not None:
            raise ModuleError(f"middlebox {type(middlebox).name} is running already; make another instance")
        self.shard = shard
        self.middlebox = middlebox
        self._contained = contained
        self.errors = 0
        self.kept_errors: list[str] = []
        self.packet = Packet(self)
        self.box: Box | None = None
        self.make_state: Callable[[], Any] = getattr(type(middlebox), "State", PlainState)
        self.calls = Calls(self.packet, self._release_views, self.failed, self._kept_data, self._arguments())
        self.timers = Timers(self)
        self.main = Watcher(self, 0)
        self._current = self.calls.native
        self._events: dict[UserEvent, int] = {}
        self._ended: list[tuple[Watcher, int]] = []
        self._drop_ended_call = self._drop_ended
        self._inherited: list[Inherited] = []
        self._layout = state_layout(type(middlebox))
        middlebox._host = self

    def set_up(self, box: Box) -> None:
        """Once the box is made, before its commit: the handlers of the class, then its `on_start`."""
        self.box = box
        self.main.listen_for_ends()
        for handler in self.middlebox.handlers:
            method = getattr(self.middlebox, handler.method)
            self.main.register(handler.event, method, handler.wants, handler.side, handler.hook)
        self.middlebox.on_start()

    def release(self) -> None:
        """The middlebox may run elsewhere; live flows are forgotten."""
        self.middlebox._host = self.box = None
        self.main.flows, self._inherited = {}, []  # not cleared: a newer version may hold them
        self.calls.clear()

    def take_over(self, old: Host) -> None:
        """Between runs, once this version is in the place of `old`: flows keep their states (Middlebox.migrate)."""
        step: Step | None = None
        if old._layout != self._layout:
            step = self.middlebox.migrate
        elif self.make_state is not old.make_state:
            step = as_own(self.make_state)
        mine = [*old._inherited, Inherited(old.main.flows)]
        self._inherited = [each.followed_by(step) for each in mine if each.flows]
        while len(self._inherited) > MAX_INHERITED:
            for key in list(self._inherited[0].flows):
                self.main.make_flow(key)
            del self._inherited[0]

    # ---- what handlers reach ----

    def current(self) -> Any:
        """The call being handled."""
        call = self._current.current
        if call == _NULL:
            raise ModuleError("this is valid only during a handler's call; copy what you want to keep")
        return call

    def emit(self, topic: str, obj: Any) -> bool:
        try:
            data = msgpack.packb(obj, default=_plain)
        except (ValueError, OverflowError, BufferError, RecursionError) as error:
            raise ModuleError(f"emit(): {type(obj).__name__} cannot be sent: {error}") from None
        return self.shard.emit(topic, data)

    def log(self, text: str, level: int) -> None:
        self.shard.log(level, text)

    def now_ns(self) -> int:
        return self.shard.now_ns()

    def socket(self, kind: int) -> Watcher:
        """Another template socket."""
        number = ffi.new("smos_sock_t *")
        self.api("socket", kind, number)
        watcher = Watcher(self, int(number[0]))
        if kind == lib.SMOS_STREAM:
            watcher.listen_for_ends()
        return watcher

    def api(self, function: str, *args: Any) -> int:
        """Calls the engine's function table as this middlebox. ModuleError with the engine's words."""
        if self.box is None:
            raise ModuleError(f"{type(self.middlebox).name}: not running; this is for on_start() and handlers")
        status, words = self.shard.call_as(self.box, function, *args)
        if status < 0:
            raise_for(status, words)
        return status

    def edit(self, function: str, *args: Any) -> None:
        """An edit or injection; memoryviews of the packet that were handed out before show the bytes before."""
        self.api(function, *args)

    # ---- user-defined events ----

    @property
    def defines_events(self) -> bool:
        """Some may be over CONN_END."""
        return bool(self._events)

    def number_of(self, event: Event | UserEvent) -> int:
        """The engine's number of an event; a user-defined one is defined when it is first used."""
        if not isinstance(event, UserEvent):
            return int(event)
        number = self._events.get(event)
        if number is None:
            parent, out = self.number_of(event.parent), ffi.new("uint32_t *")
            if event.filter is None:
                self.api("alloc_event", parent, out)
            else:
                self.api("define_event", parent, _ASK, self._predicate(event), ffi.sizeof("smos_py_call_t"), out)
            number = self._events[event] = int(out[0])
        return number

    def _predicate(self, event: UserEvent) -> Any:
        filter = event.filter
        assert filter is not None
        if event.is_method:
            filter = filter.__get__(self.middlebox)
        wants = wants_of(filter, event.root, f"user-defined event {event.name}")
        return self.calls.record(filter, event.root, wants, self.main.flows, self.main._make)

    def raise_event(self, event: UserEvent) -> None:
        if not isinstance(event, UserEvent):
            raise ModuleError(f"raise_event(): {event!r} is no user-defined event")
        self.api("raise_event", self.number_of(event))

    def remove_event(self, event: UserEvent) -> None:
        """It happens no more, nor does what is defined over it."""
        number = self._events.pop(event, None) if isinstance(event, UserEvent) else None
        if number is None:
            raise ModuleError(f"{event!r} is not defined here")
        self.api("remove_event", number)

    # ---- what events bring ----

    def _arguments(self) -> dict[Event, Callable[[], Any]]:
        current = self.current
        return {
            Event.TCP_STATE_CHANGE: lambda: TcpState(current().detail),
            Event.GAP: lambda: Gap(current().offset, current().length),
            Event.ANOMALY: lambda: _anomaly(current()),
            Event.ERROR: lambda: limit_text(current().detail),
            Event.CONN_END: lambda: None,
        }

    def _release_views(self, handler: Any) -> None:
        views = self.calls.views
        while views:
            memory, view = views.pop()
            try:
                view.release()
            except BufferError:
                self._kept(int(self.current().event), handler, "packet", "packet.payload")
            else:
                if sys.getrefcount(memory) > 2:  # a slice of the view lives on, and would show other bytes later
                    self._kept(int(self.current().event), handler, "packet", "packet.payload")

    def _kept_data(self, event: int, handler: Any) -> None:
        """From C: a part of `data` outlived the call."""
        self._kept(event, handler, "data", "data")

    def _kept(self, event: int, handler: Any, what: str, copied: str) -> None:
        self.shard.keep_memory()
        name = getattr(handler, "__qualname__", None) or repr(handler)
        try:
            raise ModuleError(f"{name} kept a part of `{what}` beyond its call; keep a copy, as in bytes({copied})")
        except ModuleError as error:
            self.failed(event, error)

    # ---- ends of flows ----

    def drop_after_burst(self, watcher: Watcher, key: int) -> None:
        """The flow's object is let go once nothing more can happen to it."""
        if not self._ended:
            record = self.calls.record(self._drop_ended_call, Event.CONN_END, 0, None, None)
            self.api("at_burst_end", _CALL, record)
        self._ended.append((watcher, key))

    def _drop_ended(self) -> None:
        for watcher, key in self._ended:
            watcher.drop(key)
        self._ended.clear()
        self.api("at_burst_end", _NULL, _NULL)

    def forget(self, key: int) -> None:
        for each in self._inherited:
            each.flows.pop(key, None)

    def inherit(self, watcher: Watcher, flow: LiveFlow) -> None:
        """The state that an earlier version of the middlebox has of the flow."""
        if watcher is not self.main:
            return
        for each in self._inherited:
            old = each.flows.pop(flow.handle, None)
            if old is not None:
                self._inherit(flow, old, each.steps)

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
        except BaseException as error:
            self.failed(_MIGRATE, error)

    # ---- failures ----

    def failed(self, event: int, error: BaseException | None) -> None:
        """A handler raised. What it may not swallow (KeyboardInterrupt, SystemExit) ends the run; a worker is nobody's
        to end, there it counts as any other."""
        if error is None:
            return
        if isinstance(error, Exception) or self._contained:
            self._count_failure(_PLACES.get(event) or Event(event).name, error)
        else:
            self.calls.native.ended = 1
            self.shard.end_run_with(error)

    def _count_failure(self, where: str, error: BaseException) -> None:
        """Counts the failure, keeps the first ones, publishes it. The run goes on."""
        self.errors += 1
        if self.box is not None:
            self.box.count_error()
        text = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
        if len(self.kept_errors) < MAX_KEPT_ERRORS:
            self.kept_errors.append(text)
        with contextlib.suppress(ShardmosError):  # it is counted and kept all the same
            self.emit("error", {"module": type(self.middlebox).name, "event": where, "traceback": text})


def attach(shard: Shard, middlebox: Middlebox, version: str = "1") -> Host:
    """Puts a middlebox into a shard, between runs. Refused (ShardmosError) with its reason: nothing is changed."""
    host, box = prepare(shard, middlebox, version)
    shard.commit(box)
    return host


def prepare(shard: Shard, middlebox: Middlebox, version: str = "1", contained: bool = False) -> tuple[Host, Box]:
    """PREPARE: the middlebox's host and its box, for `Shard.commit`. `contained`: nothing that it raises ends a run."""
    from shardmos.workers.shard import BoxManifest

    host = Host(shard, middlebox, contained)
    box: Box | None = None
    try:
        manifest = BoxManifest(
            name=type(middlebox).name, filter=middlebox.filter, fail_closed=bool(middlebox.fail_closed)
        )
        box = shard.create_python_box(manifest, version, _no_dispatch)
        host.set_up(box)
    except BaseException:
        if box is not None:
            box.free()
        host.release()
        raise
    return host, box


def _anomaly(call: Any) -> Anomaly:
    name = anomaly_name(call.detail)
    if call.data == ffi.NULL:
        return Anomaly(name)
    length = call.length
    copies = bytes(ffi.buffer(call.data, 2 * length))
    return Anomaly(name, int(call.offset), copies[:length], copies[length:])


def _no_dispatch(call: Any) -> None:
    """Handlers are called by native/python/calls.c."""


def _plain(value: Any) -> Any:
    """What msgpack does not know by itself."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"emit(): {type(value).__name__} cannot be sent; use numbers, texts, bytes, lists and dicts")
