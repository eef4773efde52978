"""The middlebox firewall over real captures: their most used server is forbidden.

Each frame of it must be gone, and no other. What must pass is worked out here, packet by packet: the rule holds whoever
begins, so that a first packet says nothing that the others do not.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from real_captures import candidates, records, translatable
from renaming import Name, link_bytes, names_of

import shardmos.middleboxes
from shardmos.control.compile import compile_c
from shardmos.run import execute
from shardmos.workers.load import load

PROTOCOLS = {6: "tcp", 17: "udp"}
OVER_IP = (b"\x88\x47", b"\x88\x48", b"\x88\x64", b"\x88\xe7")  # MPLS, PPPoE and 802.1ah carry IP
TUNNELS = {1701, 2152, 3544, 4341, 4789, 4790, 5072, 6081, 6635, 8472, 37008}  # ports of what goes over UDP
Server = tuple[int, Name]


def is_ip(frame: bytes) -> bool:
    link = link_bytes(frame)
    return frame[link - 2 : link] in (b"\x08\0", b"\x86\xdd")


def plain(frame: bytes) -> bool:
    """A whole packet of TCP, UDP or echo whose sums are right, and not one around another; or one that is not IP."""
    if len(frame) < 14 or not is_ip(frame):
        return len(frame) >= 14 and frame[12:14] not in OVER_IP
    if not translatable(frame):
        return False
    proto, source, destination = ends_of(frame)
    return proto != 17 or not TUNNELS & {source[1], destination[1]}


def ends_of(frame: bytes) -> tuple[int, Name, Name]:
    ip = frame[link_bytes(frame) :]
    return ip[9], *names_of(ip)


def forbidden(frame: bytes, server: Server) -> bool:
    if not is_ip(frame):
        return False
    proto, source, destination = ends_of(frame)
    return proto == server[0] and server[1] in (source, destination)


def busiest_server(frames: list[bytes]) -> Server | None:
    """Whom most packets go to, at its lower port."""
    count: Counter[Server] = Counter()
    for frame in frames:
        if is_ip(frame):
            proto, source, destination = ends_of(frame)
            if proto in PROTOCOLS and destination[1] < source[1]:
                count[(proto, destination)] += 1
    return count.most_common(1)[0][0] if count else None


@pytest.fixture(scope="module")
def firewall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once."""
    built = tmp_path_factory.mktemp("built") / "firewall.so"
    built.write_bytes(compile_c(str(Path(shardmos.middleboxes.__path__[0]) / "firewall.c")))
    return built


def check(path: Path, scratch: Path, firewall: Path) -> bool:
    """False: the capture is none for this test."""
    came = [frame for _, frame in records(path) or []]
    if not came or not all(map(plain, came)):
        return False
    server = busiest_server(came)
    if server is None:
        return False
    proto, (address, port) = server
    expected = [frame for frame in came if not forbidden(frame, server)]
    judged = sum(map(is_ip, came))
    for rules, default, line in (
        (f"drop {PROTOCOLS[proto]} to {address} port {port} either", "pass", len(came) - len(expected)),
        (f"drop {PROTOCOLS[proto]} to {address} port {port} either\npass any", "drop", len(came) - len(expected)),
        (f"pass icmp\npass {PROTOCOLS[proto]} to {address} port {port}  either", "drop", None),
    ):
        (scratch / "rules").write_text(rules)
        result = execute(
            path, [load(f"{firewall}:rules=@{scratch / 'rules'}:default={default}")], write=str(scratch / "out.pcap")
        )
        counters, left = result.summaries[0]["counters"], [frame for _, frame in records(scratch / "out.pcap") or []]
        if line is None:
            through = [
                frame for frame in came if not is_ip(frame) or forbidden(frame, server) or ends_of(frame)[0] == 1
            ]
            assert left == through, path
        else:
            assert left == expected, path
            assert counters["line_1"] == counters["packets_dropped"] == line, path
            assert counters["packets_passed"] == judged - line, path
    return True


def test_a_server_is_forbidden_in_a_sample_of_real_captures(corpus: Path, tmp_path: Path, firewall: Path) -> None:
    assert sum(check(path, tmp_path, firewall) for path in candidates(corpus)[::9]) >= 10


@pytest.mark.timeout(1800)
@pytest.mark.conformance
def test_a_server_is_forbidden_in_all_real_captures(corpus: Path, tmp_path: Path, firewall: Path) -> None:
    assert sum(check(path, tmp_path, firewall) for path in candidates(corpus)) >= 100
