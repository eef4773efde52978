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
from traffic import ACK, FIN, PSH, SYN, conversation, ip_frame, tcp_frame, write_pcap

from shardmos.control.compile import find_compiler
from shardmos.mos import compile_mos
from shardmos.run import execute
from shardmos.workers.load import CModule

pytestmark = pytest.mark.timeout(600)  # programs are compiled

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


# ---- habits ----


@pytest.mark.parametrize("workers", [1, 2])
def test_a_program_with_the_habits_of_its_kind(run: Run, tmp_path: Path, workers: int) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mos.conf").write_text("mos {\n tcp_timeout = 30\n}\n")
    frames = [frame for n in range(40) for frame in conversation(client=("10.0.0.1", 30000 + n))]
    told = run("habits", frames, step=0.01, workers=workers)
    assert told.count("signal 2, 0 beyond") == workers
    # Of a connection's first packet CONN_START comes after PKT_IN: the table begins anew then.
    assert (tmp_path / "habits.log").read_text().splitlines() == ["178 144"] * 40
    assert not [line for line in run.errors if "warning" in line]


# ---- both compilers ----


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("names", [("names",), ("fw/main", "fw/rules"), ("events",), ("misuse",)])
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


# ---- user-defined events, timers, options ----


def opened(client: Address = ("10.0.0.1", 40000), server: Address = ("10.0.0.2", 80)) -> list[bytes]:
    return conversation(client=client, server=server)[:3]


def said(offset: int, data: bytes, ack: int = 9001) -> bytes:
    return tcp_frame(("10.0.0.1", 40000), ("10.0.0.2", 80), 1001 + offset, ack, PSH | ACK, data)


def answered(offset: int, data: bytes, ack: int) -> bytes:
    return tcp_frame(("10.0.0.2", 80), ("10.0.0.1", 40000), 9001 + offset, ack, PSH | ACK, data)


def test_events_nested_deep_and_changed_from_within(run: Run) -> None:
    long = said(0, b"x" * 55)
    frames = [*opened(), long, answered(0, b"y" * 20, 1056), long, *conversation(client=("10.0.0.9", 9))]
    told = run("nested", frames)
    lengths = [(frame[17] | frame[16] << 8) - 40 for frame in frames]
    # Each filter is asked once for each packet of which those above it said yes.
    asked = [sum(all(n >= above for above in range(level)) for n in lengths) for level in range(100)]
    assert [int(word) for word in told[0].split()] == asked
    assert [int(word) for word in told[1].split()] == [sum(n >= level for n in lengths) for level in range(9, 100, 10)]
    starts, defined_in_flow, on_listener, undone, hooks = 2, 5 + 7, 8, 2, [0, 9 + 5]
    assert [int(word) for word in told[2].split()] == [starts, starts, defined_in_flow, on_listener, undone, *hooks]
    change_of = {"C": "state state_a state_a_a", "S": "state state_b"}
    begin = [change_of["S"], change_of["C"], change_of["S"]]
    closing = [change_of["S"], change_of["C"], change_of["S"]]
    end = ["data_a data_a", change_of["C"], "end_a"]
    # The connection that was closed ends when its burst is told, the other with the capture.
    assert told[3].split() == " ".join([*begin, "rexmit_a", *begin, *closing, *end, *end, change_of["S"]]).split()


def test_timers_in_packet_time(run: Run) -> None:
    frames = [*opened(), said(0, b"hello"), *[answered(0, b"", 1006)] * 8]
    assert run("timers", frames, step=0.1) == [
        "7 at 100", "2 at 200", "22 at 200", "3 at 300",
        "flow 1: 0, port 80, state 4, hello, uctx mine, packet -1", "4 ticks, 5000 of many",
    ]  # fmt: skip


def test_every_option(run: Run) -> None:
    parts = [
        (6, b"GHI"),
        (6, b"ghi"),
        (0, b"abcdef"),
        (9, b"jklmno"),
        (15, b"pqr"),
        (18, b"st"),
        (23, b"xyz"),
        (20, b"uvw"),
    ]
    frames = [*opened(), *(said(at, data) for at, data in parts)]
    frames += [answered(0, b"answer", 1027), said(26, b"end"), answered(6, b"more", 1030)]
    assert run("options", frames) == [
        "hole: CLI 4 9001/0/0/0 SVR 4 1001/0/0/9 [6+3] after 3 ms",
        "overlap: CLI 4 9001/0/0/0 SVR 4 1001/0/0/9 [6+3] after 4 ms",
        "filled: CLI 4 9001/0/0/0 SVR 4 1001/0/9/9 [0+9] after 5 ms",
        "peeked abcdefghi",
        "error of 1",  # six bytes come where four are kept
        "peeked -2 No data available",
        "small: CLI 4 9001/0/0/0 SVR 4 1001/11/15/15 [11+4] after 6 ms",
        "peeked lmnopqr",
        "peeked -1 Invalid argument",
        "peeked -1 Invalid argument",
        "peeked 0 ",  # what came while the buffer was off is not there, and not missed
        "peeked uvwxyz",
        "answer: CLI 4 9001/0/6/6 [0+6] SVR 4 1001/26/26/26 [20+6] after 11 ms",
        "option 15: Invalid argument",
        "option 9: Invalid argument",
        "option 12: Invalid argument",
        "CLI told",  # after MOS_STOP_MON of the server's side
    ]


