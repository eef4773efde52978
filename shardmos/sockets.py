"""Monitoring sockets, as in mOS: a template of filter, registrations and options for the flows (or packets) to come."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from shardmos.errors import ModuleError
from shardmos.events import Event, Hook, Side
from shardmos.middlebox import MONITOR_RAW, MONITOR_STREAM, check_place, check_side, wants_of
from shardmos.user_events import UserEvent
from shardmos.workers.binding import lib

if TYPE_CHECKING:
    from shardmos.workers.host import Host
    from shardmos.workers.watcher import Watcher


class Peek(NamedTuple):
    """What peek() read: the bytes, and how many unread ones before them were lost (given up, or never came)."""

    data: bytes
    lost: int


class BufferInfo(NamedTuple):
    """The buffers of one direction of a flow. Places count bytes of the stream, 0 being the byte after the SYN."""

    init_seq: int
    """The sequence number of place 0."""
    out_of_order: int
    """Bytes that wait behind a hole."""
    history_start: int
    """The oldest byte still readable."""
    read: int
    """Where the next peek() begins."""
    next: int
    """The byte expected next."""
    last: int
    """After the highest byte buffered."""


class Socket:
    """A template socket; made by Context.socket() or Middlebox.socket()."""

    def __init__(self, host: Host, kind: int | None) -> None:
        if kind not in (None, MONITOR_STREAM, MONITOR_RAW):
            raise ModuleError(f"socket({kind!r}): there are MONITOR_STREAM and MONITOR_RAW")
        self._watcher = host.main if kind is None else host.socket(kind)

    def bind(self, filter: str = "", *, orphans: str | None = None) -> None:
        """Which flows it watches, in pcap syntax; each is asked once, at its first packet. `orphans` is the filter for
        ORPHAN: by default the same, "" none."""
        self._watcher.bind(filter, orphans)

    def register(
        self,
        event: Event | UserEvent | int,
        callback: Callable[..., Any],
        *,
        side: Side | int | None = None,
        hook: Hook | int | None = None,
    ) -> None:
        """Calls callback(flow) or callback(flow, what) at the event of flows to come. `flow` is None on raw sockets."""
        register(self._watcher, 0, event, callback, side, hook)

    def unregister(self, event: Event | UserEvent | int, callback: Callable[..., Any] | None = None) -> None:
        """Undoes it for flows to come; without `callback` every handler of that event."""
        unregister(self._watcher, 0, event, callback)

    def set(
        self,
        *,
        history: int | None = None,
        buffer: int | None = None,
        overlap: str | None = None,
        frames: bool | None = None,
        datagrams: bool | None = None,
        side: Side | int = Side.BOTH,
    ) -> None:
        """Options of flows to come, by receiving side.

        `history`: delivered bytes that stay readable with flow.peek(). `buffer`: the limit of out-of-order bytes; 0
        delivers in order only. `overlap`: whose bytes count where two segments differ, by the policy's name.
        `frames=True` on a raw socket without a filter: also frames that hold no IP packet. `datagrams=True` on a stream
        socket, where the port can send: fragments wait for each other and pass as one packet, which can be edited.
        """
        set_options(self._watcher, 0, history, buffer, overlap, check_side(side))
        if frames is not None:
            self._watcher.set_option(lib.SMOS_OPT_FRAMES, int(_flag("frames", frames)), Side.BOTH)
        if datagrams is not None:
            self._watcher.set_option(lib.SMOS_OPT_DATAGRAMS, int(_flag("datagrams", datagrams)), Side.BOTH)

    def close(self) -> None:
        """Nothing of it is called any more, from now on."""
        self._watcher.close()


def register(
    watcher: Watcher,
    flow: int,
    event: Event | UserEvent | int,
    callback: Callable[..., Any],
    side: Side | int | None,
    hook: Hook | int | None,
) -> None:
    kind, place, point = check_place(event, side, hook, "register")
    watcher.register(kind, callback, _wants(kind, callback), place, point, flow)


def unregister(
    watcher: Watcher, flow: int, event: Event | UserEvent | int, callback: Callable[..., Any] | None
) -> None:
    kind, _, _ = check_place(event, None, None, "unregister")
    watcher.unregister(kind, callback, 0 if callback is None else _wants(kind, callback), flow)


def _flag(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise ModuleError(f"{name}: {value!r}; give True or False")
    return value


def _wants(event: Event | UserEvent, callback: Callable[..., Any]) -> int:
    root = event.root if isinstance(event, UserEvent) else event
    return wants_of(callback, root, f"the callback of {root.name}")


def set_options(
    watcher: Watcher, flow: int, history: int | None, buffer: int | None, overlap: str | None, side: Side
) -> None:
    from shardmos.workers.shard_config import OVERLAP_POLICIES

    if history is not None:
        watcher.set_option(1, history, side, flow)
    if buffer is not None:
        watcher.set_option(2, buffer, side, flow)
    if overlap is not None:
        if not isinstance(overlap, str) or overlap not in OVERLAP_POLICIES:
            raise ModuleError(f"overlap: {overlap!r}; choose one of {', '.join(OVERLAP_POLICIES)}")
        watcher.set_option(3, OVERLAP_POLICIES[overlap], side, flow)
