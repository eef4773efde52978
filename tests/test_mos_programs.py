"""mOS programs of the kinds that were written for it: firewalls, translators, accounting, detection of signatures.

What they should print is worked out here from what was sent.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from mos_run import PROGRAMS, Run
from traffic import ACK, FIN, PSH, SYN, conversation, tcp_frame, write_pcap

from shardmos.control.compile import find_compiler
from shardmos.mos import compile_mos
from shardmos.run import execute
from shardmos.workers.load import CModule

Address = tuple[str, int]
WEB: Address = ("198.51.100.7", 80)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(capfd, tmp_path)


def written(path: Path) -> list[bytes]:
    data, at, out = path.read_bytes(), 24, list[bytes]()
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at + 8)
        out.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return out


def ends(frame: bytes) -> tuple[Address, Address, int]:
    """Source, destination and flags."""
    sport, dport = struct.unpack_from("!HH", frame, 34)
    source, destination = (str(ipaddress.IPv4Address(frame[at : at + 4])) for at in (26, 30))
    return (source, sport), (destination, dport), frame[47]


# ---- a firewall of several sources ----

RULES = """\
# subscribers
DROP   10.1.0.0/16     0.0.0.0/0      dport:23     # no telnet
ACCEPT 10.1.2.0/24     198.51.100.7   dport:8080
DROP   0.0.0.0/0       198.51.100.0/28 dport:8080

