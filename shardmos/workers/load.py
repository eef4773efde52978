"""Finds and loads the middleboxes that users name: a Python file, a C file, a shared object, or one we ship.

`MODULE[:key=value]…`, as in `quota.py:limit=5000:burst=10`, or `firewall:rules=@rules.txt` for a value from a file.
What is wrong with one is a ModuleError of one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from shardmos.errors import ModuleError, ShardmosError
from shardmos.middlebox import Middlebox

if TYPE_CHECKING:
    from shardmos.workers.shard import Box, Shard

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MAX_SOURCE = 16 << 20


@dataclass(slots=True)
class CModule:
    """A C middlebox, compiled: the bytes of its shared object."""

    path: str
    code: bytes
    params: dict[str, str] = field(default_factory=dict)
    program: bool = False
    """Its init() runs a whole program, which is not tried beforehand."""

    @property
    def version(self) -> str:
        return hashlib.sha256(self.code).hexdigest()

    def prepare(self, shard: Shard) -> Box:
        """PREPARE in a shard, for `Shard.commit`."""
        fd = os.memfd_create("shardmos-module", os.MFD_CLOEXEC)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(self.code)
            return shard.load_c(fd, self.path, self.version, self.params)
        finally:
            os.close(fd)


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """A module's name and its parameters; a part without "=" belongs to what stands before it."""
    parts = spec.split(":")
    name, params, last = parts[0], {}, ""
    for part in parts[1:]:
        key, equals, value = part.partition("=")
        if equals and _KEY.match(key):
            params[key] = value
            last = key
        elif last:
            params[last] += ":" + part
        else:
            raise ModuleError(f"module {spec!r}: {part!r} is no key=value")
    if not name:
        raise ModuleError(
            f"module {spec!r} has no name; give a .py file, a .c file or the name of one that is built in"
        )
    return name, {key: parameter(key, value) for key, value in params.items()}


def parameter(key: str, value: str) -> str:
    """A parameter's value as commands give it: `@FILE` is what that file holds, `@@` begins a value with one @."""
    if not value.startswith("@"):
        return value
    if value.startswith("@@"):
        return value[1:]
    try:
        return _read(Path(value[1:])).decode()
    except UnicodeDecodeError:
        raise ModuleError(f"parameter {key}: {value[1:]}: is not UTF-8 text") from None
    except ModuleError as error:
        raise ModuleError(f"parameter {key}: {str(error).removeprefix('module ')}") from None


@contextlib.contextmanager
def refusing(file: str, source: str | None = None) -> Iterator[None]:
    """While a module's own code runs before its first packet: whatever it raises, SystemExit too, is a ModuleError of
    one line that names the file and, of what its source (as tracebacks call it) did, the line."""
    try:
        yield
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise ModuleError(f"module {file}{line}: {error.msg}") from None
    except ShardmosError as error:
        text = str(error)
        raise type(error)(text if file in text else f"module {file}: {text}") from None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # the user's, not the module's
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == (source or file)]
        line = f", line {frames[-1].lineno}" if frames else ""
        raise ModuleError(f"module {file}{line}: {type(error).__name__}: {error}") from None


def blamed(middlebox: Middlebox) -> contextlib.AbstractContextManager[None]:
    """refusing() for a middlebox that was loaded from a file; an object of the caller's own raises what it raises."""
    file = middlebox._file
    return refusing(file, os.path.abspath(file)) if file else contextlib.nullcontext()


def load(spec: str) -> Middlebox | CModule:
    """The module that `spec` names, with its parameters set."""
    name, params = split_spec(spec)
    path = find(name)
    if path.suffix == ".py":
        kind = find_class(import_file(path), str(path))
        with refusing(str(path), os.path.abspath(path)):
            made = kind.from_text(params)
        made._file = str(path)
        return made
    if path.suffix == ".so":
        return CModule(str(path), _read(path), params)
    from shardmos.control.compile import compile_c

    _read(path)
    return CModule(str(path), compile_c(str(path)), params)


def find(name: str) -> Path:
    """The file of a module: the one named, or the built-in of that name."""
    path = Path(name)
    if path.suffix in (".py", ".c", ".so"):
        if path.is_dir() or not path.exists():
            raise ModuleError(f"module {name}: {'is a directory' if path.is_dir() else 'no such file'}")
        return path
    shipped = built_in()
    if name not in shipped:
        known = f"built in: {', '.join(sorted(shipped))}" if shipped else "none is built in"
        raise ModuleError(f"module {name!r} is not known; give a .py or .c file ({known})")
    return shipped[name]


def built_in() -> dict[str, Path]:
    """The middleboxes that we ship, by name."""
    folder = Path(__file__).resolve().parent.parent / "middleboxes"
    return {
        path.stem: path for path in sorted(folder.glob("*.*")) if path.suffix in (".c", ".py") and path.stem[0] != "_"
    }


def import_file(path: Path) -> ModuleType:
    """Runs a Python file as a module of its own."""
    _read(path)
    name = f"shardmos_module_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModuleError(f"module {path}: is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look there
    with refusing(str(path), spec.origin):
        spec.loader.exec_module(module)
    return module


def find_class(module: Any, path: str) -> type[Middlebox]:
    """The one middlebox that a module defines."""
    classes = [
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, Middlebox) and member.__module__ == module.__name__
    ]
    # A class that another of the file builds on is its helper.
    leaves = [each for each in classes if not any(other is not each and issubclass(other, each) for other in classes)]
    if len(leaves) != 1:
        found = ", ".join(each.__name__ for each in leaves) or "none"
        raise ModuleError(f"module {path}: one subclass of shardmos.Middlebox is wanted, found {found}")
    return leaves[0]


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_SOURCE:
            raise ModuleError(f"module {path}: larger than {_MAX_SOURCE >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise ModuleError(f"module {path}: {error.strerror}") from None
