"""The end: of a coordinator that is asked, of one that is killed, and of workers that hang."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from coordinators import PROGRAM, Running, files, gone, shardmos, until, write_module
from traffic import conversations, write_pcap

HANG = "@sm.on(sm.CONN_START)\ndef start(self, flow):\n    while True: pass"


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    path = write_pcap(tmp_path / "many.pcap", conversations(300))
    return ["--replay", str(path), "--loop", "--rate", "20000", "-w", "2"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_within_two_seconds(runtime_dir: Path, arguments: list[str], number: int) -> None:
    with Running(*arguments) as coordinator:
        workers = coordinator.workers()
        assert "default.commands" in files(runtime_dir)
        code, seconds = coordinator.stop(number)
        assert code == 0 and seconds < 2
        assert all(gone(worker.pid) for worker in workers)
        assert files(runtime_dir) == []


def test_open_flows_are_reported_as_stopped(runtime_dir: Path, tmp_path: Path) -> None:
    frames = [frame for number, frame in enumerate(conversations(50)) if number % 8 < 4]  # no connection ends
    path = write_pcap(tmp_path / "open.pcap", frames)
    with (
        Running("--replay", str(path), "--rate", "100000", "--loop", "-w", "1") as coordinator,
        coordinator.client() as client,
    ):
        events = client.events("flow", timeout=5)
        coordinator.process.send_signal(signal.SIGINT)
        assert "stopped" in {event["end_reason"] for event in events}


def test_a_handler_that_never_returns_is_killed(runtime_dir: Path, arguments: list[str], tmp_path: Path) -> None:
    with Running(*arguments) as coordinator:
        workers = coordinator.workers()
        with coordinator.client() as client:
            client.push(write_module(tmp_path / "probe.py", HANG))
        until(lambda: all(worker.cpu_percent(0.1) > 10 for worker in workers))
        code, seconds = coordinator.stop()
        assert code == 0 and seconds < 2
        assert all(gone(worker.pid) for worker in workers) and files(runtime_dir) == []


def test_a_killed_coordinator_leaves_no_worker_and_its_name_is_free(
    runtime_dir: Path, arguments: list[str], tmp_path: Path
) -> None:
    with Running(*arguments) as coordinator:
        workers = coordinator.workers()
        with coordinator.client() as client:
            client.push(write_module(tmp_path / "probe.py", HANG))
        coordinator.process.kill()
        coordinator.process.wait()
        until(lambda: all(gone(worker.pid) for worker in workers), 2)
    with Running(*arguments) as again:
        assert again.stop()[0] == 0
    assert files(runtime_dir) == []


def test_exit_ends_with_the_replay(runtime_dir: Path, capture: Path) -> None:
    result = shardmos("up", "--replay", str(capture), "--exit", "--memory", "32MiB")
    assert result.returncode == 0, result.stderr
    assert files(runtime_dir) == []


C_HANG = """#include <shardmos/shardmos.h>
static void hang(void *self, const smos_call_t *call) { (void)self; (void)call; for (volatile int i = 0;;) i = 1 - i; }
static const smos_registration_t regs[] = {
    {.event = SMOS_PKT_IN, .side = SMOS_BOTH, .handler = hang}, {.event = SMOS_EVENT_COUNT}};
SMOS_MODULE = {SMOS_MODULE_HEADER, .name = "hang", .registrations = regs};
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_does_not_wait_for_a_compiler_and_none_is_left(
    runtime_dir: Path, arguments: list[str], tmp_path: Path, compiler: str, number: int
) -> None:
    """Nor does who pushed wait for a coordinator that is gone."""
    source = tmp_path / "long.c"
    source.write_text("".join(f"int f{at}(int x) {{ return x * {at} + (x >> 3) % 7; }}\n" for at in range(60_000)))
    with Running(*arguments) as coordinator:
        push = [sys.executable, "-c", PROGRAM, "push", str(source)]
        with subprocess.Popen(push, stderr=subprocess.PIPE, text=True) as client:
            compiling: list[psutil.Process] = []

            def compilers() -> bool:
                family = psutil.Process(coordinator.process.pid).children(recursive=True)
                compiling[:] = [each for each in family if each.name().startswith(("cc1", "clang"))]
                return bool(compiling)

            until(compilers, 30)
            began = time.monotonic()
            coordinator.process.send_signal(number)
            coordinator.process.wait(10)
            assert time.monotonic() - began < 2
            until(lambda: all(gone(each.pid) for each in compiling), 2)
            assert client.wait(10) == 1 and client.stderr is not None
            assert (
                "since the coordinator stops" if number == signal.SIGINT else "no coordinator"
            ) in client.stderr.read()


def longest_running(pid: int) -> float:
    """The most CPU time, in seconds, of the process and its children, some of which end meanwhile (the compiler)."""
    longest = 0.0
    for each in [psutil.Process(pid), *psutil.Process(pid).children()]:
        with contextlib.suppress(psutil.NoSuchProcess):
            longest = max(longest, each.cpu_times().user)
    return longest


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("language", ["py", "c"])
def test_ctrl_c_ends_a_run_whose_handler_never_returns(
    tmp_path: Path, compiler: str, language: str, workers: str
) -> None:
    """Every handler of the burst would hang again, and C does not notice a signal at all."""
    capture = write_pcap(tmp_path / "many.pcap", conversations(50))
    module = tmp_path / f"hang.{language}"
    module.write_text(C_HANG)
    if language == "py":
        write_module(module, HANG.replace("CONN_START", "PKT_IN"))
    command = [sys.executable, "-c", PROGRAM, "run", "-r", str(capture), "-m", str(module), "-w", workers]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: longest_running(process.pid) > 1.0, 60)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130 and time.monotonic() - began < 2
        finally:
            process.kill()
        assert process.stderr is not None and "Traceback" not in process.stderr.read()


def test_ctrl_c_while_the_program_is_imported_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(20)\n")
    command = [sys.executable, "-c", "from shardmos.cli.entry import main; main()", "doctor"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == -signal.SIGINT and process.stderr is not None and process.stderr.read() == ""
