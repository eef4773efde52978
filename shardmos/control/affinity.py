"""Which core each worker runs on, and where the coordinator and ZeroMQ's threads stay."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Plan:
    """`workers[i]` is worker i's core; `rest` are the cores for everything else."""

    workers: tuple[int, ...]
    rest: tuple[int, ...]


def plan(cores: Sequence[int], siblings: Mapping[int, int], workers: int) -> Plan:
    """One core for each worker, and others for the rest where there are enough.

    `siblings` gives each core's place among the threads of its physical core (0 first). Whole physical cores are taken
    before second threads; the first core, which mostly serves interrupts, is left to the rest. With fewer cores than
    workers they share in turn, and the rest may run anywhere.
    """
    ordered = sorted(cores, key=lambda core: (siblings.get(core, 0), core))
    if len(ordered) > workers:
        chosen = ordered[1 : workers + 1]
        return Plan(tuple(chosen), tuple(sorted(set(ordered) - set(chosen))))
    return Plan(tuple(ordered[number % len(ordered)] for number in range(workers)), tuple(sorted(ordered)))


def host_plan(workers: int) -> Plan:
    """The plan for this process's cores (a container may have fewer than the host)."""
    process = psutil.Process()
    cores = process.cpu_affinity() if hasattr(process, "cpu_affinity") else []
    cores = cores or list(range(psutil.cpu_count() or 1))
    return plan(cores, {core: _place_among_siblings(core) for core in cores}, workers)


def _place_among_siblings(core: int) -> int:
    try:
        with open(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") as file:
            text = file.read()
    except OSError:
        return 0
    first = [int(part.split("-")[0]) for part in text.strip().split(",") if part]
    threads = sorted({core, *first, *(int(part.split("-")[1]) for part in text.strip().split(",") if "-" in part)})
    return threads.index(core)


def pin(cores: Sequence[int]) -> None:
    """Keeps the calling thread on these cores; where the system refuses (a container), it runs where it may."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cores)
