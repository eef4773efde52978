"""Compiles a C middlebox with the host's compiler, in a child without privileges and with limits.

Only the file itself and shardmos's headers are there for it: a middlebox is one C file. What runs as root compiles as
`nobody`, so that a source cannot include what its author may not read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from shardmos.errors import ModuleError

SECONDS = 60
_MEMORY_KIB = 2 << 20
_FILE_BLOCKS = 128 << 11  # of 512 bytes: 128 MiB
_MAX_OUTPUT = 64 << 10
_NOBODY = 65534
_FLAGS = ("-std=gnu11", "-O2", "-g1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-fno-diagnostics-color")


class CompileError(ModuleError):
    """`details` has what the compiler wrote."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def header_dir() -> Path:
    """Where `shardmos/shardmos.h` is: inside the package."""
    return Path(__file__).resolve().parent.parent / "include"


def find_compiler() -> str:
    """The C compiler: $CC, or the first of cc, gcc and clang."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    raise CompileError("no C compiler found; install gcc or clang, or push a shared object (.so)")


def compile_c(path_or_source: str | bytes, name: str = "module.c") -> bytes:
    """A C middlebox's shared object. `path_or_source` is a path (text) or the source itself (bytes, called `name`).

    Raises CompileError with the first error in its line and the compiler's output in `details`.
    """
    if isinstance(path_or_source, bytes):
        source = path_or_source
    else:
        name = os.path.basename(path_or_source)
        try:
            source = Path(path_or_source).read_bytes()
        except OSError as error:
            raise CompileError(f"module {path_or_source}: {error.strerror}") from None
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="shardmos-cc-") as scratch:
        return _compile(compiler, source, name, Path(scratch))


def _compile(compiler: str, source: bytes, name: str, scratch: Path) -> bytes:
    include, output = scratch / "include" / "shardmos", scratch / "module.so"
    include.mkdir(parents=True)
    for header in sorted((header_dir() / "shardmos").glob("*.h")):
        shutil.copyfile(header, include / header.name)
    user = _lower_user(scratch)
    shown = name.replace("\\", "_").replace('"', "_").replace("\n", "_")
    command = [compiler, *_FLAGS, "-I", str(scratch / "include"), "-x", "c", "-", "-o", str(output)]
    child = subprocess.Popen(
        limited(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=scratch,
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TMPDIR": str(scratch)},
        process_group=0,
        user=user,
        group=user,
        extra_groups=[] if user is not None else None,
        umask=0o077,
    )
    try:
        text, _ = child.communicate(b'#line 1 "' + shown.encode() + b'"\n' + source, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise CompileError(f"module {name}: the compiler took more than {SECONDS} seconds") from None
    finally:
        _end_group(child)
    if child.returncode != 0 or not output.is_file():
        details = text[:_MAX_OUTPUT].decode("utf-8", "replace").strip()
        raise CompileError(f"module {name} does not compile: {_first_error(details, child.returncode)}", details)
    return output.read_bytes()


def limited(command: list[str]) -> list[str]:
    """The command within limits: a shell sets them before the compiler starts, and its children inherit them."""
    limits = f'ulimit -t {SECONDS}; ulimit -f {_FILE_BLOCKS}; ulimit -v {_MEMORY_KIB}; exec "$@"'
    return ["/bin/sh", "-c", limits, "sh", *command]


def _lower_user(scratch: Path) -> int | None:
    """As root: hands the scratch directory to nobody, whose id is returned."""
    if os.geteuid() != 0:
        return None
    for path in (scratch, *scratch.rglob("*")):
        os.chown(path, _NOBODY, _NOBODY)
    return _NOBODY


def _end_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _first_error(details: str, code: int) -> str:
    lines = [line.strip() for line in details.splitlines() if line.strip()]
    for line in lines:
        if "error:" in line or "fatal" in line:
            return line
    return lines[0] if lines else f"the compiler ended with {code}"
