"""What the programming model costs: handlers, user-defined events, registering on one flow."""

from __future__ import annotations

import sys

from common import Capture, Report, Setup, arguments, capture, measure, program
from instructions import instructions

SHAPES = {
    "no module": (),
    "a module that wants none of it (GAP)": ("--unused",),
    "1 handler of PKT_IN": ("--together", "1"),
    "8 handlers": ("--together", "8"),
    "64 handlers": ("--together", "64"),
    "8 handlers, a socket each": ("--handlers", "8"),
    "64 handlers, a socket each": ("--handlers", "64"),
    "1 user-defined event": ("--predicates", "1"),
    "8 user-defined events": ("--predicates", "8"),
}


def _dispatch(setup: Setup, report: Report) -> None:
    made = capture(setup, "small", flows=setup.scaled(10_000), packets=setup.scaled(200_000))
    path, base = program(setup, "model_run_v3"), 0.0
    for label, options in SHAPES.items():
        out = setup.cache / "callgrind.model"
        spent = instructions([path, made.path, "--max-flows", "20000", *options], out) / made.packets
        base = base or spent
        calls = int(options[1]) if len(options) > 1 else 0
        each = f"{(spent - base) / calls:.0f}" if calls else "-"
        report.row(label, f"{spent:.0f}", f"{spent - base:.0f}", each)


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
        ("module", "per packet", "above no module", "per handler or event"),
    )
    report.attempt(lambda: _dispatch(setup, report))
    report.attempt(lambda: _register(setup, report))
    report.notes.append("Wanted: 60 instructions a handler, 100 a user-defined event with its handler.")
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
