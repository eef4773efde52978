"""Events per second into a Python handler."""

from __future__ import annotations

import sys
from functools import partial

from common import Report, Setup, Times, Wrong, alternate, arguments, capture
from peers import run_python, shardmos_python

CODE = """
import json, sys, time
import shardmos as sm

calls = size = 0

class Idle(sm.Middlebox):
    @sm.on(sm.ERROR)
    def never(self, flow):
        pass

class Data(sm.Middlebox):
    @sm.on(sm.NEW_DATA)
    def count(self, flow, data):
        global calls, size
        calls += 1
        size += len(data)

class Keeping(sm.Middlebox):
    @sm.on(sm.NEW_DATA)
    def count(self, flow, data):
        global calls, size
        calls += 1
        flow.state.seen += len(data)
        size += len(data)

class Packets(sm.Middlebox):
    @sm.on(sm.PKT_IN, hook=sm.SENDER)
    def count(self, flow):
        global calls
        calls += 1

begin = time.perf_counter_ns()
sm.run(sys.argv[1], globals()[sys.argv[2]]())
print(json.dumps({"wall": time.perf_counter_ns() - begin, "calls": calls, "bytes": size}))
"""
KINDS = {
    "none (a handler never called)": "Idle",
    "NEW_DATA, len(data)": "Data",
    "NEW_DATA, flow.state too": "Keeping",
    "PKT_IN": "Packets",
}


def _compare(setup: Setup, report: Report) -> None:
    size = setup.scaled(50_000)
    made = capture(setup, "http", connections=size, open=min(4096, size))
    python = shardmos_python()
    programs = {name: partial(run_python, python, CODE, made.path, kind) for name, kind in KINDS.items()}
    results = alternate(setup.runs, programs)
    idle = Times.of(results[next(iter(KINDS))], "wall").median
    for name, kind in KINDS.items():
        calls, seen = results[name][0]["calls"], results[name][0]["bytes"]
        if kind in ("Data", "Keeping") and seen != sum(made.truth["stream_bytes"]):
            raise Wrong(f"the {kind} handler saw {seen} bytes of {made.path.name}")
        if kind == "Packets" and calls != made.packets:
            raise Wrong(f"the {kind} handler was called {calls} times for {made.packets} packets")
        time = Times.of(results[name], "wall")
        each = f"{(time.median - idle) / calls:,.0f}" if calls else "-"
        rate = f"{calls / time.median * 1e9:,.0f}" if calls else "-"
        report.row(name, f"{calls:,}", rate, time.spread, each, f"{time.median / 1e6:,.0f}")


def main() -> int:
    setup = arguments(__doc__, runs=5)
    report = Report(
        f"Events into a Python handler over http, medians of {setup.runs} alternating runs",
        ("handler", "calls", "events/s", "spread", "ns each", "wall ms"),
    )
    report.attempt(lambda: _compare(setup, report))
    report.notes.append("ns each: what a call adds to the run without one.")
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
