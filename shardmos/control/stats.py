"""Reads the workers' stats segments and adds them up. The workers are not disturbed and need not be alive."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from shardmos.errors import SegmentError
from shardmos.workers.segments import StatsSnapshot, read_stats

_CRUMB = struct.Struct("=8sIIQQQ64s")
_GAUGES = ("flows_now",)
_MODULE_MAXIMA = ("commit_ns",)


class WorkerStats:
    """One worker's counters over all its lives: a restarted worker begins at zero, what it had before is kept here."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: dict[str, int] = {}

    def read(self) -> StatsSnapshot:
        """What it counted so far; empty while it has not begun."""
        snapshot = self._look()
        counters = dict(self._before)
        add_counters(counters, snapshot.counters)
        snapshot.counters.clear()
        snapshot.counters.update(counters)
        return snapshot

    def retire(self) -> None:
        """The worker has died: keeps what it counted, and clears the segment for the next one."""
        add_counters(self._before, {k: v for k, v in self._look().counters.items() if not k.endswith("_now")})
        os.ftruncate(self._fd, 0)

    def _look(self) -> StatsSnapshot:
        size = os.fstat(self._fd).st_size
        if size == 0:
            return StatsSnapshot()
        try:
            with mmap.mmap(self._fd, size, mmap.MAP_SHARED, mmap.PROT_READ) as segment:
                return read_stats(segment)
        except (SegmentError, ValueError):  # between its making and its first line
            return StatsSnapshot()


def read_breadcrumb(fd: int) -> dict[str, Any] | None:
    """What a worker was doing: module ("" for none), flow, packet. None if it left nothing."""
    data = os.pread(fd, _CRUMB.size, 0)
    if len(data) < _CRUMB.size:
        return None
    magic, version, module, flow, packet, heartbeat, name = _CRUMB.unpack(data)
    if magic != b"SMOSCRMB" or version != 1:
        return None
    text = name.split(b"\0", 1)[0].decode("utf-8", "replace") if module else ""
    return {"module": text, "flow": flow, "packet": packet, "heartbeat": heartbeat}


def add_counters(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Adds in place."""
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def sum_modules(each: Iterable[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The modules of all workers, one line a name: counters added, pauses the longest."""
    total: dict[str, dict[str, Any]] = {}
    for modules in each:
        for module in modules:
            have = total.setdefault(module["name"], {"name": module["name"], "version": module["version"]})
            for key, value in module.items():
                if key in ("name", "version"):
                    continue
                if isinstance(value, list):
                    old = have.get(key, [0] * len(value))
                    have[key] = [a + b for a, b in zip(old, value, strict=True)]
                elif isinstance(value, dict):
                    add_counters(have.setdefault(key, {}), value)
                elif key in _MODULE_MAXIMA:
                    have[key] = max(have.get(key, 0), value)
                else:
                    have[key] = have.get(key, 0) + value
    return list(total.values())
