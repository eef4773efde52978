"""The process that reads captures once for several workers, as a Python object: a thin face of smos_dealer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Self

from shardmos.workers.binding import ERROR_SIZE, ffi, lib
from shardmos.workers.checked import CData, ShardError, nanoseconds, replay_options, text_of
from shardmos.workers.shard import Run


class Dealer:
    """Reads captures once and copies each frame to the rings of the workers that own it. A context manager.

    `fds` are memfds, one per worker; they are sized here and opened in the workers with `Shard.open_ring`.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        fds: Sequence[int],
        owner_seed: int,
        ring_bytes: int = 16 << 20,
        *,
        loop: bool = False,
        rate: float = 0.0,
        as_recorded: bool = False,
        reader: str = "auto",
    ) -> None:
        self._pointer: CData | None = None
        texts, options = replay_options(paths, loop, rate, as_recorded, reader)
        error = ffi.new("char[]", ERROR_SIZE)
        pointer = lib.smos_dealer_open(
            texts.array, len(paths), options, ffi.new("int[]", list(fds)), len(fds), owner_seed, ring_bytes, error
        )
        if pointer == ffi.NULL:
            raise ShardError(text_of(error))
        self._pointer = pointer

    def run(self, max_seconds: float = 0.1) -> Run:
        """Deals for at most `max_seconds`, waiting where a ring is full; TIME, END or FAILED."""
        return Run(lib.smos_dealer_run(self._open(), nanoseconds(max_seconds, "max_seconds")))

    @property
    def error(self) -> str:
        """What reading failed with, "" if it did not."""
        return text_of(lib.smos_dealer_error(self._open()))

    def close(self) -> None:
        """Frees it; the rings stay with their descriptors. Twice is once."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            lib.smos_dealer_close(pointer)

    def _open(self) -> CData:
        if self._pointer is None:
            raise ShardError("the dealer is closed")
        return self._pointer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()
