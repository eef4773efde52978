"""The control plane while two workers are saturated: push-to-active latency, and the round trip of `stats`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import HERE, Capture, Report, Result, Setup, Times, Wrong, arguments, capture
from peers import run_python, shardmos_python

START_SECONDS = 20

# A push is answered when every worker has committed it, so its reply says "active".
CODE = """
import json, sys, time
import shardmos as sm

name, rounds, python_module, c_module = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]

def timed(call):
    begin = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - begin

with sm.Client(name) as client:
    result = {"ping": [], "stats": [], "python": [], "c": []}
    for _ in range(20 * rounds):
        result["ping"].append(timed(client.ping))
        result["stats"].append(timed(client.stats))
    for _ in range(rounds):
        result["python"].append(timed(lambda: client.push(python_module)))
        result["c"].append(timed(lambda: client.push(c_module)))
print(json.dumps(result))
"""


class Coordinator:
    """`shardmos up` with two workers that replay a capture in a loop as fast as they can."""

    def __init__(self, setup: Setup, python: Path, made: Capture) -> None:
        self.name = f"bench-{os.getpid()}"
        self._log = setup.cache / "coordinator.log"
        self._python = python
        command: list[str | Path] = [python.parent / "shardmos", "up", "--name", self.name, "--replay", made.path]
        command += ["--loop", "-w", "2"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def __enter__(self) -> Coordinator:
        end = time.monotonic() + START_SECONDS
        probe = "import sys, shardmos\nwith shardmos.Client(sys.argv[1]) as c: c.ping()\nprint('{}')"
        while True:
            if self._process.poll() is not None:
                raise Wrong(f"shardmos up ended with {self._process.returncode}: {self.said()}")
            try:
                run_python(self._python, probe, self.name)
            except Wrong as reason:
                if time.monotonic() > end:
                    self._process.kill()
                    raise Wrong(f"the coordinator did not answer in {START_SECONDS} s: {reason}") from None
                time.sleep(0.1)
            else:
                return self

    def said(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def __exit__(self, *error: object) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _measure(setup: Setup, report: Report) -> None:
    size = setup.scaled(50_000)
    made = capture(setup, "http", connections=size, open=min(4096, size))
    python = shardmos_python()
    modules = HERE / "src"
    with Coordinator(setup, python, made) as coordinator:
        result: Result = run_python(
            python, CODE, coordinator.name, setup.runs, modules / "count_module.py", modules / "count_module.c"
        )
    labels = {
        "stats": "stats round trip",
        "ping": "ping round trip",
        "python": "push of a Python module to active",
        "c": "push of a C module to active (compiled at the first push)",
    }
    for key, label in labels.items():
        times = Times(tuple(float(value) for value in result[key]))
        most = max(times.values)
        report.row(label, len(times.values), *(f"{value / 1e6:.2f}" for value in (times.median, times.least, most)))


def main() -> int:
    setup = arguments(__doc__, runs=10)
    report = Report("Milliseconds, two workers saturated", ("what", "times", "median", "least", "most"))
    report.attempt(lambda: _measure(setup, report))
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
