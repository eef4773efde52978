"""What captures and modules need: the decisive checks."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from shardmos.doctor.check import Check
from shardmos.errors import ShardmosError

_WORKER_MEMORY = 1 << 30


def python() -> Iterator[Check]:
    found = f"{platform.python_implementation()} {platform.python_version()}"
    fits = sys.version_info >= (3, 11) and sys.implementation.name == "cpython"
    yield Check("captures", "Python", "ok" if fits else "failed", found, "" if fits else "use CPython 3.11 or newer")


def native() -> Iterator[Check]:
    try:
        from shardmos.workers.binding import ffi, lib

        version = ffi.string(lib.smos_version()).decode()
    except ShardmosError as error:
        yield Check("captures", "native library", "failed", str(error), "pip install --force-reinstall shardmos")
        return
    yield Check("captures", "native library", "ok", f"version {version}, ABI {lib.SMOS_ABI_MAJOR}.{lib.SMOS_ABI_MINOR}")


def processor() -> Iterator[Check]:
    usable = len(os.sched_getaffinity(0))
    machine = platform.machine()
    if machine not in ("x86_64", "aarch64"):
        yield Check("captures", "processor", "warning", f"{machine}, {usable} cores", "tested on x86_64 only")
        return
    mend = "" if usable > 1 else "one core is shared by the coordinator and the worker; give the process two or more"
    yield Check("captures", "processor", "ok" if usable > 1 else "warning", f"{machine}, {usable} cores usable", mend)


def memory() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available >> 20} MiB free of {memory.total >> 20} MiB"
    enough = memory.available >= _WORKER_MEMORY
    yield Check("captures", "memory", "ok" if enough else "warning", found, "" if enough else "use a smaller --memory")


def runtime_directory() -> Iterator[Check]:
    from shardmos.control.protocol import runtime_dir

    try:
        yield Check("captures", "runtime directory", "ok", runtime_dir())
    except ShardmosError as error:
        yield Check(
            "captures", "runtime directory", "failed", str(error),
            "set SHARDMOS_RUNTIME_DIR to a directory of yours, of mode 0700: the coordinator's sockets go there",
        )  # fmt: skip


def compiler() -> Iterator[Check]:
    chosen = os.environ.get("CC")
    for name in [chosen] if chosen else ["cc", "gcc", "clang"]:
        path = shutil.which(name)
        if path:
            yield Check("modules", "C compiler", "ok", path)
            break
    else:
        mend = "apt-get install gcc libc6-dev (only for pushing C sources; Python and shared objects need none)"
        yield Check("modules", "C compiler", "warning", f"{chosen} not found" if chosen else "none found", mend)
    header = Path(__file__).parent.parent / "include" / "shardmos" / "shardmos.h"
    present = header.is_file()
    mend = "" if present else "pip install --force-reinstall shardmos"
    yield Check("modules", "module header", "ok" if present else "failed", str(header), mend)
