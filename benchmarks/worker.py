"""CPU time of one worker that tracks and reassembles everything, against libpcap's bare loop and libnids."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import (
    Capture,
    Missing,
    Report,
    Result,
    Setup,
    Times,
    alternate,
    arguments,
    capture,
    check_counts,
    floor_slots,
    in_pages,
    measure_whole,
    program,
    read_back,
    warm,
)

MEBIBYTES = 64  # more than any of the programs touches


def _checked(setup: Setup, command: list[str | Path], made: Capture, who: str, streams: bool) -> Result:
    warm(setup, MEBIBYTES)
    result = measure_whole(command)
    check_counts(result, made, streams=streams, who=who)
    return result


def _programs(setup: Setup, made: Capture, report: Report) -> dict[str, Callable[[], Result]]:
    found: dict[str, Callable[[], Result]] = {}

    def add(label: str, name: str, *options: str, streams: bool = False) -> None:
        try:
            command: list[str | Path] = [program(setup, name), made.path, *options]
        except Missing as reason:
            if str(reason) not in report.missing:
                report.missing.append(str(reason))
            return
        found[label] = partial(_checked, setup, command, made, label, streams)

    add("engine: deliver", "engine_run", streams=True)
    add("engine: track", "engine_run", "--mode", "track")
    add("libpcap loop", "count_pcap")
    add("libnids", "nids_count", str(4 * int(made.truth["connections"])), streams=True)
    add("floor", "floor", str(floor_slots(made)))
    return found


def _made(setup: Setup, kind: str) -> Capture:
    size = setup.scaled(50_000)
    return capture(setup, kind, connections=size, open=min(4096, size))


def _as_read(setup: Setup, report: Report, kind: str, judged: bool) -> None:
    made = _made(setup, kind)
    read_back(made.path)
    _compare(setup, report, kind, made, judged)


def _as_written(setup: Setup, report: Report) -> None:
    with in_pages(_made(setup, "http")) as made:
        _compare(setup, report, "http in pages", made, judged=True)


def _compare(setup: Setup, report: Report, kind: str, made: Capture, judged: bool) -> None:
    programs = _programs(setup, made, report)
    all_results = alternate(setup.runs, programs)
    for name in all_results.keys() & {"engine: deliver", "engine: track"}:
        report.checksums(all_results[name][0], made)
    times = {name: Times.of(results) for name, results in all_results.items()}
    engine = times.get("engine: deliver")
    for name, time in times.items():
        ratio = f"{engine.median / time.median:.2f}" if engine else "-"
        report.row(
            kind, name, f"{time.median / made.packets:.1f}", f"{time.least / made.packets:.1f}", time.spread, ratio
        )
    if engine and judged:
        for peer, limit in (("libpcap loop", 1.0), ("libnids", 0.2)):
            if peer in times:
                report.target(f"{kind}: engine / {peer}", engine.median / times[peer].median, limit)


def main() -> int:
    setup = arguments(__doc__)
    report = Report(
        f"CPU nanoseconds per packet, one core, medians of {setup.runs} alternating runs",
        ("capture", "program", "median", "least", "spread", "engine / it"),
    )
    report.attempt(lambda: _as_read(setup, report, "http", judged=True))
    report.attempt(lambda: _as_written(setup, report))
    report.attempt(lambda: _as_read(setup, report, "ooo", judged=False))
    report.notes.append("Whole processes: start-up, page faults and tear-down included. Counts are the generator's.")
    report.notes.append("The files were read from the disk; in pages: a copy that was written a page at a time.")
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
