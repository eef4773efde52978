"""The middleboxes that are shipped, in Python: midstat, accounting, httplog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from traffic import ACK, CLIENT, FIN, PSH, RST, SERVER, SYN, conversations, tcp_frame, write_pcap

import shardmos as sm
from shardmos.errors import ModuleError
from shardmos.run import execute
from shardmos.workers.load import load

C, S = 1001, 9001


def exchange(*turns: tuple[str, bytes], close: bool = True) -> list[bytes]:
    """A connection in which each turn is ("c" or "s", its bytes), sent in segments of 1,000."""
    frames = [
        tcp_frame(CLIENT, SERVER, C - 1, 0, SYN),
        tcp_frame(SERVER, CLIENT, S - 1, C, SYN | ACK),
        tcp_frame(CLIENT, SERVER, C, S, ACK),
    ]
    at = {"c": C, "s": S}
    for who, data in turns:
        for begin in range(0, len(data), 1000):
            part = data[begin : begin + 1000]
            source, to, other = (CLIENT, SERVER, "s") if who == "c" else (SERVER, CLIENT, "c")
            frames.append(tcp_frame(source, to, at[who], at[other], PSH | ACK, part))
            at[who] += len(part)
    if close:
        frames += [
            tcp_frame(SERVER, CLIENT, at["s"], at["c"], FIN | ACK),
            tcp_frame(CLIENT, SERVER, at["c"], at["s"] + 1, FIN | ACK),
            tcp_frame(SERVER, CLIENT, at["s"] + 1, at["c"] + 1, ACK),
        ]
    return frames


def logged(tmp_path: Path, frames: list[bytes]) -> tuple[list[dict[str, Any]], Any]:
    events: list[dict[str, Any]] = []
    box = load("httplog")
    result = execute(write_pcap(tmp_path / "http.pcap", frames), [box], on_event=events.append)
    assert result.error_count == 0, result.errors
    rows = [event["data"] for event in events if event.get("topic", "").endswith("exchange")]
    return rows, result.summaries[0]


GET = b"GET /a HTTP/1.1\r\nHost: example.org\r\nUser-Agent: t\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"


def test_httplog_keep_alive(tmp_path: Path) -> None:
    rows, summary = logged(tmp_path, exchange(("c", GET), ("s", OK), ("c", GET.replace(b"/a", b"/b")), ("s", OK)))
    assert [(row["method"], row["target"], row["status"], row["response_bytes"]) for row in rows] == [
        ("GET", "/a", 200, 5),
        ("GET", "/b", 200, 5),
    ]
    assert (
        rows[0]["host"] == "example.org" and rows[0]["response_type"] == "text/plain" and rows[0]["user_agent"] == "t"
    )
    assert summary["exchanges"] == 2 and summary["unanswered"] == 0


def test_httplog_pipelined_head_chunked_and_continue(tmp_path: Path) -> None:
    head = b"HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n"
    post = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\nExpect: 100-continue\r\n\r\n" + b"p" * 3000
    chunked = b"HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    answers = [
        OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",  # of HEAD: no body
        b"HTTP/1.1 100 Continue\r\n\r\n" + chunked,
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    ]
    rows, _ = logged(tmp_path, exchange(("c", GET + head + post + GET), ("s", b"".join(answers))))
    assert [(row["method"], row["status"], row["response_bytes"], row["request_bytes"]) for row in rows] == [
        ("GET", 200, 5, 0),
        ("HEAD", 200, 0, 0),
        ("POST", 201, 11, 3000),
        ("GET", 304, 0, 0),
    ]


def test_httplog_a_body_that_ends_with_the_connection(tmp_path: Path) -> None:
    rows, _ = logged(
        tmp_path, exchange(("c", b"GET / HTTP/1.0\r\n\r\n"), ("s", b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 2500))
    )
    assert [(row["status"], row["response_bytes"]) for row in rows] == [(200, 2500)]


def test_httplog_losses_and_other_protocols(tmp_path: Path) -> None:
    frames = exchange(
        ("c", GET), ("s", OK), ("c", GET), ("s", b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n" + b"y" * 3000)
    )
    del frames[8]  # a segment of the last body
    rows, summary = logged(tmp_path, frames)
    assert rows[0]["status"] == 200 and len(rows) == 2 and summary["broken"] == 1
    rows, summary = logged(tmp_path, exchange(("c", b"SSH-2.0-OpenSSH_9\r\n"), ("s", b"SSH-2.0-x\r\n")))
    assert rows == [] and summary["not_http"] == 1 and summary["broken"] == 0
    rows, summary = logged(tmp_path, exchange(("c", b"GET / HTTP/1.1\r\nHost: x\r\nBad header\r\n\r\n"), ("s", OK)))
    assert summary["broken"] == 1


def test_httplog_upgrade_ends_the_log(tmp_path: Path) -> None:
    ask = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    rows, summary = logged(tmp_path, exchange(("c", ask), ("s", answer + b"\x81\x05hello"), ("c", b"\x81\x85....")))
    assert [(row["target"], row["status"]) for row in rows] == [("/ws", 101)] and summary["broken"] == 0


def test_httplog_a_tunnel_ends_the_log_unless_it_is_refused(tmp_path: Path) -> None:
    ask = b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"
    rows, summary = logged(
        tmp_path,
        exchange(("c", ask), ("s", b"HTTP/1.1 200 Yes\r\n\r\n"), ("c", b"\x16\x03\x01"), ("s", b"\x16\x03\x03")),
    )
    assert [(row["method"], row["status"]) for row in rows] == [("CONNECT", 200)] and summary["broken"] == 0
    refused = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"
    rows, summary = logged(tmp_path, exchange(("c", ask + GET), ("s", refused + OK), ("c", GET), ("s", OK)))
    assert [(row["method"], row["status"]) for row in rows] == [("CONNECT", 403), ("GET", 200), ("GET", 200)]


def test_httplog_keep_alive_of_http_1_0_and_empty_lines(tmp_path: Path) -> None:
    ask = b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    answer = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi"
    rows, summary = logged(tmp_path, exchange(("c", ask), ("s", answer), ("c", ask), ("s", answer)))
    assert [row["status"] for row in rows] == [200, 200] and summary["broken"] == 0
    rows, summary = logged(tmp_path, exchange(("c", b"\r\n" + GET), ("s", OK), ("c", b"\r\n" + GET), ("s", OK)))
    assert [row["status"] for row in rows] == [200, 200] and summary["broken"] == 0


def test_midstat_knows_both_states(tmp_path: Path) -> None:
    frames = exchange(("c", GET), close=False)
    summary = sm.run(write_pcap(tmp_path / "x.pcap", frames), "midstat")
    assert summary["opened"] == 1 and summary["closed"] == 1 and summary["open"] == []

    tables: list[Any] = []
    execute(
        write_pcap(tmp_path / "y.pcap", [*frames, tcp_frame(SERVER, CLIENT, S, C + len(GET), RST)]),
        [load("midstat:every=0.001")],
        on_event=lambda event: tables.append(event),
    )
    assert tables


def test_accounting_tells_retransmissions_apart(tmp_path: Path) -> None:
    frames = exchange(("c", GET), ("s", b"z" * 2500))
    again = frames[5]  # the server's second segment
    frames.insert(7, again)
    path = write_pcap(tmp_path / "x.pcap", frames)
    accounts = sm.run(path, "accounting")
    total = sum(len(frame) for frame in frames)
    account = accounts[CLIENT[0]]
    assert account["flows"] == 1 and account["up"] + account["down"] == total
    assert (account["up_again"], account["down_again"]) == (0, 1000)
    assert account["charged"] == total - 1000
    accounts = sm.run(path, "accounting:charge_retransmissions=true:subscribers=10.0.0.2/32")
    account = accounts[SERVER[0]]
    assert account["charged"] == total and account["up_again"] == 1000
    assert sm.run(path, "accounting:subscribers=192.0.2.0/24") == {}
    with pytest.raises(ModuleError, match="subscribers"):
        load("accounting:subscribers=10.0.0.1/8")


def test_accounting_over_several_workers_is_the_same(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "many.pcap", conversations(40))
    assert sm.run(path, "accounting", workers=2) == sm.run(path, "accounting")
