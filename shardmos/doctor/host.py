"""What live ports need of the kernel, of this process, and of how the host was set up."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from shardmos.doctor.check import Check, live

# Bits of CapEff in /proc/self/status (capabilities(7)), and what each is for.
CAPABILITIES = {"CAP_NET_RAW": 13, "CAP_NET_ADMIN": 12, "CAP_BPF": 39, "CAP_IPC_LOCK": 14}
_ALL_PORTS = ("CAP_NET_RAW", "CAP_NET_ADMIN")
_SYS_ADMIN = 21  # does what CAP_BPF does
_AFXDP_KERNEL = (5, 10)  # a UMEM shared across queues and devices
_AF_XDP, _AF_PACKET = 44, 17
_LOCKED = 64 << 20
_SHMEM = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")


def kernel() -> Iterator[Check]:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    mend = "" if numbers >= _AFXDP_KERNEL else "AF_XDP wants Linux 5.10 or newer; AF_PACKET works"
    yield live("kernel", f"{platform.system()} {release}", mend)
    for name, family, option in (("AF_PACKET", _AF_PACKET, "CONFIG_PACKET"), ("AF_XDP", _AF_XDP, "CONFIG_XDP_SOCKETS")):
        mend = "" if _has_family(family) else f"this kernel was built without {option}"
        if mend and family == _AF_XDP:
            mend += "; AF_PACKET does without it"
        yield live(f"{name} sockets", "absent" if mend else "present", mend)
    actions = _text("/proc/sys/kernel/seccomp/actions_avail").split()
    mend = "" if "errno" in actions else "workers run without one: the kernel lacks CONFIG_SECCOMP_FILTER"
    yield live("seccomp filters", "present" if not mend else "absent", mend)
    jit = _text("/proc/sys/net/core/bpf_jit_enable")
    if jit == "0":
        yield live("BPF compiler", "off", "fanout is interpreted per packet: sysctl net.core.bpf_jit_enable=1")


def capabilities() -> Iterator[Check]:
    effective = _effective()
    held = [name for name, bit in CAPABILITIES.items() if effective >> bit & 1]
    bpf = effective >> CAPABILITIES["CAP_BPF"] & 1 or effective >> _SYS_ADMIN & 1
    lacking = [name for name in _ALL_PORTS if name not in held]
    mend = "" if bpf else "AF_XDP needs CAP_BPF too; AF_PACKET does without it"
    if lacking:
        mend = f"live ports need {' and '.join(lacking)}: run as root, or as a service (deploy/shardmos.service)"
    yield live("capabilities", ", ".join(held) or "none", mend)


def locked_memory() -> Iterator[Check]:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    found = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft >> 10} KiB"
    if _effective() >> CAPABILITIES["CAP_IPC_LOCK"] & 1:
        found += ", which CAP_IPC_LOCK lifts"
    elif soft != resource.RLIM_INFINITY and soft < _LOCKED:
        yield live("locked memory", found, "AF_XDP: ulimit -l unlimited, or LimitMEMLOCK=infinity in a unit")
        return
    yield live("locked memory", found)


def huge_pages() -> Iterator[Check]:
    """Flow tables and buffers are shared memory that asks for transparent huge pages; hugetlbfs is not used."""
    text = _text(_SHMEM)
    if not text:
        return
    chosen = text.partition("[")[2].partition("]")[0]
    mend = (
        ""
        if chosen in ("always", "within_size", "advise", "force")
        else (f"for many flows, fewer TLB misses: echo advise > {_SHMEM}")
    )
    yield live("huge pages for shared memory", chosen or "unknown", mend)


def cores() -> Iterator[Check]:
    from shardmos.control.affinity import host_plan

    usable = len(os.sched_getaffinity(0))
    if usable > 1:
        isolated = _text("/sys/devices/system/cpu/isolated")
        first = host_plan(usable - 1).workers
        mend = "" if isolated else f"optional, for steady latency: isolcpus={_list(first)} for {len(first)} workers"
        yield live("isolated cores", isolated or "none", mend)
    governors = {_text(path) for path in Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")} - {""}
    if governors:
        mend = "" if governors == {"performance"} else "cpupower frequency-set -g performance"
        yield live("frequency governor", ", ".join(sorted(governors)), mend)


def interrupts() -> Iterator[Check]:
    """irqbalance undoes what `shardmos nic` sets."""
    for entry in Path("/proc").glob("[0-9]*/comm"):
        if _text(entry) == "irqbalance":
            mend = "it moves the interrupts that shardmos nic places: systemctl disable --now irqbalance"
            yield live("irqbalance", f"runs (process {entry.parent.name})", mend)
            return
    yield live("irqbalance", "does not run")


def _effective() -> int:
    """This process's capabilities, as bits."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)


def _has_family(family: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_RAW).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def _list(numbers: tuple[int, ...]) -> str:
    return ",".join(str(number) for number in sorted(numbers))


def _text(path: str | Path) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip()
    return ""
