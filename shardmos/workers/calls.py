"""Python handlers as the engine calls them: the C record of each, and what keeps it alive (native/python/calls.h)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardmos.events import Event
from shardmos.workers.binding import ffi, lib

_DATA = lib.SMOS_PY_DATA
_PACKET = lib.SMOS_PY_PACKET
_OTHER = lib.SMOS_PY_OTHER
KINDS = {
    Event.PKT_IN: _PACKET,
    Event.CONN_START: _PACKET,
    Event.CONN_SETUP: _PACKET,
    Event.REXMIT: _PACKET,
    Event.ORPHAN: _PACKET,
    Event.NEW_DATA: _DATA,
    Event.TCP_STATE_CHANGE: _OTHER,
    Event.GAP: _OTHER,
    Event.ANOMALY: _OTHER,
    Event.ERROR: _OTHER,
    Event.CONN_END: _OTHER,
}


class Calls:
    """All calls of one middlebox in one shard."""

    def __init__(
        self,
        packet: Any,
        release: Callable[[Any], None],
        failed: Callable[[int, BaseException | None], None],
        kept: Callable[[int, Any], None],
        arguments: dict[Event, Callable[[], Any]],
    ) -> None:
        self.views: list[Any] = []
        self._arguments = arguments
        self._objects: list[Any] = [packet, release, failed, kept, self.views]
        self._records: dict[tuple[Any, ...], Any] = {}
        self.native = ffi.new("smos_py_host_t *")
        self.native.packet, self.native.views = id(packet), id(self.views)
        self.native.release, self.native.failed, self.native.kept = id(release), id(failed), id(kept)

    def record(
        self, callable: Any, event: Event, wants: int, flows: dict[int, Any] | None, make: Callable[[int], Any] | None
    ) -> Any:
        """The C record for a handler that wants nothing (0), the flow (1) or also what the event brings (2).

        Equal handlers have one record, so that equal registrations are equal to the engine.
        """
        kind = (lib.SMOS_PY_BARE, lib.SMOS_PY_FLOW, KINDS[event])[wants]
        key = (callable, event, kind, id(flows))
        found = self._records.get(key)
        if found is None:
            found = ffi.new("smos_py_call_t *")
            found.host, found.kind, found.event = self.native, kind, int(event)
            found.callable, found.flows, found.make = id(callable), id(flows) if flows is not None else 0, id(make)
            if kind == _OTHER:
                found.argument = id(self._arguments[event])
            self._objects += [callable, flows, make]
            self._records[key] = found
        return found

    def clear(self) -> None:
        """Nothing is called any more."""
        lib.smos_py_host_clear(self.native)
        self._records.clear()
