"""Instructions per packet under callgrind: repeatable on a machine that others use too."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from common import (
    Capture,
    Missing,
    Report,
    Setup,
    Wrong,
    arguments,
    capture,
    check_counts,
    floor_slots,
    measure,
    program,
)


def instructions(command: list[str | Path], out: Path) -> int:
    """Instructions inside bench_loop: opening, laying out memory and start-up are left out."""
    valgrind = shutil.which("valgrind")
    if not valgrind:
        raise Missing("valgrind is missing: apt-get install valgrind")
    done = subprocess.run(
        [
            valgrind, "--tool=callgrind", "--toggle-collect=bench_loop", f"--callgrind-out-file={out}",
            *(str(part) for part in command),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("==")]
        raise Wrong(f"{Path(str(command[0])).name} under callgrind failed: {lines[-1] if lines else done.returncode}")
    return int(found[1])


def _captures(setup: Setup) -> dict[str, Capture]:
    return {
        "http": capture(setup, "http", connections=setup.scaled(20_000), open=setup.scaled(4_000)),
        "small": capture(setup, "small", flows=setup.scaled(20_000), packets=setup.scaled(200_000)),
        "ooo": capture(setup, "ooo", connections=setup.scaled(20_000), open=setup.scaled(4_000)),
        "synflood": capture(setup, "synflood", packets=setup.scaled(200_000)),
    }


def main() -> int:
    setup = arguments(__doc__, runs=1)
    report = Report(
        "Instructions per packet (callgrind; the engine built for x86-64-v3)",
        ("capture", "engine: deliver", "engine: track", "floor", "libpcap loop"),
    )
    captures = _captures(setup)
    counted: dict[tuple[str, str], str] = {}

    def count(label: str, name: str, *options: str) -> None:
        path = program(setup, name)
        for kind, made in captures.items():
            slots = [str(floor_slots(made))] if name == "floor" else []
            out = setup.cache / f"callgrind.{kind}.{label.replace(': ', '-').replace(' ', '-')}"
            if name == "engine_run_v3":
                result = measure([path, made.path, *options])
                check_counts(result, made, streams="track" not in options)
                report.checksums(result, made)
            value = instructions([path, made.path, *options, *slots], out)
            counted[kind, label] = f"{value / made.packets:.0f}"

    report.attempt(lambda: count("engine: deliver", "engine_run_v3"))
    report.attempt(lambda: count("engine: track", "engine_run_v3", "--mode", "track"))
    report.attempt(lambda: count("floor", "floor"))
    report.attempt(lambda: count("libpcap loop", "count_pcap"))
    for kind in captures:
        report.row(kind, *(counted.get((kind, label), "-") for label in report.header[1:]))
    report.notes.append("Counted in the packet loop and the ending of open flows only; start and layout are left out.")
    profile = setup.cache / "callgrind.http.engine-deliver"
    if counted.get(("http", "engine: deliver")) and shutil.which("callgrind_annotate"):
        report.notes.append(f"Functions: callgrind_annotate {profile}")
    report.missing = list(dict.fromkeys(report.missing))
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
