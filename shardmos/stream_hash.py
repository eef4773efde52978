"""Hashes what each end of each flow delivered, in whole and by contiguous runs (`--hash sha256`)."""

from __future__ import annotations

import hashlib
from typing import Any

from shardmos.events import CONN_END, NEW_DATA
from shardmos.middlebox import Middlebox, on

MAX_RANGES = 64


class StreamHash:
    """The hash of one stream. Without a gap it is the hash of its only run, so bytes are hashed once."""

    __slots__ = ("_begin", "_next", "_ranges", "_run", "_whole")

    def __init__(self) -> None:
        self._whole: Any = None
        self._run: Any = None  # of the current run, once it differs from the whole
        self._begin = 0
        self._next = 0
        self._ranges: list[list[Any]] = []

    def update(self, offset: int, data: memoryview) -> None:
        if self._whole is None:
            self._whole = hashlib.sha256()
            self._begin = self._next = offset
        elif offset != self._next:
            self._close_run()
            self._begin = self._next = offset
            self._run = hashlib.sha256() if len(self._ranges) < MAX_RANGES else None
        self._whole.update(data)
        if self._run is not None:
            self._run.update(data)
        self._next += len(data)

    def _close_run(self) -> None:
        if len(self._ranges) < MAX_RANGES:
            digest = (self._run or self._whole).hexdigest()
            self._ranges.append([self._begin, self._next - self._begin, digest])

    def result(self) -> tuple[str | None, list[list[Any]] | None]:
        """The hash and the runs; None where nothing was delivered."""
        if self._whole is None:
            return None, None
        self._close_run()
        return self._whole.hexdigest(), self._ranges


class Hasher(Middlebox):
    """Keeps the hashes of ended flows until `take` fetches them for the flow's record."""

    name = "stream-hash"

    class State:
        """The streams by their receiving side."""

        __slots__ = ("streams",)

        def __init__(self) -> None:
            self.streams: list[StreamHash | None] = [None, None]

    def __init__(self) -> None:
        super().__init__()
        self._ended: dict[int, Any] = {}

    @on(NEW_DATA)
    def data(self, flow: Any, data: memoryview) -> None:
        call = flow._host.current()
        streams = flow.state.streams
        side = call.side
        stream = streams[side]
        if stream is None:
            stream = streams[side] = StreamHash()
        stream.update(call.offset, data)

    @on(CONN_END)
    def end(self, flow: Any) -> None:
        server, client = (stream.result() if stream else (None, None) for stream in flow.state.streams)
        # A stream's side is its receiver; records name its sender.
        self._ended[flow.handle] = ((client[0], server[0]), (client[1], server[1]))

    def take(self, handle: int) -> Any:
        """(sha256 pair, ranges pair) of an ended flow, client first."""
        return self._ended.pop(handle, NOTHING)

    def summary(self) -> Any:
        return None


NOTHING = ((None, None), (None, None))
