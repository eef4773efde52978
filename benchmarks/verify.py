"""Checks the generator with programs that nobody here wrote: tshark judges checksums, libnids the streams."""

from __future__ import annotations

import hashlib
import shutil
import sys
from functools import partial
from pathlib import Path

from common import Capture, Missing, Report, Setup, Wrong, arguments, capture, json_of, measure, output, program

KINDS: dict[str, dict[str, int]] = {
    "http": {"connections": 2_000, "open": 500},
    "ooo": {"connections": 2_000, "open": 500},
    "small": {"flows": 1_000, "packets": 10_000},
    "concurrent": {"flows": 1_000, "packets": 10_000},
    "synflood": {"packets": 20_000, "weave": 100},
}
BAD = "tcp.checksum.status != 1 || ip.checksum.status != 1 || frame.len != frame.cap_len"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _same_twice(setup: Setup, kind: str, made: Capture) -> bool:
    again = setup.cache / "again.pcap"
    flags = [text for key, value in KINDS[kind].items() for text in (f"--{key}", str(value))]
    truth = json_of(output([program(setup, "generate"), kind, again, *flags]))
    same = _sha256(again) == _sha256(made.path) and truth["packets"] == made.packets
    again.unlink()
    return same


def _tshark(made: Capture) -> str:
    tshark = shutil.which("tshark")
    if not tshark:
        raise Missing("tshark is missing: apt-get install tshark")
    checks = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]
    fields = ["-T", "fields", "-e", "frame.number"]
    bad = output([tshark, "-n", "-r", made.path, *checks, "-Y", BAD, *fields]).split()
    if bad:
        raise Wrong(f"tshark: {len(bad)} bad packets in {made.path.name}, the first is {bad[0]}")
    streams = set(output([tshark, "-n", "-r", made.path, "-T", "fields", "-e", "tcp.stream"]).split())
    if len(streams) != made.truth["flows"]:
        raise Wrong(f"tshark: {len(streams)} streams in {made.path.name}, not {made.truth['flows']}")
    return "good"


def _libnids(setup: Setup, made: Capture) -> str:
    streams = str(4 * int(made.truth["flows"]))
    found = measure([program(setup, "nids_count"), made.path, streams])
    for key in ("connections", "stream_bytes"):
        if found[key] != made.truth[key]:
            raise Wrong(f"libnids: {key} {found[key]} in {made.path.name}, not {made.truth[key]}")
    return "equal"


def main() -> int:
    setup = arguments(__doc__, runs=1)
    report = Report("The generator", ("capture", "same bytes again", "tshark: checksums", "libnids: streams"))

    def check(kind: str) -> None:
        made = capture(setup, kind, **KINDS[kind])
        cells = {"again": "yes" if _same_twice(setup, kind, made) else "", "tshark": "-", "libnids": "-"}
        if not cells["again"]:
            raise Wrong(f"{kind}: the same arguments gave other bytes")

        def tshark() -> None:
            cells["tshark"] = _tshark(made)

        def libnids() -> None:
            cells["libnids"] = _libnids(setup, made)

        report.attempt(tshark)
        report.attempt(libnids)
        report.row(kind, *cells.values())

    for kind in KINDS:
        report.attempt(partial(check, kind))
    report.missing = list(dict.fromkeys(report.missing))
    return report.finish(setup)


if __name__ == "__main__":
    sys.exit(main())
