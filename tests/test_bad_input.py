"""Bad captures, options and modules: one clear line on standard error and the right exit code, never a traceback."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from cli_help import assert_one_line, shardmos
from traffic import conversation, conversations, write_pcap

COMMANDS = ("flows", "run")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_file(command: str, tmp_path: Path) -> None:
    assert_one_line(shardmos(command, "-r", tmp_path / "none.pcap"), 1, "none.pcap", "No such file")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory(command: str, tmp_path: Path) -> None:
    assert_one_line(shardmos(command, "-r", tmp_path), 1, "directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "closed.pcap", conversation())
    path.chmod(0)
    assert_one_line(shardmos("flows", "-r", path), 1, "closed.pcap", "permissions")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pcap", b""),
        ("short.pcap", b"\xd4\xc3\xb2\xa1\x02\x00"),
        ("text.pcap", b"this is no capture at all, but some text\n" * 5),
        ("empty.pcap.gz", b"\x1f\x8b\x08\x00"),
        ("section.pcapng", b"\x0a\x0d\x0d\x0a\xff\xff\xff\xff\x4d\x3c\x2b\x1a"),
        (
            "linktype.pcap",
            struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 9999) + struct.pack("<IIII", 1, 0, 4, 4) + b"abcd",
        ),
    ],
)  # fmt: skip
def test_what_is_no_capture(tmp_path: Path, name: str, content: bytes, workers: int) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert_one_line(shardmos("flows", "-r", path, "-w", workers), 1, name)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("cut", [1, 30, 60])
def test_a_cut_capture_gives_its_flows_then_the_line(tmp_path: Path, cut: int, workers: int) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(write_pcap(tmp_path / "whole.pcap", conversations(20)).read_bytes()[:-cut])
    result = shardmos("flows", "--json", "-r", path, "-w", workers)
    assert len(result.stdout.splitlines()) == 20
    assert_one_line(result, 1, "cut.pcap")
    result = shardmos("run", "-r", path, "-w", workers)
    assert_one_line(result, 1, "cut.pcap")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["flows"], 2, "no capture given"),
        (["flows", "-r"], 2, "requires an argument"),
        (["flows", "--nonsense"], 2, "--nonsense"),
        (["nonsense"], 2, "nonsense"),
        (["flows", "-r", "CAPTURE", "--hash", "md5"], 2, "md5"),
        (["flows", "-r", "CAPTURE", "--key", "mac"], 2, "mac"),
        (["flows", "-r", "CAPTURE", "--checksums", "some"], 2, "some"),
        (["flows", "-r", "CAPTURE", "-w", "0"], 2, "workers"),
        (["flows", "-r", "CAPTURE", "-w", "9999"], 2, "workers"),
        (["flows", "-r", "CAPTURE", "-w", "two"], 2, "--workers"),
        (["flows", "-r", "CAPTURE", "--memory", "lots"], 2, "lots"),
        (["flows", "-r", "CAPTURE", "--memory", "1K"], 1, "memory"),
        (["flows", "-r", "CAPTURE", "--set", "speed=1"], 2, "speed"),
        (["flows", "-r", "CAPTURE", "--set", "timeout_udp"], 2, "NAME=VALUE"),
        (["flows", "-r", "CAPTURE", "--set", "overlap_policy=any"], 1, "overlap_policy"),
        (["flows", "-r", "CAPTURE", "--set", "timeout_udp=soon"], 2, "timeout_udp"),
        (["flows", "-r", "CAPTURE", "--filter", "tcp prot 80"], 1, "filter"),
        (["flows", "-r", "CAPTURE", "-w", "2", "--filter", "tcp prot 80"], 1, "filter"),
        (["flows", "-r", "-", "-r", "-"], 2, "standard input"),
        (["flows", "-r", "CAPTURE", "--streams", "/proc/none"], 1, "/proc/none"),
        (["run", "-r", "CAPTURE", "-m", "nonsense"], 1, "nonsense"),
        (["run", "-r", "CAPTURE", "-m", "none.py"], 1, "none.py"),
        (["run", "-r", "CAPTURE", "-m", "none.c"], 1, "none.c"),
    ],
)
def test_wrong_options(capture: Path, arguments: list[str], code: int, words: str) -> None:
    assert_one_line(shardmos(*[str(capture) if each == "CAPTURE" else each for each in arguments]), code, words)


MODULE = """
import shardmos as sm
class Box(sm.Middlebox):
    {filter}
    limit = sm.param(5)
    @sm.on(sm.{event})
    def handler(self, flow):
        pass
    {rest}
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("source", "parameters", "words"),
    [
        ("def broken(:\n", "", ["line 1"]),
        ("import nothing_of_this_name\n", "", ["line 1", "nothing_of_this_name"]),
        ("x = 1\n", "", ["found none"]),
        (MODULE.format(filter="", event="PKT_IN", rest=""), ":limt=5", ["no parameter 'limt'"]),
        (MODULE.format(filter="", event="PKT_IN", rest=""), ":limit=five", ["type int", "five"]),
        (MODULE.format(filter="", event="PKT_IN", rest=""), ":limit", ["key=value"]),
        (MODULE.format(filter="", event="NO_EVENT", rest=""), "", ["NO_EVENT"]),
        (MODULE.format(filter="filter = 'tcp prot 1'", event="PKT_IN", rest=""), "", ["filter"]),
    ],
)
def test_wrong_modules(
    capture: Path, tmp_path: Path, source: str, parameters: str, words: list[str], workers: int
) -> None:
    module = tmp_path / "module.py"
    module.write_text(source)
    result = shardmos("run", "-r", capture, "-m", f"{module}{parameters}", "-w", workers)
    assert_one_line(result, 1, *words)
