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
import threading
from pathlib import Path

from shardmos.errors import ModuleError

SECONDS = 60
_MEMORY_KIB = 2 << 20
_FILE_BLOCKS = 128 << 11  # of 512 bytes: 128 MiB
_MAX_OUTPUT = 64 << 10
_NOBODY = 65534
# The group ends when nobody holds the other end of its standard input any more.
_WITH_PARENT = "exec 3<&0 </dev/null; (read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 & exec 3<&-; "
# Nested functions (GNU C) without an executable stack, which glibc 2.41 refuses to modules: what GCC can from 14 on.
_NESTED = "-ftrampoline-impl=heap"
_ASKED = f'"$1" {_NESTED} -fsyntax-only -x c /dev/null >/dev/null 2>&1 && set -- "$@" {_NESTED}; '
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


class Compilers:
    """The compilers under way, so that who stops need not wait for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def started(self, child: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._children.add(child)
            if self._over:
                _kill_group(child)

    def ended(self, child: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._children.discard(child)

    @property
    def over(self) -> bool:
        return self._over

    def end(self) -> None:
        """Kills them, and what is started from now on. From any thread."""
        with self._lock:
            self._over = True
            for child in self._children:
                _kill_group(child)


def compile_c(path_or_source: str | bytes, name: str = "module.c", compilers: Compilers | None = None) -> bytes:
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
        return _compile(compiler, source, name, Path(scratch), compilers or Compilers())


def _compile(compiler: str, source: bytes, name: str, scratch: Path, compilers: Compilers) -> bytes:
    include, output = scratch / "include" / "shardmos", scratch / "module.so"
    include.mkdir(parents=True)
    for header in sorted((header_dir() / "shardmos").glob("*.h")):
        shutil.copyfile(header, include / header.name)
    shown = name.replace("\\", "_").replace('"', "_").replace("\n", "_")
    (scratch / "module").write_bytes(b'#line 1 "' + shown.encode() + b'"\n' + source)
    user = _lower_user(scratch)
    command = [compiler, *_FLAGS, "-I", str(scratch / "include"), "-x", "c", "module", "-o", str(output)]
    lives, alive = os.pipe()  # the write end goes with this process, however that ends
    child = subprocess.Popen(
        limited(command, _WITH_PARENT),
        stdin=lives,
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
    os.close(lives)
    compilers.started(child)
    try:
        text, _ = child.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise CompileError(f"module {name}: the compiler took more than {SECONDS} seconds") from None
    finally:
        compilers.ended(child)
        _kill_group(child)
        child.wait()
        os.close(alive)
    if compilers.over:
        raise CompileError(f"module {name}: was not compiled, since the coordinator stops")
    if child.returncode != 0 or not output.is_file():
        details = text[:_MAX_OUTPUT].decode("utf-8", "replace").strip()
        raise CompileError(f"module {name} does not compile: {_first_error(details, child.returncode)}", details)
    return output.read_bytes()


def limited(command: list[str], before: str = "") -> list[str]:
    """The compiler's command within limits: a shell sets them before it starts, and its children inherit them."""
    limits = f'ulimit -t {SECONDS}; ulimit -f {_FILE_BLOCKS}; ulimit -v {_MEMORY_KIB}; {before}{_ASKED}exec "$@"'
    return ["/bin/sh", "-c", limits, "sh", *command]


def _lower_user(scratch: Path) -> int | None:
    """As root: hands the scratch directory to nobody, whose id is returned."""
    if os.geteuid() != 0:
        return None
    for path in (scratch, *scratch.rglob("*")):
        os.chown(path, _NOBODY, _NOBODY)
    return _NOBODY


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _first_error(details: str, code: int) -> str:
    lines = [line.strip() for line in details.splitlines() if line.strip()]
    for line in lines:
        if "error:" in line or "fatal" in line:
            return line
    return lines[0] if lines else f"the compiler ended with {code}"
