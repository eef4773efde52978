"""Two workers against one over the same capture: wall time, and what limits it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from common import (
    Capture,
    Report,
    Result,
    Setup,
    Times,
    Wrong,
    alternate,
    arguments,
    capture,
    json_of,
    measure,
    program,
)


def _together(engine: Path, made: Capture, workers: int) -> Result:
    """All workers at once, one per core, each keeping the packets it owns; the wall time of the slowest."""
    cores = sorted(os.sched_getaffinity(0))
    start = time.perf_counter_ns()
    started = []
    for worker in range(workers):
        command = [str(engine), str(made.path), "--workers", str(workers), "--worker", str(worker)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.sched_setaffinity(process.pid, {cores[worker % len(cores)]})
        started.append(process)
    results: list[Result] = []
    for process in started:
        out, error = process.communicate()
        if process.returncode:
            raise Wrong(f"a worker of {workers} failed: {error.strip()}")
        results.append(json_of(out))
    wall = time.perf_counter_ns() - start
    delivered = [sum(int(result["stream_bytes"][side]) for result in results) for side in (0, 1)]
    if delivered != made.truth["stream_bytes"]:
        raise Wrong(f"{workers} workers delivered {delivered}, the capture has {made.truth['stream_bytes']}")
    return {"wall": wall, "cpu": sum(int(result["cpu_ns"]) for result in results)}


def _compare(setup: Setup, report: Report) -> None:
    engine = program(setup, "engine_run")
    size = setup.scaled(50_000)
    made = capture(setup, "http", connections=size, open=min(4096, size))
    programs = {str(workers): partial(_together, engine, made, workers) for workers in (1, 2)}
    results = alternate(setup.runs, programs)
    wall = {name: Times.of(runs, "wall") for name, runs in results.items()}
    cpu = {name: Times.of(runs, "cpu") for name, runs in results.items()}
    for name in programs:
        report.row(
            name, f"{wall[name].median / 1e6:.1f}", f"{wall[name].least / 1e6:.1f}", wall[name].spread,
            f"{wall[name].median / wall['1'].median:.2f}", f"{cpu[name].median / 1e6:.1f}",
        )  # fmt: skip
    extra = cpu["2"].median / cpu["1"].median - 1
    report.notes.append(
        f"The ideal ratio is 0.50. Two workers spend {extra:+.0%} CPU in all: each walks the whole file and decodes far"
        "\nenough to know the owner of every packet; the walk, the decode and a process's start do not shrink."
    )


def _alone(setup: Setup, report: Report) -> None:
    """One of two workers alone: what a worker pays for packets that are not its own."""
    size = setup.scaled(50_000)
    made = capture(setup, "http", connections=size, open=min(4096, size))
    engine = program(setup, "engine_run")
    half = measure([engine, made.path, "--workers", "2", "--worker", "0"])
    report.checksums(measure([engine, made.path]), made)
    share = sum(half["stream_bytes"]) / sum(made.truth["stream_bytes"])
    report.notes.append(f"Worker 0 of 2 alone: {half['cpu_ns'] / 1e6:.1f} ms of CPU for {share:.0%} of the bytes.")


def main() -> int:
    setup = arguments(__doc__)
    report = Report(
        f"Wall time over http, medians of {setup.runs} alternating runs, {os.cpu_count()} cores",
        ("workers", "wall ms", "least", "spread", "ratio", "CPU ms in all"),
    )
    if len(os.sched_getaffinity(0)) < 2:
        report.notes.append("Only one core may be used here: two workers cannot be faster.")
    report.attempt(lambda: _compare(setup, report))
    if report.rows:
        report.attempt(lambda: _alone(setup, report))
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