ACCEPT 10.2.0.9        0.0.0.0/0      sport:40003
DROP   10.2.0.0/24     0.0.0.0/0
"""

CONF = """\
mos {
    forward = 1
    nb_mem_channels = 4
    netdev {
        dpdk0 0x000F
        dpdk1 0x000F
    }
    stat_print = dpdk0 dpdk1
    mos_log = logs/
    arp_table {
    }
    route_table {
        10.0.0.0/8 dpdk0
    }
    nic_forward_table {
        dpdk0 dpdk1
    }
    multiprocess = 0 master
    port = dpdk0
    # what follows is obeyed
    max_concurrency = 100000
    no_ring_buffers = 1
    rmem_size = 8192
    wmem_size = 8192
    tcp_tw_interval = 30
    tcp_timeout = 30
}
"""


def decide(source: Address, destination: Address) -> tuple[int, bool]:
    """Which rule counts (-1: none), and whether it lets the connection in."""
    for number, line in enumerate(
        line.split("#")[0].split() for line in RULES.splitlines() if line.split("#")[0].strip()
    ):
        ports = dict(word.split(":") for word in line[3:])
        if ipaddress.ip_address(source[0]) not in ipaddress.ip_network(line[1]):
            continue
        if ipaddress.ip_address(destination[0]) not in ipaddress.ip_network(line[2]):
            continue
        if (
            int(ports.get("sport", source[1])) == source[1]
            and int(ports.get("dport", destination[1])) == destination[1]
        ):
            return number, line[0] == "ACCEPT"
    return -1, True


@pytest.mark.parametrize("workers", [1, 2])
def test_a_firewall_of_several_sources(run: Run, tmp_path: Path, workers: int) -> None:
    chance = random.Random(4)
    clients = [("10.1.2.3", 40001), ("10.1.9.9", 40002), ("10.2.0.9", 40003), ("10.2.0.9", 40004), ("10.3.1.1", 40005)]
    servers = [(address, port) for address in ("198.51.100.7", "198.51.100.200") for port in (23, 80, 8080)]
    pairs = [(client, server) for client in clients for server in servers]
    chance.shuffle(pairs)
    frames = [frame for client, server in pairs for frame in conversation(client=client, server=server)]
    hits, kept = [0] * 5, []
    for frame in frames:
        source, destination, flags = ends(frame)
        rule, lets_in = decide(source, destination) if flags == SYN else (-1, True)
        if rule >= 0:
            hits[rule] += 1
        if lets_in:
            kept.append(frame)
    (tmp_path / "rules").write_text(RULES)
    (tmp_path / "mos.conf").write_text(CONF)
    (tmp_path / "settings").write_text("# of the program\ngreeting = good day  # said once\nother = 1\n")
    arguments = ["-c", "mos.conf", "-f", "rules", "-s", "settings"]
    program = ("fw/main", "fw/rules")
    told = run(program, frames, *arguments, step=0.02, workers=workers, write="out.pcap" if workers == 1 else None)
    assert told.count("good day, as it was, MOS_ON_ORPHAN") == workers
    counts = [[int(n) for n in line.split()[1:]] for line in told if line.startswith("end:")]
    assert [sum(each) for each in zip(*counts, strict=True)] == hits
    assert sum(line.startswith("table:") for line in told) >= 4
    warnings = [line for line in run.errors if "warning" in line]
    assert len(warnings) == workers
    assert warnings[0].endswith(
        "nb_mem_channels, netdev, stat_print, mos_log, arp_table, route_table, nic_forward_table, multiprocess, port"
    )
    if workers == 1:
        assert written(tmp_path / "out.pcap") == kept


# ---- translation with pools of ports ----


@pytest.mark.parametrize("workers", [1, 2])
def test_translation_with_a_pool_for_each_worker(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Which ports are taken is learned from the SYNs; then the same again, with the servers' answers to them."""
    monkeypatch.setattr("os.urandom", bytes)  # the same workers own the same flows both times
    outside = "192.0.2.1"
    clients = [(f"10.0.{n // 8}.{n % 8 + 1}", 30000 + n) for n in range(40)]
    told = run("pools", [tcp_frame(client, WEB, 1000, 0, SYN) for client in clients], "-i", outside, workers=workers)
    ports = {line.split()[0]: int(line.split()[2]) for line in told if " as " in line}
    assert len(ports) == 40
    assert len(set(ports.values())) == 40  # workers have one pool each, and take from it what is theirs
    frames, expected = list[bytes](), list[bytes]()
    for out, into, sent in ((frames, True, False), (expected, False, True)):
        for client in clients:
            translated = (outside, ports[f"{client[0]}:{client[1]}"])
            sender, receiver = translated if sent else client, translated if into else client
            out += [
                tcp_frame(sender, WEB, 1000, 0, SYN),
                tcp_frame(WEB, receiver, 9000, 1001, SYN | ACK),
                tcp_frame(sender, WEB, 1001, 9001, ACK | PSH, b"hello"),
                tcp_frame(WEB, receiver, 9001, 1006, FIN | ACK),
                tcp_frame(sender, WEB, 1006, 9002, FIN | ACK),
                tcp_frame(WEB, receiver, 9002, 1007, ACK),
            ]
    told = run("pools", frames, "-i", outside, workers=workers, write="out.pcap" if workers == 1 else None)
    totals = [[int(word) for word in line.split() if word.isdigit()] for line in told if "taken" in line]
    assert [sum(each) for each in zip(*totals, strict=True)] == [40, 40, 0, 120]
    if workers == 1:
        assert written(tmp_path / "out.pcap") == expected


def test_a_pool_that_is_empty(run: Run, tmp_path: Path) -> None:
    syns = [tcp_frame((f"10.0.0.{n + 1}", 30000), WEB, 1000, 0, SYN) for n in range(5)]
    told = run("pools", syns, "-i", "192.0.2.1", "-n", "3", write="out.pcap")
    assert told[-1] == "3 taken, 3 given back, 2 without a port, 0 answers"
    assert [ends(frame)[0] for frame in written(tmp_path / "out.pcap")] == [("192.0.2.1", 1025 + n) for n in range(3)]


# ---- accounting ----


def test_accounting_of_retransmissions(run: Run, tmp_path: Path) -> None:
    """Half of the repeated segments are honest, half bring other bytes; some overlap others partly."""
    chance = random.Random(9)
    frames, expected = list[bytes](), dict[str, list[int]]()
    for n in range(12):
        client = (f"10.0.0.{n % 5 + 1}", 30000 + n)
        account = expected.setdefault(client[0], [0, 0, 0])
        frames += conversation(client=client, server=WEB)[:3]
        data = bytes(chance.randrange(256) for _ in range(3000))
        for at in range(0, 3000, 500):
            frames.append(tcp_frame(client, WEB, 1001 + at, 9001, ACK, data[at : at + 500]))
            account[0] += 500
            if chance.random() < 0.6 and at:
                begin, end = at - chance.randrange(200), at + chance.randrange(1, 500)
                honest = chance.random() < 0.5
                again = data[begin:end] if honest else data[begin : end - 1] + bytes([data[end - 1] ^ 1])
                frames.append(tcp_frame(client, WEB, 1001 + begin, 9001, ACK, again))
                account[0] += len(again)
                account[1] += len(again)
                account[2] += not honest
    told = run("accounts", frames, write="out.pcap")
    assert told == [f"{client} {sent} {again} {forged}" for client, (sent, again, forged) in expected.items()]
    assert len(written(tmp_path / "out.pcap")) == len(frames) - sum(forged for _, _, forged in expected.values())


