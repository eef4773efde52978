"""What the shipped firewall costs a packet, by the number of its rules."""

from __future__ import annotations

import sys
from pathlib import Path

from common import ROOT, Report, Setup, arguments, capture, measure, output, program
from instructions import instructions


def rules(count: int) -> str:
    """None fits but the last: pass."""
    return ";".join([f"drop from 192.{n >> 8}.{n & 255}.0" for n in range(count - 1)] + ["pass"])


def _measure(setup: Setup, report: Report) -> None:
    compiled = setup.cache / "firewall.so"
    source, include = ROOT / "shardmos/middleboxes/firewall.c", ROOT / "native/include"
    output(["gcc", "-O2", "-march=x86-64-v3", "-shared", "-fPIC", f"-I{include}", "-o", compiled, source])
    path = program(setup, "model_run_v3")
    for kind, options in (("http", {"connections": 20_000, "open": 4_000}), ("synflood", {"packets": 200_000})):
        made = capture(setup, kind, **{name: setup.scaled(value) for name, value in options.items()})
        base = 0.0
        for label, count in (("no module", 0), ("10 rules", 10), ("1,000 rules", 1_000), ("10,000 rules", 10_000)):
            text = setup.cache / "rules"
            text.write_text(rules(count))
            given: list[str | Path] = ["--module", compiled, "--set", f"rules=@{text}"] if count else []
            command: list[str | Path] = [path, made.path, "--max-flows", "300000", *given]
            measure(command)
            spent = instructions(command, setup.cache / "callgrind.firewall") / made.packets
            base = base or spent
            report.row(kind, label, f"{spent:.0f}", f"{spent - base:.0f}")


def main() -> int:
    setup = arguments(__doc__, runs=1)
    report = Report(
        "Instructions per packet (callgrind, x86-64-v3): the firewall",
        ("capture", "rules", "per packet", "above no module"),
    )
    report.attempt(lambda: _measure(setup, report))
    report.notes.append("In synflood each packet begins a flow, and is judged; in http one of 13 does.")
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
