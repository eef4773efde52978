"""mOS programs over captures: order of events, user-defined events, streams, packets, how programs begin and end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cli_help import COMMAND
from mos_run import PROGRAMS, Run
from traffic import (
    ACK,
    CLIENT,
    FIN,
    PSH,
    RST,
    SERVER,
    SYN,
    conversation,
    conversations,
    ip_frame,
    tcp_frame,
    write_pcap,
)

from shardmos.control.compile import CompileError
from shardmos.errors import ModuleError, ShardmosError
from shardmos.mos import compile_mos


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(capfd, tmp_path)


def handshake() -> list[bytes]:
    return [
        tcp_frame(CLIENT, SERVER, 1000, 0, SYN),
        tcp_frame(SERVER, CLIENT, 9000, 1001, SYN | ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK),
    ]


def sent(offset: int, data: bytes) -> bytes:
    return tcp_frame(CLIENT, SERVER, 1001 + offset, 9001, PSH | ACK, data)


def test_the_order_of_a_connections_events(run: Run) -> None:
    late = tcp_frame(CLIENT, SERVER, 5, 6, ACK, b"late")
    assert (
        run("trace", [*conversation(), late])
        == """\
SND/CLI PKT_IN
SND/CLI START
SND/CLI STATE 2
RCV/SVR PKT_IN
RCV/SVR START
RCV/SVR STATE 3
SND/SVR PKT_IN
RCV/CLI PKT_IN
RCV/CLI STATE 4
SND/CLI PKT_IN
RCV/SVR PKT_IN
RCV/SVR STATE 4
SND/CLI PKT_IN
RCV/SVR PKT_IN
SND/SVR PKT_IN
RCV/CLI PKT_IN
SND/CLI PKT_IN
SND/CLI STATE 5
RCV/SVR PKT_IN
RCV/SVR STATE 7
SND/SVR PKT_IN
SND/SVR STATE 9
RCV/CLI PKT_IN
RCV/CLI STATE 10
SND/CLI PKT_IN
RCV/SVR PKT_IN
RCV/SVR STATE 0
NULL/CLI NEW_DATA no packet
NULL/SVR NEW_DATA no packet
RCV/CLI STATE 0
RCV/CLI END no packet
SND/CLI STATE 0
SND/CLI END no packet
RCV/SVR END no packet
SND/SVR END no packet
NULL/BOTH ORPHAN""".splitlines()
    )


def test_a_repeated_syn_is_a_retransmission(run: Run) -> None:
    syn = handshake()[0]
    told = run("trace", [syn, syn])
    assert told.count("SND/CLI START") == told.count("RCV/SVR START") == 1
    assert told.count("SND/CLI REXMIT") == told.count("RCV/SVR REXMIT") == 1


def test_a_reset_ends_the_connection(run: Run) -> None:
    told = run("trace", [*handshake(), tcp_frame(CLIENT, SERVER, 1001, 9001, RST | ACK), sent(0, b"late")])
    assert [line for line in told if "END" in line] == [
        "RCV/CLI END no packet", "SND/CLI END no packet", "RCV/SVR END no packet", "SND/SVR END no packet",
    ]  # fmt: skip
    assert told.index("SND/SVR END no packet") < told.index("NULL/BOTH ORPHAN")


def test_a_silent_connection_ends_after_the_timeout(run: Run) -> None:
    told = run("trace", [*handshake(), sent(0, b"late")], step=31.0)
    assert told.count("NULL/BOTH ORPHAN") == 3  # what came after the first silence is of no flow
    assert sum("END" in line for line in told) == 4


def test_a_fin_brings_no_data(run: Run) -> None:
    told = run("trace", [*handshake(), tcp_frame(CLIENT, SERVER, 1001, 9001, FIN | ACK)])
    assert not any("NEW_DATA" in line for line in told)


def test_what_begins_in_the_middle_is_orphan(run: Run) -> None:
    assert run("trace", conversation()[3:5]) == ["NULL/BOTH ORPHAN"] * 2


def test_a_table_of_connections(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mos.conf").write_text("mos {\n  tcp_timeout = 30\n}\n")
    told = run("table", conversation()[:5], "-c", "1", step=0.06)
    assert told == [
        "1 10.0.0.1:40000 10.0.0.2:80 4 3",
        "2 10.0.0.1:40000 10.0.0.2:80 4 4",
        "interrupted by 1",
        "2 tables, at most 1 connections",
    ]
    assert run("table", conversation(), "-x")[-1] == "usage"


def test_a_firewall(run: Run) -> None:
    other = conversation(server=("10.0.0.2", 8080))
    told = run("firewall", [*conversation()[:1], *other], "80", "443", step=0.2)
    # The refused SYN never came to its receiver, and of the other connection nothing is told after the first SYN.
    assert told == ["tick", "80 refused 1", "443 refused 0", "received 0, asked 2"]


def test_user_defined_events(run: Run) -> None:
    assert run("events", conversation()) == [
        "start CLI 0", "state CLI 0", "big CLI 10", "get CLI 0", "big SVR 10", "bigger SVR 20", "http SVR 0",
        "replaced CLI 0", "replaced SVR 0", "replaced CLI 0", "asked 8 2 2",
    ]  # fmt: skip


# ---- streams ----


def test_peeking_all(run: Run) -> None:
    told = run("streams", [*handshake(), sent(0, b"abc"), sent(3, b"def")], "peek")
    assert told == ["1 abcdef", "1 then 0"]
    assert run("streams", [*handshake(), sent(0, b"abcdefg")], "half") == ["1 abc", "1 def", "1 g", "1 then 0"]


def test_registering_anew_within_a_burst(run: Run) -> None:
    """The list of those that have something to tell survives it; the last packet is told, and all bytes are there."""
    frames = [*handshake(), *(sent(3 * n, b"abc") for n in range(20)), *conversation(client=("10.0.0.9", 9))]
    assert run("streams", frames, "again") == ["1 " + ("abc" * 20)[:40], "1 then 0"]


def test_reading_by_offset(run: Run) -> None:
    assert run("streams", [*handshake(), sent(6, b"ghi"), sent(0, b"abc"), sent(3, b"def")], "ppeek") == [
        "at 6: ghi; -1 ENODATA; [6 3] 1001 0 0 9",
        "at 0: abc; -1 ENODATA; [0 3] [6 3] 1001 0 3 9",
        "at 3: defghi; -1 ENODATA; [0 9] 1001 0 9 9",
    ]


def test_bytes_that_were_lost_unread(run: Run, tmp_path: Path) -> None:
    (tmp_path / "small.conf").write_text("mos {\n rmem_size = 4\n}\n")
    told = run("streams", [*handshake(), sent(0, b"abc"), sent(3, b"def")], "late", "small.conf")
    assert told == ["error 1", "-2 ENODATA ", "4  cdef", "0  "]


def test_a_buffer_that_is_off(run: Run) -> None:
    assert run("streams", [*handshake(), sent(0, b"abc")], "off") == ["-1 Invalid argument "] * 3


def test_overlap_policy_last(run: Run) -> None:
    assert run("streams", [*handshake(), sent(3, b"XXX"), sent(3, b"def"), sent(0, b"abc")], "last") == [
        "1 abcdef",
        "1 then 0",
    ]


def test_many_bytes_of_one_burst(run: Run) -> None:
    data = b"x" * 1400
    frames = [*handshake(), *(sent(1400 * i, data) for i in range(60))]
    told = run("streams", frames, "peek")
    assert sum(line.endswith("then 0") for line in told) >= 2  # told before the buffer was full
    assert not any(line.startswith("1 then -") for line in told)


# ---- packets ----


def test_the_current_packet(run: Run) -> None:
    told = run("packets", conversation(), "read")
    assert told[1] == "72 58 18 1001 9001 65535 0 0800 10.0.0.1:40000 10.0.0.2:80 GET / HTTP/1.0"
    assert told[0] == "timer 42 1"


def test_raw_sockets(run: Run) -> None:
    udp = ip_frame("10.0.0.1", "10.0.0.2", 17, b"\x00\x35\x00\x35\x00\x0c\x00\x00data")
    told = run("packets", [udp, *conversation()], "raw")
    assert [line.split()[2] for line in told if line[:1].isdigit()] == ["18", "24"]


def test_threads_of_each_core(run: Run) -> None:
    assert run("lives", conversation(), "threads") == ["1 threads, 8 packets"]


@pytest.mark.parametrize("mode", ["insert", "chomp", "nat", "send"])
def test_changing_and_sending_packets(run: Run, mode: str) -> None:
    told = run("packets", conversation(), mode)
    if any("Function not implemented" in line for line in run.errors):
        pytest.skip("this engine cannot edit packets")
    first = {
        "insert": "75 61 21 1001 9001 65535 0 0800 10.0.0.1:40000 10.0.0.2:80 GET XYZ/ HTTP/1.0",
        "chomp": "70 56 16 1001 9001 65535 0 0800 10.0.0.1:40000 10.0.0.2:80 GET HTTP/1.0",
        "nat": "72 58 18 1001 9001 65535 0 0800 192.0.2.1:1025 10.0.0.2:80 GET / HTTP/1.0",
    }
    assert told[:1] == ([first[mode]] if mode in first else [])


# ---- filters, configuration, misuse ----


def test_filters_of_two_listeners_and_of_orphans(run: Run) -> None:
    stray = tcp_frame(CLIENT, ("10.0.0.2", 99), 5, 6, ACK, b"stray")
    told = run(
        "filters",
        [*conversation(server=("10.0.0.2", 85)), stray, *conversation(), *conversation(server=("10.0.0.2", 99))],
    )
    # No listener wanted the connection to port 99: all of it is orphan, as the packet before it was.
    assert sorted(told) == [
        "data of port 80", "end of port 80", "first of port 80", *["orphan of listener 1"] * 9, "second of port 85",
    ]  # fmt: skip


def test_data_of_a_half_closed_connection(run: Run) -> None:
    c, s = CLIENT, SERVER
    frames = [*handshake(), tcp_frame(c, s, 1001, 9001, FIN | ACK), tcp_frame(s, c, 9001, 1002, PSH | ACK, b"answer")]
    assert run("streams", frames, "peek") == ["0 answer", "0 then 0"]


CONF = """\
mos {
    forward = 1   # inline
    nb_mem_channels = 4
    netdev {
        dpdk0 0x000F
    }
    max_concurrency = 1000
    rmem_size = 8192
    tcp_tw_interval = 2
    tcp_timeout = 30
    arp_table { 10.0.0.1/32 00:00:00:00:00:01 }
}
application {
    type = monitor
    run = program -c 4 file
    core_mask = 0x0F
}
"""


def test_the_configuration_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mos.conf").write_text(CONF)
    told = run("conf", conversation(), "mos.conf")
    assert told == [
        "1 1000 8192 8192 2 30 program -c 4 file", "1 -1", "2 one two", "32d153ff 44bc2cf5ad770999 MOS_EPOLLIN 0",
    ]  # fmt: skip
    warnings = [line for line in run.errors if "warning" in line]
    assert warnings == [
        "conf: warning: mos.conf: does not apply here and is left out: nb_mem_channels, netdev, arp_table, core_mask"
    ]


def test_what_is_watched_is_bounded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mos.conf").write_text("mos {\n max_concurrency = 3\n}\n")
    frames = [frame for n in range(9) for frame in conversation(client=("10.0.0.1", 40000 + n))[:3]]
    assert run("table", frames, step=0.01)[-1] == "2 tables, at most 3 connections"


def test_nonsense_is_refused(run: Run) -> None:
    assert run("misuse", conversation()) == ["0 wrong"]
    assert run("misuse", conversations(60), "x")[-1].endswith("wrong")


# ---- lives ----


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("join", ["signal 2", "8 0 packets"]),
        ("exits", ["signal 2", "8 0 packets"]),
        ("lingers", ["signal 2", "8 0 packets"]),
        ("returns", []),
        ("exit", []),
        ("leave", ["leaving"]),
        ("stop", ["signal 2", "5 0 packets"]),
        ("uctx", ["8 packets", "signal 2", "0 0 packets"]),
    ],
)
def test_how_programs_end(run: Run, mode: str, expected: list[str]) -> None:
    assert run("lives", conversation(), mode) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("exit", "7"), r"ended itself with exit\(7\)"),
        (("fails",), "returned 1 and made no monitoring socket"),
        (("forever",), "within 5 seconds"),
        (("asleep",), "within 5 seconds"),
    ],
)
def test_programs_that_do_not_begin_are_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ShardmosError, match=message):
        run("lives", conversation(), *arguments)


def test_each_worker_has_a_program_of_its_own(run: Run) -> None:
    told = run("lives", conversations(20), "join", workers=2)
    assert sum(int(line.split()[0]) for line in told if line.endswith("packets")) == 160


def test_sources_that_do_not_compile(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("int main(void) { return mtcp_nothing(; }\n")
    with pytest.raises(CompileError, match=r"bad.c.*error") as error:
        compile_mos([str(tmp_path / "bad.c")])
    assert "mtcp_nothing" in error.value.details
    (tmp_path / "open.c").write_text("int other(void);\nint main(void) { return other(); }\n")
    with pytest.raises(CompileError, match="undefined reference to `other'"):
        compile_mos([str(tmp_path / "open.c")])
    with pytest.raises(ModuleError, match="no such file"):
        compile_mos([str(tmp_path / "none.c")])


GREETING = """\
#include <stdio.h>
#include <unistd.h>
#include <mos_api.h>
#include <greet.h>
int main(int argc, char **argv)
{
    int c;
    while ((c = getopt(argc, argv, "n:")) != -1) printf("%c %s\\n", c, optarg);
    printf("%s %s %d\\n", greeting(), argv[optind], argc);
    return 0;
}
"""


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "greet.h").write_text("const char *greeting(void);\n")
    (tmp_path / "greet.c").write_text('#include "greet.h"\nconst char *greeting(void) { return "hello"; }\n')
    (tmp_path / "main.c").write_text(GREETING)
    write_pcap(tmp_path / "x.pcap", conversation())
    command = [*COMMAND, "run", "--mos", "main.c", "greet.c", "-I", "inc", "-r", "x.pcap"]
    command += ["--", "-n", "two words", "-n3", "rest"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "n two words\nn 3\nhello rest 5\n"), result.stderr
    assert "8 packets" in result.stderr


def test_translation_of_addresses_both_ways(tmp_path: Path) -> None:
    """The server knows the client by the translated address only, as behind a real translator."""
    outside = ("192.0.2.1", 1025)
    frames = [
        tcp_frame(CLIENT, SERVER, 1000, 0, SYN),
        tcp_frame(SERVER, outside, 9000, 1001, SYN | ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, PSH | ACK, b"GET"),
        tcp_frame(SERVER, outside, 9001, 1004, PSH | ACK, b"yes"),
    ]
    write_pcap(tmp_path / "x.pcap", frames)
    source = str(PROGRAMS / "packets.c")
    command = [*COMMAND, "run", "--mos", source, "-r", "x.pcap", "--write", "out.pcap", "--", "nat"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    records, out = (tmp_path / "out.pcap").read_bytes(), []
    at = 24
    while at < len(records):
        length = int.from_bytes(records[at + 8 : at + 12], "little")
        out.append(records[at + 16 : at + 16 + length])
        at += 16 + length
    assert out == [
        tcp_frame(outside, SERVER, 1000, 0, SYN),
        tcp_frame(SERVER, CLIENT, 9000, 1001, SYN | ACK),
        tcp_frame(outside, SERVER, 1001, 9001, ACK),
        tcp_frame(outside, SERVER, 1001, 9001, PSH | ACK, b"GET"),
        tcp_frame(SERVER, CLIENT, 9001, 1004, PSH | ACK, b"yes"),
    ]
