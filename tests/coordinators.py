"""A coordinator in a process of its own, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from shardmos.client import Client
from shardmos.errors import ShardmosError

PROGRAM = "from shardmos.cli.main import main; main()"


def shardmos(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=timeout)


class Running:
    """`shardmos up ARGUMENTS`, until the block's end."""

    def __init__(self, *arguments: str, name: str = "default", prefix: Sequence[str] = ()) -> None:
        self.name = name
        command = [*prefix, sys.executable, "-c", PROGRAM, "up", "--memory", "32MiB", "--name", name, *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Running:
        deadline = time.monotonic() + 30
        while True:
            try:
                with Client(self.name) as client:
                    if client.ping()["pid"] == self.process.pid:  # not one that runs on this host anyway
                        return self
                raise ShardmosError("another coordinator")
            except ShardmosError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    raise AssertionError(f"did not come up: {self.process.communicate()[1]}") from None
                time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.communicate()

    def client(self) -> Client:
        return Client(self.name)

    def workers(self) -> list[psutil.Process]:
        return [psutil.Process(worker["pid"]) for worker in self.status()["workers"]]

    def status(self) -> dict[str, Any]:
        with self.client() as client:
            return client.status()

    def stop(self, number: int = signal.SIGINT) -> tuple[int, float]:
        """Its exit code, and how long it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(10), time.monotonic() - began


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits until the callable is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def write_module(path: Path, body: str, head: str = "") -> Path:
    """A Python middlebox named Probe with `body` as its class body."""
    indented = "\n".join("    " + line for line in body.splitlines())
    path.write_text(f"import shardmos as sm\n{head}\n\nclass Probe(sm.Middlebox):\n{indented}\n")
    return path


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def files(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))
