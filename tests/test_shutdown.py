"""The end: of a coordinator that is asked, of one that is killed, and of workers that hang."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from coordinators import Running, files, gone, shardmos, until, write_module
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
