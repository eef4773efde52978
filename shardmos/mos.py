"""mOS programs: C sources written against mOS's monitoring API, compiled with our layer into one module."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from shardmos.control.compile import CompileError, find_compiler, header_dir, limited
from shardmos.errors import ModuleError, UsageError
from shardmos.workers.load import CModule

SOURCES = (".c", ".S", ".s", ".o", ".a")
_MAX_NAME = 63
_COMMON = ("-std=gnu11", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-diagnostics-color")
# Sources from the days of GCC 4: what was a warning then stays at most one.
_LENIENT = (
    "-fgnu89-inline", "-fcommon", "-w", "-Wno-implicit-function-declaration", "-Wno-implicit-int",
    "-Wno-int-conversion", "-Wno-incompatible-pointer-types", "-Wno-return-mismatch",
)  # fmt: skip
# A function that a header calls `inline` is one of each source's, in GCC 4's sense: the first counts.
_LINK = ("-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", "-Wl,-z,muldefs", "-lpthread", "-lm", "-lrt", "-ldl")


def load_mos(sources: Sequence[str], includes: Sequence[str] = (), arguments: Sequence[str] = ()) -> CModule:
    """A mOS program as a module. `arguments` are what its main() gets behind its name; its relative paths begin here.

    Raises CompileError with the first error in its line and the compiler's output in `details`.
    """
    params = {"args": shlex.join(arguments), "folder": os.getcwd()}
    return CModule(sources[0], compile_mos(sources, includes), params, program=True)


def program_name(source: str) -> str:
    """The module's name: the first source's."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", Path(source).stem)[:_MAX_NAME] or "mos"


def split_files(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """The program's sources among the files of a command line, and the others."""
    found = [each for each in files if each.endswith(SOURCES)]
    if not found:
        raise UsageError("--mos wants the program's sources: --mos FILE.c...")
    return found, [each for each in files if not each.endswith(SOURCES)]


def compile_mos(sources: Sequence[str], includes: Sequence[str] = ()) -> bytes:
    """The shared object of a mOS program: its sources with its include folders before ours, and the layer."""
    for path in sources:
        if not os.path.isfile(path):
            raise ModuleError(f"module {path}: no such file")
    for folder in includes:
        if not os.path.isdir(folder):
            raise ModuleError(f"-I {folder}: no such folder")
    compiler = find_compiler()
    ours = header_dir() / "shardmos" / "mos"
    with tempfile.TemporaryDirectory(prefix="shardmos-mos-") as folder:
        scratch = Path(folder)
        named = scratch / "shardmos_name.c"
        named.write_text(f'const char mos__name[] = "{program_name(sources[0])}";\n')
        layer = [scratch / f"shardmos_{number}.o" for number in range(len(_layer(compiler)))]
        for place, code in zip(layer, _layer(compiler), strict=True):
            place.write_bytes(code)
        theirs = [f"-I{os.path.abspath(each)}" for each in includes]
        files = [*(os.path.abspath(path) for path in sources), *(str(path) for path in [named, *layer])]
        output = scratch / "module.so"
        # What mOS's own samples take from its source tree comes last: programs may bring theirs.
        headers = [*_headers(), "-idirafter", f"{ours}/fallback"]
        link = [*_LINK, "-o", str(output)]
        flags, libraries = (shlex.split(os.environ.get(name, "")) for name in ("CFLAGS", "LDLIBS"))
        command = [compiler, *_COMMON, *_LENIENT, *flags, *theirs, *headers, *files, *link, *libraries]
        _run(command, scratch, f"module {sources[0]}")
        return output.read_bytes()


@cache
def _layer(compiler: str) -> list[bytes]:
    """The layer's object files."""
    with tempfile.TemporaryDirectory(prefix="shardmos-mos-") as folder:
        sources = sorted(str(path) for path in (header_dir() / "shardmos" / "mos" / "layer").glob("*.c"))
        _run([compiler, *_COMMON, *_headers(), "-c", *sources], Path(folder), "the mOS layer")
        return [path.read_bytes() for path in sorted(Path(folder).glob("*.o"))]


def _headers() -> list[str]:
    return [f"-I{header_dir() / 'shardmos' / 'mos'}", f"-I{header_dir()}"]


def _run(command: list[str], scratch: Path, what: str) -> None:
    result = subprocess.run(
        limited(command),
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if result.returncode:
        details = result.stdout.decode("utf-8", "replace").strip()
        raise CompileError(f"{what} does not compile: {_reason(details, result.returncode)}", details)


def _reason(details: str, code: int) -> str:
    lines = [line.strip() for line in details.splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith("collect2:")]  # which only says that the linker failed
    words = ("error:", "undefined reference", "fatal", "cannot find", "undefined symbol")
    found = [line for line in own if any(word in line for word in words)]
    return (found or own or lines or [f"the compiler ended with {code}"])[0]
