"""Flows per second of shardmos.flows() against NFStream, statistics only, on the same capture."""

from __future__ import annotations

import sys
from functools import partial

from common import Report, Setup, Times, Wrong, alternate, arguments, capture
from peers import NFSTREAM, nfstream_python, run_python, shardmos_python

FACTOR = 30

CPU = """
import json, resource, sys, time
def cpu_ns():
    use = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(int((each.ru_utime + each.ru_stime) * 1e9) for each in use)
"""
# Both read the same things of every flow, in a function: its ends, its packets and its bytes each way.
SHARDMOS = f"""{CPU}
from shardmos import flows as read
def main():
    begin, used = time.perf_counter_ns(), cpu_ns()
    flows = packets = size = 0
    first = None
    for flow in read(sys.argv[1]):
        if first is None:
            first = time.perf_counter_ns() - begin
        ends = flow.client, flow.client_port, flow.server, flow.server_port
        flows += 1
        packets += sum(flow.packets)
        size += sum(flow.wire_bytes)
    wall, cpu = time.perf_counter_ns() - begin, cpu_ns() - used
    result = dict(wall=wall, cpu=cpu, first=first, flows=flows, packets=packets, bytes=size)
    print(json.dumps(result))
main()
"""
NFSTREAM_CODE = f"""{CPU}
from nfstream import NFStreamer
def main():
    begin, used = time.perf_counter_ns(), cpu_ns()
    flows = packets = size = 0
    first = None
    for flow in NFStreamer(source=sys.argv[1], n_dissections=0, statistical_analysis=False, n_meters=int(sys.argv[2])):
        if first is None:
            first = time.perf_counter_ns() - begin
        ends = flow.src_ip, flow.src_port, flow.dst_ip, flow.dst_port
        flows += 1
        packets += flow.src2dst_packets + flow.dst2src_packets
        size += flow.src2dst_bytes + flow.dst2src_bytes
    wall, cpu = time.perf_counter_ns() - begin, cpu_ns() - used
    result = dict(wall=wall, cpu=cpu, first=first, flows=flows, packets=packets, bytes=size)
    print(json.dumps(result))
if __name__ == "__main__":
    main()
"""


def _compare(setup: Setup, report: Report) -> None:
    size = setup.scaled(50_000)
    made = capture(setup, "http", connections=size, open=min(4096, size))
    programs = {}
    ours, theirs = "shardmos.flows()", f"{NFSTREAM} n_meters=0"

    def add_ours() -> None:
        programs[ours] = partial(run_python, shardmos_python(), SHARDMOS, made.path)

    def add_theirs() -> None:
        python = nfstream_python(setup)
        for meters in (0, 1):  # its default: a process per core less one; and one process
            programs[f"{NFSTREAM} n_meters={meters}"] = partial(run_python, python, NFSTREAM_CODE, made.path, meters)

    report.attempt(add_ours)
    report.attempt(add_theirs)
    results = alternate(setup.runs, programs)
    for name, runs in results.items():
        for run in runs:
            if (run["flows"], run["packets"]) != (made.truth["flows"], made.packets):
                raise Wrong(f"{name} saw {run['flows']} flows and {run['packets']} packets of {made.path.name}")
    wall = {name: Times.of(runs, "wall") for name, runs in results.items()}
    cpu = {name: Times.of(runs, "cpu").median for name, runs in results.items()}
    flows = int(made.truth["flows"])
    for name, time in wall.items():
        report.row(
            name, f"{flows / time.median * 1e9:,.0f}", f"{flows / time.least * 1e9:,.0f}", time.spread,
            f"{time.median / 1e6:,.0f}", f"{cpu[name] / 1e6:,.0f}",
            f"{Times.of(results[name], 'first').median / 1e6:,.1f}",
        )  # fmt: skip
    if ours in wall and theirs in wall:
        best = min(time.median for name, time in wall.items() if name != ours)
        report.target("flows per second: shardmos / NFStream's better", best / wall[ours].median, FACTOR, at_least=True)
        least = min(used for name, used in cpu.items() if name != ours)
        report.target("the same by CPU time of all processes", least / cpu[ours], FACTOR, at_least=True)


def main() -> int:
    setup = arguments(__doc__, runs=5)
    report = Report(
        f"Flows per second into a Python loop over http, medians of {setup.runs} alternating runs",
        ("program", "flows/s", "best", "spread", "wall ms", "CPU ms", "first flow ms"),
    )
    report.attempt(lambda: _compare(setup, report))
    report.notes.append("Times of the loop, without imports. NFStream: no dissection, no statistics but the counts.")
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
