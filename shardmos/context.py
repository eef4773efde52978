"""Sockets over a capture, as in mOS:

with shardmos.Context("trace.pcap") as ctx:
    sock = ctx.socket(shardmos.MONITOR_STREAM)
    sock.bind("tcp port 80")
    sock.register(shardmos.CONN_START, callback, hook=shardmos.SENDER)
    ctx.run()
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Self

from shardmos.errors import ModuleError
from shardmos.middlebox import MONITOR_STREAM, Middlebox
from shardmos.run import RunResult, Session, warn
from shardmos.sockets import Socket
from shardmos.workers.capture import drive, make_config, source_paths
from shardmos.workers.timers import Timer

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Context:
    """A capture, and sockets that watch it. A context manager; runs once, in this process.

    `filter` leaves packets out for all sockets; further keywords are the fields of `ShardConfig`. Raises ShardmosError.
    """

    def __init__(self, source: Source, *, filter: str | None = None, **config: Any) -> None:
        from shardmos.workers.shard import Shard

        paths = source_paths(source)
        self._shard = Shard(make_config(config))
        self._middlebox = _Sockets()
        self._session: Session | None = None
        self._ran = False
        try:
            self._session = Session(self._shard, [self._middlebox])
            if filter is not None:
                self._shard.set_filter(filter)
            self._shard.open_captures(paths)
        except BaseException:
            self.close()
            raise

    def socket(self, kind: int = MONITOR_STREAM) -> Socket:
        """A template socket: MONITOR_STREAM watches flows, MONITOR_RAW packets. They are called in the order in which
        they were made for packets of the client, in reverse for those of the server."""
        self._open()
        return self._middlebox.socket(kind)

    def timer(self, delay: float, callback: Callable[[], Any], period: float | None = None) -> Timer:
        """Calls `callback` in `delay` seconds of packet time (before the first packet: after it), then periodically."""
        self._open()
        return self._middlebox.timer(delay, callback, period)

    def run(self) -> RunResult:
        """Runs the capture to its end. A callback that raises is counted and the first is shown as a warning."""
        self._open()
        if self._ran or self._session is None:
            raise ModuleError("the capture was run already; make another Context")
        self._ran = True
        for _ in drive(self._shard):
            pass
        result = RunResult(counters=self._shard.stats().counters, **self._session.result())
        warn(result)
        return result

    def close(self) -> None:
        """Frees everything. Twice is once."""
        if self._session is not None:
            self._session.release()
            self._session = None
        self._shard.close()

    def _open(self) -> None:
        if self._session is None:
            raise ModuleError("the context is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Sockets(Middlebox):
    """What the sockets of a Context belong to."""

    name = "context"

    def summary(self) -> Any:
        return None
