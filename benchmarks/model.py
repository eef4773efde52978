"""What the programming model costs: handlers, user-defined events, registering on one flow."""

from __future__ import annotations

import sys
from pathlib import Path

from common import Capture, Report, Setup, arguments, capture, measure, program
from instructions import instructions

SHAPES = {
    "1 handler of PKT_IN": ("together", 1),
    "8 handlers": ("together", 8),
    "64 handlers": ("together", 64),
    "8 handlers, a socket each": ("apart", 8),
    "64 handlers, a socket each": ("apart", 64),
    "1 user-defined event": ("filtered", 1),
    "8 user-defined events": ("filtered", 8),
}
LIMITS = {"together": 60, "apart": 60, "filtered": 100}


def _dispatch(setup: Setup, report: Report) -> None:
    made = capture(setup, "small", flows=setup.scaled(10_000), packets=setup.scaled(200_000))
    runner, module = program(setup, "model_run_v3"), program(setup, "model_module.so")

    def command(shape: str, count: int, elsewhere: bool) -> list[str | Path]:
        given = (f"shape={shape}", f"count={count}", f"elsewhere={str(elsewhere).lower()}")
        options = [part for text in given for part in ("--set", text)]
        return [runner, made.path, "--max-flows", "20000", "--module", module, *options]

    out = setup.cache / "callgrind.model"
    base = instructions([runner, made.path, "--max-flows", "20000"], out)
    report.row("no module", f"{base / made.packets:.0f}", "-", "-")
    for label, (shape, count) in SHAPES.items():
        idle, busy = (instructions(command(shape, count, elsewhere), out) for elsewhere in (True, False))
        each = (busy - idle) / int(measure(command(shape, count, False))["calls"])
        report.row(label, f"{busy / made.packets:.0f}", f"{(idle - base) / made.packets:.1f}", f"{each:.1f}")
        report.target(f"instructions of each: {label}", each, LIMITS[shape])


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
