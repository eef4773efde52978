"""Cost per packet as the flows that are open at once grow from 1,000 to 1,000,000."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from common import Report, Result, Setup, Times, alternate, arguments, capture, check_counts, measure, program, warm

SIZES = (1_000, 10_000, 100_000, 1_000_000)
PACKETS = 5_000_000
RATIO = 2.5


def _run(setup: Setup, engine: Path, flows: int) -> Result:
    packets = setup.scaled(PACKETS)
    made = capture(setup, "concurrent", flows=flows, packets=packets)
    warm(setup, 64 + flows * 600 // 2**20)
    # One and the same worker, with the default number of slots; the mark is where the handshakes end.
    result = measure([engine, made.path, "--mark", str(3 * flows)])
    check_counts(result, made)
    opening, all_packets = int(result["mark_packets"]), int(result["packets"])
    after = all_packets - opening
    result["whole"] = result["cpu_ns"] / all_packets
    result["steady"] = (result["end_cpu_ns"] - result["mark_cpu_ns"]) / after if after > all_packets / 20 else 0.0
    return result


def _compare(setup: Setup, report: Report) -> None:
    engine = program(setup, "engine_run")
    packets = setup.scaled(PACKETS)
    sizes = [setup.scaled(size) for size in SIZES]
    programs = {str(flows): partial(_run, setup, engine, flows) for flows in sizes}
    results = alternate(setup.runs, programs)
    report.checksums(results[str(sizes[0])][0], capture(setup, "concurrent", flows=sizes[0], packets=packets))
    whole = {name: Times.of(runs, "whole") for name, runs in results.items()}
    steady = {name: Times.of(runs, "steady") for name, runs in results.items()}
    first, last = str(sizes[0]), str(sizes[-1])
    for flows in sizes:
        name = str(flows)
        report.row(
            f"{flows:,}", f"{whole[name].median:.1f}", f"{whole[name].least:.1f}", whole[name].spread,
            f"{whole[name].median / whole[first].median:.2f}", f"{steady[name].median:.1f}",
            f"{steady[name].median / steady[first].median:.2f}",
        )  # fmt: skip
    report.target(f"cost at {last} flows / at {first}", whole[last].median / whole[first].median, RATIO)


def main() -> int:
    setup = arguments(__doc__, runs=5)
    report = Report(
        f"CPU nanoseconds per packet with N flows open at once, delivered, medians of {setup.runs} alternating runs",
        ("flows", "median", "least", "spread", "ratio", "after the handshakes", "ratio"),
    )
    report.attempt(lambda: _compare(setup, report))
    report.notes.append(
        "Every capture has as many packets: N handshakes, then rounds in which each flow sends once, in an order that"
        "\nchanges from round to round. The first columns hold all of it, with the page faults of a table that fills.\n"
        "A virtual machine's host gives memory out at its first touch: a program that touches as much goes\n"
        "before each run."
    )
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
