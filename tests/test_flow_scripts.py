"""Every script of tests/scripts gives the states, events and bytes that it says (the language: flow_script.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from flow_script import ScriptError, capture, load, parse
from flow_trace import check, run

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.flow"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path, tmp_path: Path) -> None:
    script = load(path)
    failures = check(script, run(script, tmp_path))
    assert not failures, "\n" + "\n".join(failures)


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 30


OPEN = "> S 0(0)\n< S. 0(0) ack 1\n> . 1(0) ack 1\n* SETUP\n"


@pytest.mark.parametrize(
    ("script", "difference"),
    [
        (OPEN + "* client FIN_WAIT_1 server ESTABLISHED\n= flows 1", "client is ESTABLISHED"),
        (OPEN + "= flows 2", "1 flows, expected 2"),
        (OPEN + '> . 1(3) ack 1\n= bytes client "abd"', "bytes are"),
        (OPEN + '> . 1(3) ack 1\n* DATA server 0 "xyz"\n= flows 1', "expected b'xyz'"),
        (OPEN + "> . 1(3) ack 1\n* NO DATA\n= flows 1", "expected nothing"),
        (OPEN + "> . 11(3) ack 1\n< . 1(0) ack 14\n= flows 1", "GAP server 0 10"),
        (OPEN + "* GAP server 0 10\n= flows 1", "expected ['SETUP', 'GAP server 0 10']"),
        (OPEN + "= history ShA\n= conn_state S0", "conn_state is S1"),
    ],
)
def test_a_wrong_expectation_fails(script: str, difference: str, tmp_path: Path) -> None:
    parsed = parse(script)
    assert difference in "\n".join(check(parsed, run(parsed, tmp_path)))


@pytest.mark.parametrize(
    "line",
    [
        "> S 0",
        "> S 0(0) ack 1",
        "> . 0(0)",
        "> P. 1:5(3) ack 1",
        '> P. 1(3) ack 1 "ab"',
        "> S 0(0) <what 1>",
        "nonsense",
        "> S 0(0) 7",
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str) -> None:
    with pytest.raises(ScriptError, match=r"script\.flow:2"):
        parse(f"# comment\n{line}\n= flows 1")


def test_the_capture_is_what_the_script_says() -> None:
    """Header fields as RFC 9293 3.1 lays them out; both checksums verify to zero (RFC 1071)."""
    from flow_script import checksum

    data = capture(parse('isn client 4294967295\n> P. 1(5) ack 1 win 512 <nop,nop,TS val 1 ecr 2> "hello"\n= flows 1'))
    packet = data[24 + 16 :]
    assert checksum(packet[:20]) == 0
    tcp = packet[20:]
    assert checksum(packet[12:20] + bytes([0, 0, 0, len(tcp)]) + bytes([0, 0, 0, 6]) + tcp) == 0
    assert tcp[4:8] == bytes(4)
    assert tcp[12:16] == bytes([0x80, 0x18, 2, 0])
    assert tcp[20:] == bytes.fromhex("0101080a0000000100000002") + b"hello"
