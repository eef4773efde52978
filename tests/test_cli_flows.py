"""`shardmos flows`: rows, JSON, hashes, one flow explained, streams as files."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli_help import COMMAND, assert_one_line, shardmos
from traffic import ACK, CLIENT, FIN, PSH, SERVER, SYN, conversation, conversations, tcp_frame, write_pcap

REQUEST, RESPONSE = b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nhello"


def test_the_table(capture: Path) -> None:
    result = shardmos("flows", "-r", capture)
    assert result.returncode == 0 and result.stderr == ""
    header, row = result.stdout.splitlines()
    assert header.split() == [
        "#",
        "proto",
        "client",
        "server",
        "packets",
        "bytes",
        "seconds",
        "state",
        "end",
        "history",
    ]
    assert row.split()[:9] == ["1", "tcp", "10.0.0.1:40000", "10.0.0.2:80", "5/3", "18/24", "0.007", "SF", "fin"]


def test_json_and_hash(capture: Path) -> None:
    result = shardmos("flows", "-r", capture, "--json", "--hash", "sha256")
    (row,) = map(json.loads, result.stdout.splitlines())
    sent = [hashlib.sha256(data).hexdigest() for data in (REQUEST, RESPONSE)]
    assert row["sha256"] == sent
    assert row["ranges"] == [[[0, len(REQUEST), sent[0]]], [[0, len(RESPONSE), sent[1]]]]
    assert (row["start"], row["end"]) == ("1700000000.000000000", "1700000000.007000000")
    assert row["tcp_state"] == ["TIME_WAIT", "CLOSED"]  # RFC 9293: the one that closed first waits


def test_files_may_follow_each_other_and_come_from_standard_input(capture: Path, tmp_path: Path) -> None:
    other = write_pcap(tmp_path / "other.pcap", conversation(client=("10.7.7.7", 7)))
    assert len(shardmos("flows", "--json", "-r", capture, other).stdout.splitlines()) == 2
    assert len(shardmos("flows", "--json", "-r", capture, "-r", other).stdout.splitlines()) == 2
    with open(other, "rb") as file:
        row = json.loads(shardmos("flows", "--json", "-r", "-", stdin=file).stdout)
    assert row["client"] == "10.7.7.7"


def test_workers_print_the_same_rows(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "many.pcap", conversations(300))
    one, two = (
        sorted(shardmos("flows", "--json", "--hash", "sha256", "-r", path, "-w", workers).stdout.splitlines())
        for workers in (1, 2)
    )
    assert len(one) == 300 and one == two


@pytest.mark.parametrize("name", ["10.0.0.1:40000-10.0.0.2:80", "10.0.0.2:80-10.0.0.1:40000", "#1", "1"])
def test_explain_shows_each_packet(capture: Path, name: str) -> None:
    result = shardmos("flows", "-r", capture, "--explain", name)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("tcp 10.0.0.1:40000 > 10.0.0.2:80")
    packets = [line.split() for line in lines if line.strip()[:1].isdigit()]
    # number, time, direction, flags, sequence number and acknowledgement from the SYN on, length
    assert [packet[:2] + packet[2:4] for packet in packets][:3] == [
        ["1", "0.000000", ">", "S"],
        ["2", "0.001000", "<", "SA"],
        ["3", "0.002000", ">", "A"],
    ]
    assert packets[3][2:9] == [">", "PA", "1", "1", "18", "ESTABLISHED", "ESTABLISHED"]
    assert "NEW_DATA to server 0+18" in lines[5]
    assert packets[4][2:7] == ["<", "PA", "1", "19", "24"]
    assert len(packets) == 8 and any(line.startswith("CONN_END fin") for line in lines)


def between() -> list[bytes]:
    """Two connections of the same endpoints, with enough time between them for the first to be over."""
    return conversation() + conversation(client=("10.3.3.3", 3)) + conversation(b"second")


def test_explain_numbers_one_of_two_flows_of_the_same_endpoints(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "twice.pcap", between(), step=20)
    assert shardmos("flows", "-r", path, "--explain", "#3").stdout.count("CONN_END") == 1
    assert shardmos("flows", "-r", path, "--explain", "10.0.0.1:40000-10.0.0.2:80").stdout.count("CONN_END") == 2


@pytest.mark.parametrize(
    ("name", "code"),
    [("#9", 1), ("10.0.0.1:1-10.0.0.2:80", 1), ("10.0.0.1-10.0.0.2", 2), ("x:1-y:2", 2), ("#0", 2), ("a", 2)],
)
def test_explain_of_what_is_not_there(capture: Path, name: str, code: int) -> None:
    assert_one_line(shardmos("flows", "-r", capture, "--explain", name), code, "--explain")


@pytest.mark.parametrize("workers", [1, 2])
def test_streams_as_files(tmp_path: Path, workers: int) -> None:
    a, b = b"A" * 100, b"B" * 50
    holed = [
        tcp_frame(CLIENT, SERVER, 1000, 0, SYN),
        tcp_frame(SERVER, CLIENT, 9000, 1001, SYN | ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK | PSH, a),
        tcp_frame(CLIENT, SERVER, 1131, 9001, ACK | PSH, b),
        tcp_frame(SERVER, CLIENT, 9001, 1181, ACK),
        tcp_frame(CLIENT, SERVER, 1181, 9001, ACK | FIN),
    ]
    path = write_pcap(tmp_path / "holed.pcap", holed + conversations(500))
    folder = tmp_path / "new" / "streams"
    result = shardmos("flows", "-r", path, "--streams", folder, "-w", workers)
    assert result.returncode == 0, result.stderr
    assert (folder / "10.0.0.1.40000-10.0.0.2.80.1.client").read_bytes() == a + b
    assert (folder / "10.1.1.3.40000-10.0.0.2.80.1.client").read_bytes() == REQUEST
    assert (folder / "10.1.1.3.40000-10.0.0.2.80.1.server").read_bytes() == RESPONSE
    index = {line["stream"]: line for line in map(json.loads, (folder / "index.jsonl").read_text().splitlines())}
    assert len(index) == 1001 == len(list(folder.iterdir())) - 1
    assert index["10.0.0.1.40000-10.0.0.2.80.1.client"] == {
        "stream": "10.0.0.1.40000-10.0.0.2.80.1.client", "bytes": 150, "gap_bytes": 30, "gaps": [[100, 30]],
    }  # fmt: skip
    again = shardmos("flows", "-r", path, "--streams", folder)
    assert again.returncode == 0
    assert (folder / "10.0.0.1.40000-10.0.0.2.80.1.client").read_bytes() == a + b  # not twice


def test_streams_with_few_descriptors(tmp_path: Path) -> None:
    # All 600 connections are open at once: more streams than descriptors.
    each = [conversation(client=(f"10.1.{n >> 8}.{n & 255}", 4000)) for n in range(600)]
    frames = [connection[step] for step in range(8) for connection in each]
    path = write_pcap(tmp_path / "open.pcap", frames)
    folder = tmp_path / "streams"
    script = 'ulimit -n 320; exec "$@"'
    result = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, "flows", "-r", str(path), "--streams", str(folder)], capture_output=True
    )
    assert result.returncode == 0, result.stderr
    assert all(file.read_bytes() == REQUEST for file in folder.glob("*.client"))
    assert len(list(folder.glob("*.server"))) == 600


def test_a_hint_where_checksums_are_bad(tmp_path: Path) -> None:
    frames = [frame[:50] + b"\xde\xad" + frame[52:] for frame in conversation()]
    path = write_pcap(tmp_path / "offload.pcap", frames)
    result = shardmos("flows", "-r", path)
    assert result.returncode == 0
    assert result.stderr.startswith("hint: 8 of ") and "--checksums ignore" in result.stderr
    ignoring = shardmos("flows", "-r", path, "--checksums", "ignore", "--json")
    assert ignoring.stderr == "" and json.loads(ignoring.stdout)["stream_bytes"] == [len(REQUEST), len(RESPONSE)]


def test_settings_reach_the_engine(tmp_path: Path) -> None:
    frames = conversation()[:4]
    path = write_pcap(tmp_path / "idle.pcap", [*frames, *conversation(client=("10.5.5.5", 5))], step=100)
    rows = shardmos("flows", "--json", "-r", path, "--set", "timeout_established=1", "--set", "live=true")
    assert_one_line(rows, 2, "no option 'live'")
    rows = shardmos("flows", "--json", "-r", path, "--set", "depth=4")
    assert [json.loads(line)["stream_bytes"][0] for line in rows.stdout.splitlines()] != []


def test_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for workers in ("1", "2"):
        process = subprocess.Popen(
            [*COMMAND, "flows", "-r", str(fifo), "-w", workers], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            with open(fifo, "wb") as writer:
                writer.write(write_pcap(tmp_path / "one.pcap", conversation()).read_bytes())
                writer.flush()
                time.sleep(1)
                begin = time.monotonic()
                process.send_signal(signal.SIGINT)
                _, error = process.communicate(timeout=10)
                assert time.monotonic() - begin < 2
        finally:
            process.kill()
            process.wait()
        assert (process.returncode, error) == (130, b"")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "many.pcap", conversations(3000))
    process = subprocess.Popen(
        [*COMMAND, "flows", "--json", "-r", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.wait(10)
    assert error == b""


def test_help_at_every_level() -> None:
    for arguments in (["--help"], ["flows", "--help"], ["run", "--help"]):
        result = shardmos(*arguments)
        assert result.returncode == 0 and "Usage: shardmos" in result.stdout
    assert shardmos("--version").stdout.startswith("shardmos ")
