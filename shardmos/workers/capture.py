"""Drives a shard over a capture to its end, giving out record batches: one loop for flows(), run() and pool workers."""

from __future__ import annotations

import dataclasses
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from shardmos.errors import CaptureError, UsageError
from shardmos.flow import RECORD_SIZE

if TYPE_CHECKING:
    from shardmos.workers.shard import Shard
    from shardmos.workers.shard_config import ShardConfig

TURN_SECONDS = 0.05
_LONGEST_WAIT, _SHORTEST_WAIT = 0.5, 0.0005
_PACKED_MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_OWN = {"worker", "workers", "owner_seed", "records", "publish", "live", "stats_fd", "state_fd", "breadcrumb_fd"}
_KINDS = {"int": "whole number", "float": "number", "str": "word", "bool": "true or false"}
_WORDS = {
    "key": ("5tuple", "vlan"),
    "checksums": ("verify", "ignore"),
}


def drive(shard: Shard, on_events: Callable[[bytes], None] | None = None) -> Iterator[bytes]:
    """Runs the open shard to its end and yields batches of records, b"" at turns without any.

    When the capture is damaged, what came before the damage is yielded first, then CaptureError is raised.
    """
    from shardmos.workers.shard import Run

    while True:
        result = shard.run(TURN_SECONDS)
        if on_events is not None and (events := shard.take_events()):
            on_events(events)
        yield shard.take_records()
        if result & (Run.END | Run.FAILED):
            break
        if result & Run.IDLE:
            _wait(shard)
    failure = shard.error if result & Run.FAILED else ""
    while True:
        result = shard.finish("capture_end")
        if on_events is not None and (events := shard.take_events()):
            on_events(events)
        yield shard.take_records()
        if result & Run.END:
            break
    if failure:
        raise CaptureError(failure)


def _wait(shard: Shard) -> None:
    """Sleeps until the port has packets, in steps short enough for Ctrl-C to be felt everywhere."""
    seconds = shard.wait_seconds()
    descriptor = shard.fileno()
    if descriptor >= 0:
        # Readable wakes it; until then the engine's own clock may still want a turn.
        select.select([descriptor], [], [], min(seconds or _LONGEST_WAIT, _LONGEST_WAIT))
    elif seconds is None or seconds > 0:
        time.sleep(_LONGEST_WAIT if seconds is None else min(seconds, _LONGEST_WAIT))
    else:
        time.sleep(_SHORTEST_WAIT)  # a ring has no descriptor: give its writer the core


def take_extras(annotators: list[Any], records: bytes) -> list[list[Any]] | None:
    """What each annotator has for each record of a batch; None without annotators."""
    if not annotators:
        return None
    takes = [annotator.take for annotator in annotators]
    handles = [int.from_bytes(records[at : at + 8], sys.byteorder) for at in range(0, len(records), RECORD_SIZE)]
    return [[take(handle) for take in takes] for handle in handles]


def source_paths(source: Any) -> list[str]:
    """The paths of a source: one path, several, or "-" for standard input. CaptureError for what cannot be read."""
    if isinstance(source, str | bytes | os.PathLike):
        source = [source]
    try:
        paths = [os.fsdecode(path) for path in source]
    except TypeError:
        raise UsageError(f"a capture is given as a path or a list of paths, not {source!r}") from None
    if not paths:
        raise UsageError('no capture given: name a file, or "-" for standard input')
    if "" in paths:
        raise UsageError('a capture\'s name is empty; name a file, or "-" for standard input')
    if "-" in paths and sys.__stdin__ is None:
        raise CaptureError("standard input is closed; name a file")
    if paths.count("-") > 1:
        raise UsageError('standard input ("-") can be read only once')
    for path in paths:
        _check_path(path)
    return paths


def _check_path(path: str) -> None:
    if path == "-":
        return
    if "\0" in path:
        raise CaptureError(f"{path!r}: a path has no NUL character")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise CaptureError(f"{path}: is a directory; name a capture file in it")
    if not os.access(path, os.R_OK):
        raise CaptureError(f"{path}: not readable by you; check its permissions")


def is_mappable(paths: list[str]) -> bool:
    """Plain files, which every worker can read by itself."""
    for path in paths:
        if path == "-" or not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            if file.read(4).startswith(_PACKED_MAGIC):
                return False
    return True


def make_config(options: dict[str, Any], **fixed: Any) -> ShardConfig:
    """A shard's configuration from a caller's keywords. UsageError names what is no option."""
    from shardmos.workers.shard_config import ShardConfig, check_config

    known = set(ShardConfig.__slots__) - _OWN
    for name in options:
        if name not in known:
            raise UsageError(f"no option {name!r}; there are {', '.join(sorted(known))}")
    for name, words in _WORDS.items():
        if name in options and options[name] not in words:
            raise UsageError(f"{name}: {options[name]!r}; choose one of {', '.join(words)}")
    if isinstance(options.get("memory"), str):
        options = {**options, "memory": parse_size(options["memory"])}
    for field in dataclasses.fields(ShardConfig):
        if field.name in options:
            _check_type(field.name, options[field.name], str(field.type))
    config = ShardConfig(**options, **fixed)
    check_config(config)
    return config


def _check_type(name: str, value: Any, declared: str) -> None:
    """`declared` is the field's annotation, as in "float | None"."""
    wanted = declared.split(" | ")
    if type(value).__name__ in wanted or (value is None and "None" in wanted):
        return
    if not (wanted[0] == "float" and type(value) is int):
        raise UsageError(f"{name}: {value!r} is no {_KINDS.get(wanted[0], wanted[0])}")


def parse_size(text: str) -> int:
    """Bytes from text as in "64M" or "1GiB"; powers of 1024."""
    units = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
    word = text.strip().lower()
    for ending in ("ib", "b"):
        word = word.removesuffix(ending)
    number, unit = (word[:-1], word[-1:]) if word[-1:].isalpha() else (word, "")
    try:
        if unit not in units:
            raise ValueError
        size = int(float(number) * 1024 ** units[unit])
    except (ValueError, OverflowError):
        raise UsageError(f"memory: {text!r} is no size; give bytes, or a number with K, M or G") from None
    if size <= 0:
        raise UsageError(f"memory: {text!r}; give a size above 0")
    return size


def check_workers(workers: int) -> int:
    """UsageError where `workers` is no number of processes that makes sense here."""
    cores = os.cpu_count() or 1
    limit = min(64, 4 * cores)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise UsageError(f"workers: {workers!r}; give a whole number from 1 on")
    if workers > limit:
        raise UsageError(f"{workers} workers are more than make sense on {cores} cores; give at most {limit}")
    return workers
