"""Timers of a Python middlebox, on packet time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shardmos.errors import ModuleError
from shardmos.middlebox import check_plain
from shardmos.workers.binding import ffi, lib

if TYPE_CHECKING:
    from shardmos.workers.host import Host
    from shardmos.workers.watcher import Watcher

_CALL = ffi.addressof(lib, "smos_py_call")


class Timer:
    """A timer that was set; `cancel()` ends it."""

    __slots__ = ("_callback", "_flow", "_keep", "_number", "_once", "_timers")

    def __init__(self, timers: Timers, callback: Callable[..., Any], flow: Any, once: bool) -> None:
        self._timers = timers
        self._callback = callback
        self._flow = flow
        self._once = once
        self._number = 0
        self._keep: Any = None

    def cancel(self) -> bool:
        """False if it was over."""
        return self._timers.cancel(self)

    def _fire(self) -> None:
        if self._once:
            self._timers.forget(self)
        if self._flow is None:
            self._callback()
        else:
            self._callback(self._flow)


class Timers:
    """All timers of one middlebox."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._alive: set[Timer] = set()
        self._over: Timer | None = None

    def set(
        self, delay: float, callback: Callable[..., Any], period: float | None, watcher: Watcher | None, flow: Any
    ) -> Timer:
        """Calls `callback` (of a flow's timer with the flow) in `delay` seconds of packet time, then every `period`."""
        if not callable(callback):
            raise ModuleError(f"a timer's callback is called, and {callback!r} cannot be")
        check_plain(callback, "a timer's callback")
        timer = Timer(self, callback, flow, period is None)
        fire = timer._fire
        record = ffi.new("smos_py_call_t *")
        record.host, record.callable, record.kind, record.event = (
            self._host.calls.native, id(fire), lib.SMOS_PY_BARE, lib.SMOS_TIMER,
        )  # fmt: skip
        number = ffi.new("uint64_t *")
        handle = flow.handle if flow is not None else 0
        every = _nanoseconds(period, "period") if period is not None else 0
        if period is not None and every == 0:
            raise ModuleError(f"a timer's period is above 0 seconds, not {period!r}")
        self._host.api("set_timer", handle, _nanoseconds(delay, "delay"), every, _CALL, record, number)
        timer._number, timer._keep = int(number[0]), (fire, record)
        self._alive.add(timer)
        if watcher is not None:
            watcher.timers_of(handle).append(timer)
        return timer

    def cancel(self, timer: Timer) -> bool:
        if timer not in self._alive:
            return False
        self._host.api("cancel_timer", timer._number)
        self.forget(timer)
        return True

    def forget(self, timer: Timer) -> None:
        """It is over; what the engine knows of it lives until the next one is."""
        self._alive.discard(timer)
        self._over = timer


def _nanoseconds(seconds: float, what: str) -> int:
    try:
        value = round(seconds * 1e9)
    except (TypeError, ValueError, OverflowError):
        raise ModuleError(f"a timer's {what} is a number of seconds, not {seconds!r}") from None
    if not 0 <= value < 2**61:
        raise ModuleError(f"a timer's {what} is from 0 seconds on, not {seconds!r}")
    return value
