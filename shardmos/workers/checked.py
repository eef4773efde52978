"""What Python gives the engine, checked: a wrong value is one line, and what C wrote is text."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from shardmos.errors import ModuleError, ShardmosError
from shardmos.workers.binding import ffi

CData: TypeAlias = Any  # a cffi object; `const smos_call_t *` where a handler gets one

_READERS = {"auto": 0, "libpcap": 1, "mapped": 2}
_MAX_NS = 2**63 - 1


class ShardError(ShardmosError):
    """The engine refused: what it said, in one line."""


class CallError(ShardError, ModuleError):
    """A handler called something where, or with what, it cannot be called."""


class Texts:
    """A C array of strings, kept alive together with them."""

    def __init__(self, texts: Iterable[str | bytes], what: str) -> None:
        self._strings = [ffi.new("char[]", encode(text, what)) for text in texts]
        self.array = ffi.new("char *[]", self._strings) if self._strings else ffi.NULL


def replay_options(
    paths: Sequence[str | os.PathLike[str]], loop: bool, rate: float, as_recorded: bool, reader: str
) -> tuple[Texts, CData]:
    if isinstance(paths, str | bytes | os.PathLike) or not paths:
        raise ShardError("captures are given as a list of one or more paths")
    if not (math.isfinite(rate) and rate >= 0):
        raise ShardError(f"rate: {rate} packets per second; give a number from 0 (as fast as possible) on")
    options = ffi.new("smos_replay_options_t *")
    options.rate, options.loop, options.as_recorded = rate, int(loop), int(as_recorded)
    options.reader = choice(reader, _READERS, "reader")
    return Texts([os.fsencode(path) for path in paths], "path"), options


def whole(value: int, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ShardError(f"{name}: {value!r}; give a whole number from 0 on")
    if value >= 2**64:
        raise ShardError(f"{name}: {value} is too large")


def nanoseconds(seconds: float, name: str) -> int:
    if not 0 <= seconds < math.inf:
        raise ShardError(f"{name}: {seconds} seconds; give a number from 0 on")
    return _MAX_NS if seconds >= _MAX_NS // 10**9 else round(seconds * 1e9)


def choice(text: str, choices: Mapping[str, int], name: str) -> int:
    if text not in choices:
        raise ShardError(f"{name}: {text!r}; choose one of {', '.join(choices)}")
    return choices[text]


def encode(text: str | bytes, what: str, refusal: type[ShardmosError] = ShardError) -> bytes:
    if not isinstance(text, str | bytes):
        raise refusal(f"{what}: {text!r} is no text")
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    if b"\0" in data:
        raise refusal(f"{what}: {text!r} has a NUL character in it")
    return data


def alive(result: int, what: str) -> bool:
    if result == -errno.ESTALE:
        return False
    if result < 0:
        raise CallError(f"{what}(): {os.strerror(-result)}")
    return True


def check(result: int, error: CData) -> None:
    if result < 0:
        raise ShardError(text_of(error) or os.strerror(-result))


def text_of(text: CData) -> str:
    return "" if text == ffi.NULL else str(ffi.string(text).decode("utf-8", "replace"))