# ---- signatures ----


def pieces(chance: random.Random, data: bytes) -> Iterator[tuple[int, bytes]]:
    """The bytes cut anywhere, some pieces late, some twice."""
    cuts = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(len(data) // 40))})
    parts = [(begin, data[begin:end]) for begin, end in pairwise(cuts)]
    for at in range(0, len(parts), 4):
        group = [*parts[at : at + 4], chance.choice(parts[: at + 4])]
        chance.shuffle(group)
        yield from group


SIGNATURES = ["attack", "/etc/passwd", "x-evil: 1", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"]


@pytest.mark.parametrize("workers", [1, 2])
def test_signatures_wherever_segments_cut_them(run: Run, workers: int) -> None:
    chance = random.Random(17)
    frames, expected = list[list[bytes]](), list[str]()
    for n in range(24):
        client = (f"10.0.1.{n + 1}", 30000 + n)
        talk = conversation(client=client, server=WEB)[:3]
        sides = []
        for mark in "><":
            data = bytearray(chance.choice(b"abcdefghijkl \r\n") for _ in range(chance.randrange(200, 2500)))
            for signature in chance.sample(SIGNATURES, chance.randrange(3)):
                at = chance.randrange(len(data) - len(signature))
                data[at : at + len(signature)] = signature.encode()
            sides.append(bytes(data))
            text = bytes(data).decode()
            expected += [f"{client[0]}:{client[1]} {mark} {s}" for s in SIGNATURES if s in text]
        for begin, part in pieces(chance, sides[0]):
            talk.append(tcp_frame(client, WEB, 1001 + begin, 9001, ACK, part))
        for begin, part in pieces(chance, sides[1]):
            talk.append(tcp_frame(WEB, client, 9001 + begin, 1001 + len(sides[0]), ACK, part))
        frames.append(talk)
    mixed = []
    while any(frames):
        mixed.append(chance.choice([talk for talk in frames if talk]).pop(0))
    told = run("ids", mixed, *SIGNATURES, workers=workers)
    assert sorted(line for line in told if line[:3] == "10.") == sorted(expected)
    assert sum(int(line.split()[0]) for line in told if "ended" in line) == 24
    assert not any(line.startswith("lost") for line in told)


def test_a_signature_resets_the_connection(run: Run, tmp_path: Path) -> None:
    frames = [*conversation(b"the attack")[:4], *conversation(b"the attack")[4:], *conversation(client=("10.0.0.5", 5))]
    told = run("ids", frames, "--reset", "attack", write="out.pcap")
    assert told == ["10.0.0.1:40000 > attack", "2 ended, 1 reset"]
    assert sum(frame[47] & 4 for frame in written(tmp_path / "out.pcap")) == 8  # a RST to each end


# ---- both compilers ----


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("names", [("names",), ("fw/main", "fw/rules"), ("events",), ("ends",), ("misuse",)])
def test_programs_compile_with_both_compilers(
    compiler: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", compiler)
    if not find_compiler().endswith(compiler):
        pytest.skip(f"no {compiler}")
    sources = [str(PROGRAMS / f"{name}.c") for name in names]
    library = compile_mos(sources, [str(PROGRAMS / "fw" / "include")])
    path = write_pcap(tmp_path / "a.pcap", conversation())
    if names in (("names",), ("events",)):
        module = CModule(f"{names[0]}.c", library, {"args": ""}, program=True)
        assert execute(path, [module]).counters["packets"] == 8