# ---- two kinds of sockets; a proxy ----


def test_raw_and_stream_sockets_in_one_program(run: Run) -> None:
    def datagram(data: bytes, port: int = 6666) -> bytes:
        return ip_frame("10.0.0.1", "10.0.0.3", 17, struct.pack("!HHHH", 5000, port, 8 + len(data), 0) + data)

    tls, other = ("10.0.0.2", 443), ("10.0.0.7", 7)
    talk = conversation(b"KEYAAAAA" + b"alice".ljust(16), b"ok", server=tls)
    frames = [*talk[:4], *opened(other, tls)]
    frames += [
        tcp_frame(other, tls, 1001 + at, 9001, ACK, data)
        for at, data in ((0, b"KEYB"), (4, b"BBBB" + b"bob".ljust(16)))
    ]
    frames += conversation(client=("10.9.9.9", 9)) * 8  # data is told at the end of a burst of up to 64 packets
    frames += [
        datagram(b"KEYAAAAA" + b"sixteen bytes ok"),
        datagram(b"KEYBBBBB" + b"and these as wel"),
        datagram(b"short"),
    ]
    frames += [datagram(b"KEYAAAAA" + b"another port 53.", 53), *talk[4:], datagram(b"KEYAAAAA" + b"it is over by now")]
    assert [line.strip() for line in run("keys", frames)][:2] == [
        "sixteen bytes ok is alice",
        "and these as wel is bob",
    ]
    assert [line.split() for line in run("keys", frames)][2:] == [
        ["alice", "is", "over"], ["bob", "is", "over"], ["5", "raw,", "0", "not", "UDP"],
    ]  # fmt: skip


def test_a_proxy_in_the_packets_way(run: Run, tmp_path: Path) -> None:
    """Each end knows what it sent and got: the server acknowledges the line put in, the client not the secret."""
    client, server, box = ("10.0.0.1", 40000), ("10.0.0.2", 80), b"\x02\x01\x02\x03\x04\x05"
    request, longer = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nVia: box\r\nHost: a\r\n\r\n"
    answer, shorter = b"HTTP/1.1 200 OK\r\n\r\nthe SECRET word", b"HTTP/1.1 200 OK\r\n\r\nthe  word"
    a, b, c, d = 1001 + len(request), 1001 + len(longer), 9001 + len(answer), 9001 + len(shorter)
    frames = [
        *opened(),
        said(0, request),
        answered(0, answer, b),
        tcp_frame(client, server, a, d, ACK),
        tcp_frame(client, server, a, d, ACK | FIN),
        tcp_frame(server, client, c, b + 1, ACK | FIN),
        tcp_frame(client, server, a + 1, d + 1, ACK),
    ]

    def passed(frame: bytes) -> bytes:
        frame = frame[:6] + box + frame[12:]
        if frame[26:30] == ipaddress.IPv4Address(server[0]).packed:  # a window of 1,000, and the checksum that follows
            total = struct.unpack_from("!H", frame, 50)[0] + 65535 - 1000
            frame = frame[:48] + struct.pack("!HH", 1000, (total & 0xFFFF) + (total >> 16)) + frame[52:]
        return frame

    expected = [passed(frame) for frame in opened()]
    expected += [
        passed(said(0, longer)),
        passed(answered(0, shorter, a)),
        passed(tcp_frame(client, server, b, c, ACK | FIN)),
        passed(tcp_frame(server, client, d, a + 1, ACK | FIN)),
        passed(tcp_frame(client, server, b + 1, c + 1, ACK)),
    ]
    told = run("proxy", frames, write="out.pcap")
    texts = [text.decode().replace("\r\n", "..") for text in (shorter, longer)]
    assert sorted(told) == ["1 held back, 1 sent again", f"< {texts[0]}", f"> {texts[1]}"]
    out = written(tmp_path / "out.pcap")
    sent_ahead = out.pop(3)
    assert (sent_ahead[34:], sent_ahead[26:34]) == (said(0, longer)[34:], said(0, longer)[26:34])
    assert out == expected
