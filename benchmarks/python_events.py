"""Events per second into a Python handler."""

from __future__ import annotations

import sys
from functools import partial

from common import Capture, Report, Setup, Times, Wrong, alternate, arguments, capture
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

begin = time.process_time_ns()
sm.run(sys.argv[1], globals()[sys.argv[2]]())
print(json.dumps({"cpu": time.process_time_ns() - begin, "calls": calls, "bytes": size}))
"""
KINDS = {
    "none (a handler never called)": "Idle",
    "NEW_DATA, len(data)": "Data",
    "NEW_DATA, flow.state too": "Keeping",
    "PKT_IN": "Packets",
}


def _compare(setup: Setup, report: Report, made: Capture) -> None:
    python = shardmos_python()
    programs = {name: partial(run_python, python, CODE, made.path, kind) for name, kind in KINDS.items()}
    results = alternate(setup.runs, programs)
    idle = Times.of(results[next(iter(KINDS))], "cpu").median
    kind_of_capture = str(made.truth["kind"])
    for name, kind in KINDS.items():
        calls, seen = results[name][0]["calls"], results[name][0]["bytes"]
        if kind in ("Data", "Keeping") and seen != sum(made.truth["stream_bytes"]):
            raise Wrong(f"the {kind} handler saw {seen} bytes of {made.path.name}")
        if kind == "Packets" and calls != made.packets:
            raise Wrong(f"the {kind} handler was called {calls} times for {made.packets} packets")
        time = Times.of(results[name], "cpu")
        each = (time.median - idle) / calls if calls else 0
        rates = (f"{1e9 / each:,.0f}", f"{calls / time.median * 1e9:,.0f}") if calls else ("-", "-")
        report.row(
            kind_of_capture, name, f"{calls:,}", f"{each:,.0f}", *rates, time.spread, f"{time.median / 1e6:,.0f}"
        )


def _over_captures(setup: Setup, report: Report) -> None:
    size = setup.scaled(50_000)
    _compare(setup, report, capture(setup, "http", connections=size, open=min(4096, size)))
    _compare(setup, report, capture(setup, "small", flows=setup.scaled(10_000), packets=setup.scaled(1_000_000)))


def main() -> int:
    setup = arguments(__doc__, runs=5)
    report = Report(
        f"Events into a Python handler, CPU time, medians of {setup.runs} alternating runs",
        ("capture", "handler", "calls", "ns each", "calls/s", "engine included", "spread", "CPU ms"),
    )
    report.attempt(lambda: _over_captures(setup, report))
    report.notes.append(
        "ns each: what a call adds to the run without one, the objects of its flows included: a flow has 4 calls"
        " of NEW_DATA in http, 100 in small."
    )
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
