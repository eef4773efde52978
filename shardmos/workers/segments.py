"""Reads the stats segment of a worker: memory that its one writer never waits for, and any process may look at.

The layout is that of `smos_stats_header_t` (shardmos/engine.h). This module is plain Python: the coordinator and the
tests read segments without the native library. Offsets come from the segment and are checked before they are used.
"""

from __future__ import annotations

import mmap
import struct
import time
from dataclasses import dataclass, field
from typing import Any

from shardmos.errors import SegmentError

STATS_MAGIC = b"SMOSSTAT"
STATS_VERSION = 2

_HEADER = struct.Struct("=8sIIQIIIIIIQ")
_SEQUENCE = struct.Struct("=Q")
_SEQUENCE_AT = 16
_MODULE_COUNTER = struct.Struct("=32sQ")
_OWN_COUNTERS = 32
_MODULE_LINE = struct.Struct("=64s72s7Q16QQ")
_MODULE_BYTES = _MODULE_LINE.size + _OWN_COUNTERS * _MODULE_COUNTER.size
_MODULE_COUNTERS = ("calls", "errors", "cycles", "drops", "resets", "emitted", "flows_now")
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class StatsSnapshot:
    """What a worker counted, all of one moment.

    `counters` only grow, but those whose names end in `_now`. `modules` has a dict for each active module: its name,
    version, calls, errors, cycles, drops, resets, emitted, flows_now, event_calls (by event number), commit_ns, and
    counters: those of its own, by name.
    `consistent` is False where the writer died in the middle of a change, or changed things at each of many looks.
    """

    counters: dict[str, int] = field(default_factory=dict)
    modules: list[dict[str, Any]] = field(default_factory=list)
    heartbeat: int = 0
    consistent: bool = True


def read_stats(buffer: memoryview | mmap.mmap | bytes | bytearray, patience: float = 0.05) -> StatsSnapshot:
    """A snapshot of a stats segment; tries for `patience` seconds to find it unchanged while it copies.

    Raises SegmentError for memory that is no stats segment of this version.
    """
    view = memoryview(buffer)
    try:
        if view.nbytes < _HEADER.size:
            raise SegmentError(f"a stats segment has at least {_HEADER.size} bytes, this one {view.nbytes}")
        size = struct.unpack_from("=I", view, 12)[0]
        if bytes(view[:8]) != STATS_MAGIC or not _HEADER.size <= size <= min(view.nbytes, _MAX_BYTES):
            raise SegmentError("the memory is no stats segment (the worker may not have begun yet)")
        deadline = time.monotonic() + patience
        while True:
            before = _SEQUENCE.unpack_from(view, _SEQUENCE_AT)[0]
            copy = bytes(view[:size])
            after = _SEQUENCE.unpack_from(view, _SEQUENCE_AT)[0]
            consistent = before == after and before % 2 == 0
            if consistent or time.monotonic() > deadline:
                return _decode(copy, consistent)
    finally:
        view.release()


def _decode(segment: bytes, consistent: bool) -> StatsSnapshot:
    (_, version, size, _, counters, counters_at, names_at, names_bytes, modules, modules_at, heartbeat) = (
        _HEADER.unpack_from(segment)
    )
    if version != STATS_VERSION:
        raise SegmentError(f"stats segment of version {version}, this program reads version {STATS_VERSION}")
    inside = (
        counters_at + 8 * counters <= size
        and names_at + names_bytes <= size
        and modules_at + _MODULE_BYTES * modules <= size
    )
    if not inside:
        raise SegmentError("the stats segment is damaged: a table lies outside of it")
    names = segment[names_at : names_at + names_bytes].split(b"\0")[:counters]
    if len(names) != counters:
        raise SegmentError(f"the stats segment is damaged: {counters} counters, {len(names)} names")
    values = struct.unpack_from(f"={counters}Q", segment, counters_at)
    return StatsSnapshot(
        counters={name.decode("ascii", "replace"): value for name, value in zip(names, values, strict=True)},
        modules=[module for slot in range(modules) if (module := _module(segment, modules_at + slot * _MODULE_BYTES))],
        heartbeat=heartbeat,
        consistent=consistent,
    )


def _module(segment: bytes, offset: int) -> dict[str, Any] | None:
    name, version, *numbers = _MODULE_LINE.unpack_from(segment, offset)
    if not name.rstrip(b"\0"):
        return None
    module: dict[str, Any] = {"name": _text(name), "version": _text(version)}
    module.update(zip(_MODULE_COUNTERS, numbers[:7], strict=True))
    module["event_calls"] = list(numbers[7:23])
    module["commit_ns"] = numbers[23]
    own = segment[offset + _MODULE_LINE.size : offset + _MODULE_BYTES]
    module["counters"] = {_text(label): value for label, value in _MODULE_COUNTER.iter_unpack(own) if label[0]}
    return module


def _text(field_bytes: bytes) -> str:
    return field_bytes.split(b"\0", 1)[0].decode("utf-8", "replace")
