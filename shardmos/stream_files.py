"""Writes both streams of each flow to files (`--streams DIR`).

`CLIENT.PORT-SERVER.PORT.N.client` has what the client sent, `….server` what the server sent; N counts the flows between
the two from 1. A stream that delivered nothing has no file. `index.jsonl` has a line for each file, with its gaps: a
gap is left out of the file, so bytes after it stand earlier there than in the stream. The index is written by the
process that reads the flows (`Index`): with several workers there is one of it and several writers of streams.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from shardmos.errors import ShardmosError
from shardmos.events import CONN_END, GAP, NEW_DATA, Side
from shardmos.middlebox import Gap, Middlebox, on

MAX_OPEN = 256
MAX_GAPS = 1000
INDEX = "index.jsonl"
_SENDERS = ("server", "client")  # by the receiving side


class _Stream:
    __slots__ = ("gap_bytes", "gaps", "name", "written")

    def __init__(self, name: str) -> None:
        self.name = name
        self.written = 0
        self.gaps: list[tuple[int, int]] = []
        self.gap_bytes = 0


class _Open:
    """Descriptors of the streams written last, at most MAX_OPEN."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptors: OrderedDict[str, int] = OrderedDict()

    def write(self, name: str, data: memoryview, fresh: bool) -> None:
        descriptor = self._descriptors.get(name)
        if descriptor is None:
            if len(self._descriptors) >= MAX_OPEN:
                os.close(self._descriptors.popitem(last=False)[1])
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_TRUNC if fresh else 0)
            descriptor = self._descriptors[name] = os.open(self._folder / name, flags, 0o644)
        else:
            self._descriptors.move_to_end(name)
        while data:
            data = data[os.write(descriptor, data) :]

    def close(self, name: str) -> None:
        descriptor = self._descriptors.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def close_all(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


class StreamFiles(Middlebox):
    """Writes streams as their bytes are delivered. `failure` is what went wrong with a file, if anything did."""

    name = "stream-files"

    class State:
        __slots__ = ("prefix", "streams")

        def __init__(self) -> None:
            self.prefix = ""
            self.streams: list[_Stream | None] = [None, None]

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self._folder = Path(folder)
        self.failure = ""
        self.files = 0
        self._seen: dict[str, int] = {}
        self._ended: dict[int, list[dict[str, Any]]] = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ShardmosError(f"--streams {folder}: {error.strerror}") from None
        self._open = _Open(self._folder)

    def _stream(self, flow: Any, side: int) -> _Stream:
        state = flow.state
        stream: _Stream | None = state.streams[side]
        if stream is None:
            if not state.prefix:
                pair = f"{flow.client}.{flow.client_port}-{flow.server}.{flow.server_port}"
                number = self._seen[pair] = self._seen.get(pair, 0) + 1
                state.prefix = f"{pair}.{number}"
            stream = state.streams[side] = _Stream(f"{state.prefix}.{_SENDERS[side]}")
        return stream

    @on(NEW_DATA)
    def data(self, flow: Any, data: memoryview) -> None:
        if self.failure:
            return
        stream = self._stream(flow, flow.side)
        try:
            with data[:] as rest:  # a view of our own: writing may cut it, and it is gone when the call ends
                self._write(stream, rest)
        except OSError as error:
            self.failure = f"--streams {self._folder}: {stream.name}: {error.strerror}"

    def _write(self, stream: _Stream, data: memoryview) -> None:
        # Only what was never written is truncated: what a former run left of the name goes.
        if not stream.written:
            self.files += 1
        self._open.write(stream.name, data, fresh=not stream.written)
        stream.written += len(data)

    @on(GAP)
    def gap(self, flow: Any, gap: Gap) -> None:
        stream = self._stream(flow, flow.side)
        stream.gap_bytes += gap.length
        if len(stream.gaps) < MAX_GAPS:
            stream.gaps.append((gap.offset, gap.length))

    @on(CONN_END)
    def end(self, flow: Any) -> None:
        lines = []
        for side in (Side.SERVER, Side.CLIENT):
            stream = flow.state.streams[side]
            if stream is None:
                continue
            self._open.close(stream.name)
            lines.append(
                {
                    "stream": stream.name,
                    "bytes": stream.written,
                    "gap_bytes": stream.gap_bytes,
                    "gaps": stream.gaps,
                }
            )
        if lines:
            self._ended[flow.handle] = lines

    def take(self, handle: int) -> list[dict[str, Any]] | None:
        """The index's lines for an ended flow. ShardmosError once a file could not be written."""
        if self.failure:
            raise ShardmosError(self.failure)
        return self._ended.pop(handle, None)

    def close(self) -> None:
        """Closes every file. Twice is once."""
        self._open.close_all()

    def summary(self) -> Any:
        return {"files": self.files}


class Index:
    """`index.jsonl` of a folder of streams."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._file = open(Path(folder) / INDEX, "w", encoding="ascii")  # noqa: SIM115  # closed by close()
        except OSError as error:
            raise ShardmosError(f"--streams {folder}: {error.strerror}") from None

    def add(self, lines: list[dict[str, Any]] | None) -> None:
        for line in lines or ():
            print(json.dumps(line), file=self._file)

    def close(self) -> None:
        self._file.close()
