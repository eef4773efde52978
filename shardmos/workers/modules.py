"""PREPARE in a worker: from what the coordinator sent to a box that the shard can commit."""

from __future__ import annotations

import fcntl
import linecache
import os
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardmos.errors import ModuleError
from shardmos.middlebox import Middlebox
from shardmos.workers.load import find_class, refusing

if TYPE_CHECKING:
    from shardmos.workers.host import Host
    from shardmos.workers.shard import Box, Shard

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(slots=True)
class Prepared:
    """A module ready for COMMIT; `host` is None for native ones."""

    box: Box
    host: Host | None = None

    def take_over(self, old: Prepared) -> None:
        """After its commit in the place of `old`. A C module's state is the engine's to hand over."""
        if self.host is not None and old.host is not None:
            self.host.take_over(old.host)

    def free(self) -> None:
        """Once nothing runs it: after a refusal, or when it was replaced and is idle."""
        self.box.free()
        if self.host is not None:
            self.host.release()


def prepare(shard: Shard, args: Mapping[str, Any]) -> Prepared:
    """Loads a module; runs in a thread beside the packet loop. ShardmosError, of one line, for whatever is wrong."""
    file, version, params = args["file"], args["version"], args["params"]
    if args["kind"] == "object":
        return _prepare_object(shard, args["code"], file, version, params, args["rename"])
    return _prepare_python(shard, args["code"], file, version, params, args["rename"])


def _prepare_object(
    shard: Shard, code: bytes, file: str, version: str, params: Mapping[str, str], rename: str | None
) -> Prepared:
    fd = sealed_memory(code)
    try:
        box = shard.load_c(fd, file, version, params)
    finally:
        os.close(fd)
    if rename is not None and rename != box.name:
        name = box.name
        box.free()
        raise ModuleError(f"module {file}: its name {name} is compiled in; push it without --as")
    return Prepared(box)


def sealed_memory(content: bytes) -> int:
    """A memfd that nobody can change any more."""
    fd = os.memfd_create("shardmos-module", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _prepare_python(
    shard: Shard, code: bytes, file: str, version: str, params: Mapping[str, str], rename: str | None
) -> Prepared:
    from shardmos.workers import host

    middlebox = load_source(code, file, version, params, rename)
    with refusing(file, _shown(file, version)):
        made, box = host.prepare(shard, middlebox, version, contained=True)
    return Prepared(box, made)


def load_source(
    code: bytes, file: str, version: str, params: Mapping[str, str], rename: str | None = None
) -> Middlebox:
    """The middlebox that Python source defines, with its parameters set. `file` is for messages and tracebacks."""
    shown = _shown(file, version)
    module = types.ModuleType(f"shardmos_module_{version[:12]}")
    module.__file__ = shown
    try:
        text = code.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModuleError(f"module {file}: is not UTF-8 text (byte {error.start})") from None
    # Tracebacks show the pushed source's lines, which are in no file here.
    linecache.cache[shown] = (len(text), None, text.splitlines(keepends=True), shown)
    sys.modules[module.__name__] = module  # dataclasses and type hints look there
    with refusing(file, shown):
        exec(compile(text, shown, "exec"), vars(module))
        kind = find_class(module, file)
        if rename is not None:
            kind.name = rename
        return kind.from_text(params)


def _shown(file: str, version: str) -> str:
    """What tracebacks call a pushed source."""
    return f"<{os.path.basename(file)} {version[:12]}>"
