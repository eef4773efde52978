"""A socket of a Python middlebox: its registrations, its options, and the objects that stand for its flows."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shardmos.errors import ModuleError
from shardmos.events import Event, Hook, Side, end_reason_text
from shardmos.flow import Flow
from shardmos.user_events import UserEvent
from shardmos.workers.binding import ffi, lib
from shardmos.workers.checked import encode
from shardmos.workers.live import LiveFlow

if TYPE_CHECKING:
    from shardmos.workers.host import Host
    from shardmos.workers.timers import Timer

_CALL = ffi.addressof(lib, "smos_py_call")
_OURS = 3  # references to a flow's object that nobody keeps: in `flows`, a local name, getrefcount's argument
EndHandler = tuple[Callable[..., Any], int, "Side | None"]


class Watcher:
    """One socket. `flow` in its methods is a handle, 0 the template: what flows to come begin with."""

    def __init__(self, host: Host, number: int) -> None:
        self.host = host
        self.number = number
        self.flows: dict[int, LiveFlow] = {}
        self._make = self.make_flow
        self._ends: list[EndHandler] = []
        self._flow_ends: dict[int, list[EndHandler]] = {}
        self._flow_timers: dict[int, list[Timer]] = {}
        self._end_call = self._end  # one object: the engine knows it by its address

    # ---- registrations ----

    def listen_for_ends(self) -> None:
        """Always asked for: it is when a flow's object is let go."""
        record = self.host.calls.record(self._end_call, Event.CONN_END, 0, None, None)
        self._api("register_handler", 0, int(Event.CONN_END), 0, int(Side.BOTH), _CALL, record)

    def register(
        self,
        event: Event | UserEvent,
        callback: Callable[..., Any],
        wants: int,
        side: Side | None = None,
        hook: Hook | None = None,
        flow: int = 0,
    ) -> None:
        """Calls `callback` at the event; `wants` 1: (flow), 2: (flow, what the event brings)."""
        if event is Event.CONN_END:
            self._end_list(flow).append((callback, wants, side))
            return
        record = self._record(event, callback, wants)
        place = int(Side.BOTH if side is None else side)
        self._api("register_handler", flow, self.host.number_of(event), int(hook or 0), place, _CALL, record)

    def unregister(
        self, event: Event | UserEvent, callback: Callable[..., Any] | None, wants: int, flow: int = 0
    ) -> None:
        """Undoes it; callback None: every handler of that event."""
        if event is Event.CONN_END:
            ends = self._end_list(flow)
            kept = [each for each in ends if callback is not None and each[0] != callback]
            if len(kept) == len(ends):
                raise ModuleError("no such handler of CONN_END is registered")
            ends[:] = kept
            return
        number = self.host.number_of(event)
        if callback is None:
            self._api("unregister_handler", flow, number, ffi.NULL, ffi.NULL)
        else:
            self._api("unregister_handler", flow, number, _CALL, self._record(event, callback, wants))

    def _record(self, event: Event | UserEvent, callback: Callable[..., Any], wants: int) -> Any:
        root = event.root if isinstance(event, UserEvent) else event
        return self.host.calls.record(callback, root, wants, self.flows, self._make)

    def _end_list(self, flow: int) -> list[EndHandler]:
        return self._flow_ends.setdefault(flow, list(self._ends)) if flow else self._ends

    # ---- the rest of the socket ----

    def bind(self, filter: str, orphans: str | None) -> None:
        self._api_socket("bind", _text(filter), ffi.NULL if orphans is None else _text(orphans))

    def close(self, flow: int = 0) -> None:
        self._api("close", flow)
        if flow:
            self.flows.pop(flow, None)

    def stop(self, flow: int, side: Side) -> None:
        self._api("stop_socket", flow, int(side))

    def set_option(self, option: int, value: int, side: Side, flow: int = 0) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
            raise ModuleError(f"an option is a whole number from 0 on, not {value!r}")
        self._api("set_option", flow, int(side), option, value)

    def option(self, option: int, side: Side, flow: int = 0) -> int:
        value = ffi.new("uint64_t *")
        self._api("get_option", flow, int(side), option, value)
        return int(value[0])

    # ---- reading streams ----

    def peek(self, flow: int, side: Side, size: int) -> tuple[bytes, int]:
        """The next unread bytes, at most `size`, and how many were lost before them."""
        buffer, lost = _buffer(size), ffi.new("uint64_t *")
        count = self._api("peek", flow, int(side), buffer, size, lost)
        return bytes(ffi.buffer(buffer, count)), int(lost[0])

    def peek_at(self, flow: int, side: Side, offset: int, size: int) -> bytes:
        """Bytes from `offset` on up to the first that is absent; b"" if that is the first."""
        buffer = _buffer(size)
        if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < 2**64:
            raise ModuleError(f"an offset is a whole number from 0 on, not {offset!r}")
        try:
            count = self._api("peek_at", flow, int(side), buffer, size, offset)
        except _NoData:
            return b""
        return bytes(ffi.buffer(buffer, count))

    def buffered(self, flow: int, side: Side) -> list[tuple[int, int]]:
        """The contiguous stretches that can be read now, as (start, end)."""
        ranges = ffi.new("smos_range_t[]", 1024)
        count = self._api("buffered", flow, int(side), ranges, 1024)
        return [(int(ranges[i].start), int(ranges[i].end)) for i in range(count)]

    def buffer_info(self, flow: int, side: Side) -> Any:
        info = ffi.new("smos_buffer_info_t *")
        self._api("buffer_info", flow, int(side), info)
        return info

    # ---- flows ----

    def make_flow(self, key: int) -> LiveFlow | None:
        if key == 0:
            return None  # ORPHAN
        self.flows[key] = flow = LiveFlow(self, key)
        self.host.inherit(self, flow)
        return flow

    def _end(self) -> None:
        """CONN_END of one side."""
        call = self.host.calls.native.current
        key, side = call.flow, call.side
        handlers = self._flow_ends.get(key, self._ends) if self._flow_ends else self._ends
        flow = self.flows.get(key)
        if not handlers and not self.host.defines_events and sys.getrefcount(flow) == _OURS:
            # Nobody will ask it anything any more.
            self.drop(key)
            return
        if flow is None:
            if not handlers:
                self.host.forget(key)
                return
            flow = self.make_flow(key)
            assert flow is not None
        first = not flow._ends
        if first:
            record = self.host.shard.flow_info(key)
            if record is not None:
                flow._last = Flow(record)
        for callback, wants, only in list(handlers):
            if first if only is None else only in (side, Side.BOTH):
                self._tell_end(callback, wants, flow, end_reason_text(call.detail))
        flow._ends |= 3 if side == Side.BOTH else 1 << side
        if flow._ends == 3:
            self.host.drop_after_burst(self, key)

    def _tell_end(self, callback: Callable[..., Any], wants: int, flow: LiveFlow, reason: str | None) -> None:
        try:
            if wants == 1:
                callback(flow)
            else:
                callback(flow, reason)
        except BaseException as error:
            self.host.failed(Event.CONN_END, error)

    def drop(self, key: int) -> None:
        self.flows.pop(key, None)
        if self._flow_ends:
            self._flow_ends.pop(key, None)
        for timer in self._flow_timers.pop(key, ()):
            self.host.timers.forget(timer)

    def timers_of(self, flow: int) -> list[Timer]:
        """Those that end with the flow."""
        return self._flow_timers.setdefault(flow, [])

    # ---- calling the engine ----

    def _api(self, function: str, flow: int, *args: Any) -> int:
        return self.host.api(function, self.number, flow, *args)

    def _api_socket(self, function: str, *args: Any) -> int:
        return self.host.api(function, self.number, *args)


class _NoData(ModuleError):
    """The byte asked for is not there."""


def _text(text: str) -> Any:
    return ffi.new("char[]", encode(text, "filter", ModuleError))


def _buffer(size: int) -> Any:
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**31:
        raise ModuleError(f"a number of bytes from 0 to 2 GiB is read at once, not {size!r}")
    return ffi.new("char[]", max(size, 1))


def raise_for(status: int, words: str) -> None:
    """The exception for a negative errno of the engine's function table."""
    raise (_NoData if status == -errno.ENODATA else ModuleError)(words or os.strerror(-status))
