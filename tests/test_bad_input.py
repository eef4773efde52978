"""Bad captures, options and modules: one clear line on standard error and the right exit code, never a traceback."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest
from cli_help import COMMAND, assert_one_line, shardmos
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
        (["flows", "-r", "CAPTURE", "--memory", "1K"], 2, "memory"),
        (["flows", "-r", "CAPTURE", "--set", "speed=1"], 2, "speed"),
        (["flows", "-r", "CAPTURE", "--set", "timeout_udp"], 2, "NAME=VALUE"),
        (["flows", "-r", "CAPTURE", "--set", "overlap_policy=any"], 2, "overlap_policy"),
        (["flows", "-r", "CAPTURE", "--set", "timeout_udp=soon"], 2, "timeout_udp"),
        (["flows", "-r", "CAPTURE", "--filter", "tcp prot 80"], 1, "filter"),
        (["flows", "-r", "CAPTURE", "-w", "2", "--filter", "tcp prot 80"], 1, "filter"),
        (["flows", "-r", "CAPTURE", "--set", "timeout_udp=-1"], 2, "timeout_udp"),
        *(  # keywords of flows() and run() that are no settings
            (["flows", "-r", "CAPTURE", "--set", f"{name}=1"], 2, f"no option '{name}'")
            for name in ("workers", "filter", "hash", "annotators", "on_extras")
        ),
        *(
            (["run", "-r", "CAPTURE", "--set", f"{name}=1"], 2, f"no option '{name}'")
            for name in ("modules", "write", "on_event")
        ),
        (["flows", "-r", "-", "-r", "-"], 2, "standard input"),
        (["flows", "-r", ""], 2, "empty"),
        (["flows", "-r", "CAPTURE", "--streams", ""], 2, "folder"),
        (["run", "-r", "CAPTURE", "-I", "/tmp"], 2, "--mos"),
        (["run", "-r", "CAPTURE", "--write", "/dev/full"], 1, "/dev/full: cannot be written: No space left"),
        (["flows", "-r", "CAPTURE", "--streams", "/proc/none"], 1, "/proc/none"),
        (["run", "-r", "CAPTURE", "-m", "nonsense"], 1, "nonsense"),
        (["run", "-r", "CAPTURE", "-m", "none.py"], 1, "none.py"),
        (["run", "-r", "CAPTURE", "-m", "none.c"], 1, "none.c"),
    ],
)
def test_wrong_options(capture: Path, arguments: list[str], code: int, words: str) -> None:
    assert_one_line(shardmos(*[str(capture) if each == "CAPTURE" else each for each in arguments]), code, words)


@pytest.mark.parametrize("command", [["flows", "-r", "-"], ["up", "--replay", "-", "-w", "2"]])
def test_standard_input_that_is_closed(command: list[str]) -> None:
    line = 'exec "$0" "$@" <&-'
    result = subprocess.run(
        ["sh", "-c", line, *COMMAND, *command], capture_output=True, text=True, timeout=10, check=False
    )
    assert_one_line(result, 1, "standard input is closed")


@pytest.mark.parametrize(
    "command",
    [
        ["--version"], ["flows", "--help"], ["flows", "-r", "CAPTURE"], ["flows", "-r", "CAPTURE", "--json"],
        ["flows", "-r", "CAPTURE", "--explain", "#1"], ["run", "-r", "CAPTURE", "-m", "count"],
        ["run", "-r", "CAPTURE", "-m", "count", "--events"],
    ],
)  # fmt: skip
def test_an_output_that_cannot_be_written(capture: Path, command: list[str]) -> None:
    line = [*COMMAND, *(str(capture) if each == "CAPTURE" else each for each in command)]
    with open("/dev/full", "w") as full:
        result = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert_one_line(result, 1, "standard output cannot be written: No space left on device")
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" >&-', *line], stderr=subprocess.PIPE, text=True, timeout=30, check=False
    )
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_time_beyond_all_bounds_is_never(capture: Path) -> None:
    assert shardmos("flows", "-r", capture, "--set", "timeout_udp=1e300").returncode == 0


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
        (MODULE.format(filter="filter = 80", event="PKT_IN", rest=""), "", ["module.py", "filter", "80"]),
        (MODULE.format(filter="emit = sm.param(1)", event="PKT_IN", rest=""), "", ["module.py", "parameter emit"]),
        ("raise SystemExit(3)\n", "", ["module.py, line 1", "SystemExit: 3"]),
        ("x = '\0'\n", "", ["module.py: ", "null bytes"]),
        (MODULE.format(filter="", event="PKT_IN", rest="def __init__(self, x): pass"), "", ["module.py", "'x'"]),
        (
            MODULE.format(filter="", event="PKT_IN", rest="def on_start(self): raise ValueError('not today')"),
            "",
            ["module.py, line 9", "ValueError: not today"],
        ),
        (
            MODULE.format(filter="", event="PKT_IN", rest="def on_start(self): raise SystemExit(4)"),
            "",
            ["module.py, line 9", "SystemExit: 4"],
        ),
        (
            MODULE.format(filter="", event="PKT_IN", rest="def summary(self): return 1 / 0"),
            "",
            ["module.py, line 9", "ZeroDivisionError"],
        ),
        *(
            (
                MODULE.format(filter="", event="PKT_IN", rest=f"@sm.on(sm.CONN_END)\n    {body}"),
                "",
                ["module.py", "other of CONN_END", "without async and yield"],
            )
            for body in ("async def other(self, flow): pass", "def other(self, flow): yield 1")
        ),
    ],
)
def test_wrong_modules(
    capture: Path, tmp_path: Path, source: str, parameters: str, words: list[str], workers: int
) -> None:
    module = tmp_path / "module.py"
    module.write_text(source)
    result = shardmos("run", "-r", capture, "-m", f"{module}{parameters}", "-w", workers)
    assert_one_line(result, 1, *words)


def test_a_handler_that_ends_the_run_is_told(capture: Path, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(MODULE.format(filter="", event="PKT_IN", rest="").replace("pass", "raise SystemExit(4)"))
    for workers in (1, 2):
        assert_one_line(shardmos("run", "-r", capture, "-m", module, "-w", workers), 1, "SystemExit: 4")


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ('"many", "int", "plenty"', ["many", "type int", "plenty"]),
        ('"many", "complex", "1"', ["many", "complex", "float"]),
    ],
)
def test_a_c_module_whose_parameters_contradict_themselves(
    capture: Path, tmp_path: Path, compiler: str, parameter: str, words: list[str]
) -> None:
    module = tmp_path / "module.c"
    module.write_text(
        "#include <shardmos/shardmos.h>\n"
        f'static const smos_param_t params[] = {{{{{parameter}, ""}}, {{0}}}};\n'
        'SMOS_MODULE = {SMOS_MODULE_HEADER, .name = "wrong", .params = params};\n'
    )
    assert_one_line(shardmos("run", "-r", capture, "-m", module), 1, *words)
