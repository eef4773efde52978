"""Looks at the host: what shardmos needs for captures, for pushing C modules, and for live ports, and how to mend it.

Every check reads, and needs no privileges; all that is changed is that a missing runtime directory is made. The checks
for captures decide the exit code, since they are what everyone needs; the others are warnings.
"""

from __future__ import annotations

import ctypes.util
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shardmos.errors import ShardmosError

State = Literal["ok", "warning", "failed"]

# Bits of CapEff in /proc/self/status (capabilities(7)).
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_NICE": 23, "CAP_BPF": 39}
_LIVE_CAPABILITIES = ("CAP_NET_RAW", "CAP_NET_ADMIN")
_AFXDP_KERNEL = (5, 9)  # shared UMEM across queues, BPF links for XDP
_WORKER_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `mend` is what to do, "" where nothing is to be done."""

    purpose: Literal["captures", "modules", "live"]
    name: str
    state: State
    found: str
    mend: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def examine() -> Iterator[Check]:
    """Every check, in the order of their importance."""
    for check in _CHECKS:
        try:
            yield from check()
        except OSError as error:
            # A host may hide any of /proc and /sys; that is a finding, not a failure of the doctor.
            yield Check("live", check.__name__.removeprefix("_"), "warning", f"cannot be looked at: {error}")


def _python() -> Iterator[Check]:
    found = f"{platform.python_implementation()} {platform.python_version()}"
    fits = sys.version_info >= (3, 11) and sys.implementation.name == "cpython"
    yield Check("captures", "Python", "ok" if fits else "failed", found, "" if fits else "use CPython 3.11 or newer")


def _native() -> Iterator[Check]:
    from shardmos.errors import ShardmosError

    try:
        from shardmos.workers.binding import ffi, lib

        version = ffi.string(lib.smos_version()).decode()
    except ShardmosError as error:
        yield Check("captures", "native library", "failed", str(error), "pip install --force-reinstall shardmos")
        return
    yield Check("captures", "native library", "ok", f"version {version}, ABI {lib.SMOS_ABI_MAJOR}.{lib.SMOS_ABI_MINOR}")


def _processor() -> Iterator[Check]:
    usable = len(os.sched_getaffinity(0))
    machine = platform.machine()
    if machine not in ("x86_64", "aarch64"):
        yield Check("captures", "processor", "warning", f"{machine}, {usable} cores", "tested on x86_64 only")
        return
    mend = "" if usable > 1 else "one core is shared by the coordinator and the worker; give the process two or more"
    yield Check("captures", "processor", "ok" if usable > 1 else "warning", f"{machine}, {usable} cores usable", mend)


def _memory() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available >> 20} MiB free of {memory.total >> 20} MiB"
    enough = memory.available >= _WORKER_MEMORY
    yield Check("captures", "memory", "ok" if enough else "warning", found, "" if enough else "use a smaller --memory")


def _runtime_directory() -> Iterator[Check]:
    from shardmos.control.protocol import runtime_dir

    try:
        yield Check("captures", "runtime directory", "ok", runtime_dir())
    except ShardmosError as error:
        yield Check(
            "captures", "runtime directory", "failed", str(error),
            "set XDG_RUNTIME_DIR to a directory of yours: the coordinator's sockets go there",
        )  # fmt: skip


def _compiler() -> Iterator[Check]:
    chosen = os.environ.get("CC")
    for name in [chosen] if chosen else ["cc", "gcc", "clang"]:
        path = shutil.which(name)
        if path:
            yield Check("modules", "C compiler", "ok", path)
            break
    else:
        mend = "apt-get install gcc libc6-dev (only for pushing C sources; Python and shared objects need none)"
        yield Check("modules", "C compiler", "warning", f"{chosen} not found" if chosen else "none found", mend)
    header = Path(__file__).parent / "include" / "shardmos" / "shardmos.h"
    present = header.is_file()
    mend = "" if present else "pip install --force-reinstall shardmos"
    yield Check("modules", "module header", "ok" if present else "failed", str(header), mend)


def _kernel() -> Iterator[Check]:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    fits = numbers >= _AFXDP_KERNEL
    mend = "" if fits else "AF_XDP wants Linux 5.9 or newer; AF_PACKET works"
    yield Check("live", "kernel", "ok" if fits else "warning", f"{platform.system()} {release}", mend)


def _capabilities() -> Iterator[Check]:
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    held = [name for name, bit in _CAPABILITIES.items() if effective >> bit & 1]
    lacking = [name for name in _LIVE_CAPABILITIES if name not in held]
    mend = f"run as root, or through a service that grants {' and '.join(lacking)}" if lacking else ""
    yield Check("live", "capabilities", "warning" if lacking else "ok", ", ".join(held) or "none", mend)


def _libraries() -> Iterator[Check]:
    found = {name: ctypes.util.find_library(name) for name in ("xdp", "bpf")}
    lacking = [f"lib{name}" for name, path in found.items() if not path]
    mend = "apt-get install libxdp1 libbpf1 (only for AF_XDP ports)" if lacking else ""
    text = ", ".join(path for path in found.values() if path) or "none of libxdp, libbpf"
    yield Check("live", "AF_XDP libraries", "warning" if lacking else "ok", text, mend)


def _locked_memory() -> Iterator[Check]:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    enough = soft == resource.RLIM_INFINITY or soft >= 64 << 20
    found = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft >> 10} KiB"
    mend = "" if enough else "raise it for AF_XDP: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit"
    yield Check("live", "locked memory", "ok" if enough else "warning", found, mend)


def _huge_pages() -> Iterator[Check]:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields.get("HugePages_Free", "0").split()[0])
    size = fields.get("Hugepagesize", "0 kB").strip()
    mend = "" if free else "optional, for many flows: sysctl vm.nr_hugepages=512"
    yield Check("live", "huge pages", "ok" if free else "warning", f"{free} free of {size}", mend)


def _interfaces() -> Iterator[Check]:
    root = Path("/sys/class/net")
    names = sorted(entry.name for entry in root.iterdir() if (entry / "queues").is_dir() and entry.name != "lo")
    if not names:
        yield Check("live", "interfaces", "warning", "none but lo", "live ports need an interface; captures do not")
    cores = len(os.sched_getaffinity(0))
    for name in names:
        state = (root / name / "operstate").read_text().strip()
        queues = len(list((root / name / "queues").glob("rx-*")))
        mend = ""
        if state in ("up", "unknown") and queues == 1 < cores:
            mend = f"one receive queue: more workers share it by fanout (ethtool -L {name} combined N, if the NIC can)"
        yield Check("live", f"interface {name}", "warning" if mend else "ok", f"{state}, {queues} rx queues", mend)


_CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python,
    _native,
    _processor,
    _memory,
    _runtime_directory,
    _compiler,
    _kernel,
    _capabilities,
    _libraries,
    _locked_memory,
    _huge_pages,
    _interfaces,
)


def healthy(checks: list[Check]) -> bool:
    """Nothing that captures or modules cannot do without is missing."""
    return all(check.state != "failed" for check in checks)


def report(checks: list[Check]) -> dict[str, Any]:
    """The checks as an object for JSON."""
    return {"healthy": healthy(checks), "checks": [check.to_dict() for check in checks]}
