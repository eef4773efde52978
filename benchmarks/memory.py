"""Memory of one worker that holds 1,000,000 TCP connections at once, with nothing buffered."""

from __future__ import annotations

import sys

from common import Report, Setup, Wrong, arguments, capture, check_counts, measure, program

FLOWS = 1_000_000
LIMIT = 512


def _measure(setup: Setup, report: Report, kept: str, *options: str) -> None:
    flows = setup.scaled(FLOWS)
    made = capture(setup, "concurrent", flows=flows, packets=setup.scaled(5_000_000))
    result = measure([program(setup, "engine_run"), made.path, "--max-flows", str(flows), "--segments", *options])
    check_counts(result, made)
    report.checksums(result, made)
    if result["alive"] != flows:
        raise Wrong(f"{result['alive']} flows were alive at the end, not {flows}: the number per flow means nothing")
    report.row(kept, "process: memory in use", f"{result['memory']:,}", f"{result['memory'] / flows:.1f}")
    for name, segment in result["segments"].items():
        report.row(kept, f"segment {name}: laid out", f"{segment['size']:,}", f"{segment['size'] / flows:.1f}")
        report.row(kept, f"segment {name}: in use", f"{segment['used']:,}", f"{segment['used'] / flows:.1f}")
    report.target(f"bytes per flow, all told, {kept}", result["memory"] / flows, LIMIT, unit=" B")


def main() -> int:
    setup = arguments(__doc__, runs=1)
    report = Report("Memory of one worker with N flows alive", ("kept", "what", "bytes", "per flow"))
    report.attempt(lambda: _measure(setup, report, "all that records tell", "--detail"))
    report.attempt(lambda: _measure(setup, report, "no history"))
    report.notes.append(
        "All told: everything the process has touched, its start included; not the mapped capture, which is the page"
        "\ncache's. Measured at the capture's end, while every flow is still open."
    )
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
