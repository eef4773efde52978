"""What the benchmarks share: captures made once, programs built, alternating runs, medians, tables.

Times vary by tens of percent from run to run on a shared machine, so programs that are compared take turns, and what is
judged is the ratio of their medians within one sitting.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent

Result = dict[str, Any]


class Missing(Exception):
    """Something that this machine lacks: what it is and how to get it, in one line."""


class Wrong(Exception):
    """A program counted something else than what is in the capture: its times mean nothing."""


@dataclass(frozen=True)
class Setup:
    """How a benchmark runs. `runs` is per program; `quick` makes captures a tenth as large."""

    cache: Path
    runs: int
    quick: bool
    check: bool

    def scaled(self, count: int) -> int:
        return count // 10 if self.quick else count


@dataclass(frozen=True)
class Capture:
    path: Path
    truth: Result  # what generate printed: packets, flows, stream_bytes, …

    @property
    def packets(self) -> int:
        return int(self.truth["packets"])


def arguments(description: str | None, runs: int = 7) -> Setup:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cache", type=Path, default=HERE / ".cache", help="where captures and programs are kept")
    parser.add_argument("--runs", type=int, default=None, help=f"runs per program ({runs}; 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="captures of a tenth: to try it, not to quote it")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    given = parser.parse_args()
    count = given.runs if given.runs is not None else 3 if given.quick else runs
    if count < 1:
        parser.error("--runs must be at least 1")
    cache: Path = given.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    return Setup(cache, count, given.quick, given.check)


def _last_line(text: str, nothing: str = "it said nothing") -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else nothing


def make(setup: Setup, target: str, why: str) -> None:
    """Builds a target of the Makefile beside this file."""
    command = ["make", "-s", "-C", str(HERE), f"CACHE={setup.cache}", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise Missing(f"{why} ({errors[0].strip() if errors else _last_line(done.stderr)})")


def program(setup: Setup, name: str) -> Path:
    """A C program of src/, built if it must be."""
    path = setup.cache / "bin" / name
    if name.startswith(("engine_run", "model_run")):
        make(setup, "engine-v3" if name.endswith("_v3") else "engine", "the engine does not build")
    else:
        hints = {"nids_count": "libnids is missing: apt-get install libnids-dev libnet1-dev"}
        make(setup, str(path), hints.get(name, f"{name} does not build: it needs a C compiler and libpcap-dev"))
    return path


def capture(setup: Setup, kind: str, **options: int) -> Capture:
    """A generated capture, made once per set of options; its truth lies beside it."""
    generate = program(setup, "generate")
    name = "-".join([kind, *(f"{key}{value}" for key, value in sorted(options.items()))])
    path, truth = setup.cache / f"{name}.pcap", setup.cache / f"{name}.json"
    newest = generate.stat().st_mtime
    if not truth.exists() or not path.exists() or truth.stat().st_mtime < newest:
        print(f"generating {path.name}", file=sys.stderr)
        flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        line = output([str(generate), kind, str(path), *flags])
        truth.write_text(line)
    return Capture(path, json.loads(truth.read_text()))


def output(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> str:
    """Standard output of a program that must succeed."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False,
        env=None if env is None else {**os.environ, **env},
    )  # fmt: skip
    if done.returncode:
        raise Wrong(f"{Path(str(command[0])).name} failed with {done.returncode}: {_last_line(done.stderr)}")
    return done.stdout


def measure(command: Sequence[str | Path]) -> Result:
    """Runs a program that prints one JSON object as its last line."""
    return json_of(output(command))


def json_of(text: str) -> Result:
    """The JSON object in the last line."""
    result: Result = json.loads(_last_line(text, "{}"))
    return result


