"""Features of a device that are off while a port is open, and who puts them back where its coordinator was killed.

A record beside the coordinator's sockets says what was on before. It is locked as long as its writer lives; the next
port on that device takes it over, and puts back what the first one could not.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shardmos.control.interface import Interface, address
from shardmos.control.offloads import active, switch


def _record_name(index: int) -> str:
    """Interfaces are numbered within their network namespace."""
    return f"offloads-{os.stat('/proc/self/ns/net').st_ino}-{index}"


def _device(name: str) -> list[str]:
    """What tells a device from a later one of its number; the record outlives neither."""
    return [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), address(name)]


def _features(data: bytes, name: str) -> set[str]:
    """What a record says of the device; nothing where it is about another one, or no record."""
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        made: dict[str, Any] = json.JSONDecoder().raw_decode(data.decode())[0]
        if made["device"] == _device(name):
            return {str(each) for each in made["features"]}
    return set()


def left_off(name: str, directories: Iterable[str]) -> set[str]:
    """Features that a coordinator, which was killed, had switched off and nobody has put back."""
    found = set[str]()
    for directory in directories:
        with contextlib.suppress(OSError):
            path = os.path.join(directory, _record_name(socket.if_nametoindex(name)))
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # else its writer lives
                found |= _features(file.read(4096), name)
    return found - active(name) if found else found


class SwitchedOff:
    """Features of an interface that are off until `restore`; `changed` says which were on."""

    def __init__(self, of: Interface, features: tuple[str, ...], directory: str) -> None:
        self._of, self.changed, self.stuck = of, set[str](), set[str]()
        self._record = -1
        with contextlib.suppress(OSError):  # a device without such features
            on = active(of.name)
            wanted, before = on & set(features), self._take_record(directory) - on
            if wanted or before:
                self._write(wanted | before)
                with contextlib.suppress(OSError):
                    switch(of.name, wanted, on=False)
                self.stuck = active(of.name) & wanted
                self.changed = wanted - self.stuck | before
                self._write(self.changed)

    def _take_record(self, directory: str) -> set[str]:
        """The record is ours; returns what it said."""
        self._path = os.path.join(directory, _record_name(self._of.index))
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._record = os.open(self._path, flags, 0o600)
            fcntl.flock(self._record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _features(os.pread(self._record, 4096, 0), self._of.name)
        except OSError:  # nothing can be kept there: a killed coordinator leaves the features off
            self._let_go()
            return set()

    def _write(self, features: set[str]) -> None:
        if self._record >= 0:
            data = json.dumps({"device": _device(self._of.name), "features": sorted(features)}).encode()
            os.pwrite(self._record, data, 0)
            os.ftruncate(self._record, len(data))

    def _let_go(self) -> None:
        if self._record >= 0:
            os.close(self._record)
        self._record = -1

    def restore(self) -> None:
        """By number: the interface may have another name by now."""
        with contextlib.suppress(OSError):
            if self.changed:
                switch(socket.if_indextoname(self._of.index), self.changed, on=True)
        self.changed = set()
        if self._record >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._let_go()
