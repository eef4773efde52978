"""What the programming model costs: handlers, user-defined events, registering on one flow."""

from __future__ import annotations

import sys
from pathlib import Path

from common import Capture, Report, Setup, arguments, capture, measure, program
from instructions import instructions

SHAPES = {
    "1 handler of PKT_IN": ("--together", "1"),
    "8 handlers": ("--together", "8"),
    "64 handlers": ("--together", "64"),
    "8 handlers, a socket each": ("--handlers", "8"),
    "64 handlers, a socket each": ("--handlers", "64"),
    "1 user-defined event": ("--predicates", "1"),
    "8 user-defined events": ("--predicates", "8"),
}
LIMITS = {"1 handler of PKT_IN": 60, "8 handlers": 60, "1 user-defined event": 100, "8 user-defined events": 100}


def _dispatch(setup: Setup, report: Report) -> None:
    made = capture(setup, "small", flows=setup.scaled(10_000), packets=setup.scaled(200_000))

    def command(*options: str) -> list[str | Path]:
        return [program(setup, "model_run_v3"), made.path, "--max-flows", "20000", *options]

    def spent(*options: str) -> int:
        return instructions(command(*options), setup.cache / "callgrind.model")

    base = spent()
    report.row("no module", f"{base / made.packets:.0f}", "-", "-")
    for label, options in SHAPES.items():
        idle, busy = spent(*options, "--elsewhere"), spent(*options)
        calls = int(measure(command(*options))["calls"])
        each = (busy - idle) / calls
        report.row(label, f"{busy / made.packets:.0f}", f"{(idle - base) / made.packets:.1f}", f"{each:.1f}")
        if label in LIMITS:
            report.target(f"instructions, {label}, each", each, LIMITS[label])


def _register(setup: Setup, report: Report) -> None:
    path = program(setup, "model_run")
    for flows in (1_000, 100_000, setup.scaled(1_000_000)):
        made: Capture = capture(setup, "concurrent", flows=flows, packets=max(setup.scaled(2_000_000), 4 * flows))
        told = measure([path, made.path, "--max-flows", "1100000", "--register", "4"])
        each = told["registering_ns"] / told["registered"]
        report.notes.append(f"{flows:,} flows, 4 registrations of their own each: {each:.0f} ns a registration.")


def main() -> int:
    setup = arguments(__doc__, runs=1)
    report = Report(
        "Instructions per packet (callgrind, x86-64-v3), empty C handlers",
        ("module", "per packet", "per packet without its calls", "per handler or event"),
    )
    report.attempt(lambda: _dispatch(setup, report))
    report.attempt(lambda: _register(setup, report))
    report.notes.append(
        "Without its calls: the same module registered for an event that does not come, above no module: what it costs "
        "that flows begin and end. The rest is divided by the calls."
    )
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