def measure_whole(command: Sequence[str | Path]) -> Result:
    """The same; `cpu_ns` is then of the whole process, as who waited for it is told."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = measure(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {**result, "cpu_ns": round(spent * 1e9)}


def read_back(path: Path) -> None:
    """Has the page cache hold a file as it was read from the disk: in large folios where the file system has them."""
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while file.read(2**20):
            pass


@contextmanager
def in_pages(made: Capture) -> Iterator[Capture]:
    """A copy that the page cache holds in single pages: as it was written, a page at a time."""
    copy = made.path.with_suffix(".pages")
    try:
        with made.path.open("rb") as source, copy.open("wb", buffering=0) as file:
            while page := source.read(4096):
                file.write(page)
        yield Capture(copy, made.truth)
    finally:
        copy.unlink(missing_ok=True)


def warm(setup: Setup, mebibytes: int) -> None:
    """Has the host give out, before a run, the memory that it will need."""
    subprocess.run([program(setup, "warm"), str(mebibytes)], check=True)


def alternate(runs: int, programs: Mapping[str, Callable[[], Result]]) -> dict[str, list[Result]]:
    """Each program once to warm the page cache (not kept), then `runs` rounds in which each runs once."""
    for run in programs.values():
        run()
    results: dict[str, list[Result]] = {name: [] for name in programs}
    for _ in range(runs):
        for name, run in programs.items():
            results[name].append(run())
    return results


def check_counts(result: Result, made: Capture, *, streams: bool = True, who: str = "the engine") -> None:
    """The counts must be the generator's, or the time is of something else."""
    expected = {key: made.truth[key] for key in ("packets", "flows", "connections")}
    if streams:
        expected["stream_bytes"] = made.truth["stream_bytes"]
    for key, value in expected.items():
        if key in result and result[key] != value:
            raise Wrong(f"{who} counted {key} {result[key]} in {made.path.name}, which has {value}")


@dataclass(frozen=True)
class Times:
    """Of one program, in nanoseconds."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, results: Sequence[Result], key: str = "cpu_ns") -> Times:
        return cls(tuple(float(result[key]) for result in results))

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def spread(self) -> str:
        return f"{(max(self.values) - min(self.values)) / self.median:.0%}"


@dataclass
class Report:
    """Rows under a heading, then targets, then what was missing."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    targets: list[Sequence[str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missed: bool = False
    judged: bool = True

    def checksums(self, result: Result, made: Capture) -> None:
        """The peers verify checksums; an engine that did not has done less work, and no target is judged by it."""
        checked = int(result["counters"].get("checksum_checked", 0))
        if self.judged and checked < 0.99 * made.packets:
            self.judged = False
            self.wrong.append(f"the engine verified {checked} checksums of {made.packets} packets: nothing is judged")

    def row(self, *cells: object) -> None:
        self.rows.append([str(cell) for cell in cells])

    def target(self, what: str, value: float, limit: float, *, at_least: bool = False, unit: str = "") -> None:
        """A number beside what it should be."""
        met = value >= limit if at_least else value <= limit
        self.missed |= not met
        sign = "≥" if at_least else "≤"
        verdict = "not judged" if not self.judged else "met" if met else "MISSED"
        self.targets.append([what, f"{value:.3g}{unit}", f"{sign} {limit:g}{unit}", verdict])

    def attempt(self, part: Callable[[], None]) -> None:
        """Runs one part; what is missing or wrong is told at the end, and the other parts go on."""
        try:
            part()
        except Missing as reason:
            self.missing.append(str(reason))
        except Wrong as reason:
            self.wrong.append(str(reason))

    def finish(self, setup: Setup) -> int:
        """Prints it all; the exit code: 1 if something was wrong, or a target was missed under --check."""
        print(f"\n{self.title}" + (" (quick: small captures, few runs)" if setup.quick else ""))
        if self.rows:
            print_table(self.header, self.rows)
        if self.targets:
            print()
            print_table(("target", "reached", "wanted", ""), self.targets)
        for text in self.notes:
            print(text)
        for text in self.missing:
            print(f"missing: {text}")
        for text in self.wrong:
            print(f"wrong: {text}")
        return 1 if self.wrong or (setup.check and (self.missed or self.missing)) else 0


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """First column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells).rstrip())


def floor_slots(made: Capture) -> int:
    """A table at most half full, for floor."""
    return 1 << max(10, (2 * int(made.truth["flows"]) - 1).bit_length())
