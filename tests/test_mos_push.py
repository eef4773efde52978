"""mOS programs pushed into running workers: over a replayed capture, and in the way of real connections."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_help import COMMAND
from coordinators import Running, shardmos
from coordinators import until as until_soon
from live import connect, quick, serving
from mos_run import PROGRAMS, compiled
from netns import Wire
from traffic import conversation, write_pcap

from shardmos.client import RemoteError

pytestmark = pytest.mark.timeout(600)  # programs are compiled

FIREWALL = ("fw/main", "fw/rules")
SOURCES = [*(str(PROGRAMS / f"{name}.c") for name in FIREWALL), "-I", str(PROGRAMS / "fw" / "include")]


def until(condition: Callable[[], object]) -> None:
    until_soon(condition, 60)


class Output:
    """What a coordinator's workers and their programs print."""

    def __init__(self, running: Running) -> None:
        self.lines: list[str] = []
        assert running.process.stderr is not None
        self._stream = running.process.stderr
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        for line in self._stream:
            self.lines.append(line.rstrip())

    def count(self, start: str) -> int:
        return sum(line.startswith(start) for line in list(self.lines))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that programs are pushed from, which is not the coordinator's."""
    home = tmp_path / "run"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("SHARDMOS_RUNTIME_DIR", str(home))
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "rules").write_text("DROP 0.0.0.0/0 0.0.0.0/0 dport:8081\nACCEPT 10.0.0.0/8 0.0.0.0/0\n")
    (folder / "mos.conf").write_text("mos {\n rmem_size = 8192\n}\n")
    return folder


def push(here: Path, *words: str) -> tuple[int, str]:
    """As its author pushes it, in his folder: the exit code, and what was said."""
    command = [*COMMAND, "push", "--mos", *words]
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False, timeout=300)
    return result.returncode, result.stderr


def give(running: Running, here: Path, names: tuple[str, ...], *arguments: str) -> None:
    """The same, of a program that was compiled already."""
    params = {"args": shlex.join(arguments), "folder": str(here)}
    with running.client() as client:
        file = Path(names[0]).name + ".so"
        client.call("push", {"file": file, "content": compiled(*names), "params": params}, 300)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_program_is_pushed_replaced_and_removed(here: Path, workers: int) -> None:
    frames = [
        f for n in range(8) for f in conversation(client=(f"10.0.0.{n + 1}", 4000), server=("10.1.0.1", 8080 + n % 2))
    ]
    capture = write_pcap(here / "a.pcap", frames, step=0.05)
    with Running("--replay", str(capture), "--loop", "--rate", "500", "-w", str(workers)) as running:
        output = Output(running)
        assert push(here, *SOURCES, "--", "-c", "mos.conf", "-f", "rules") == (0, "")
        with running.client() as client:
            (module,) = client.ls()
            assert module["name"] == "main"
            until(lambda: client.stats()["sum"]["counters"]["drop_verdict"] > 0)
        until(lambda: output.count("table: ") > workers)  # its timers
        # A new version ends the old one on every worker, at its SIGINT or its join.
        give(running, here, FIREWALL, "-c", "mos.conf", "-f", str(here / "rules"))
        until(lambda: output.count("end: ") == workers)
        # What does not compile, does not begin, or ends itself is refused; what was there goes on.
        (here / "bad.c").write_text("int main(void) { return nothing(; }\n")
        code, message = push(here, "bad.c")
        assert code == 1 and "bad.c" in message and "error" in message
        with pytest.raises(RemoteError, match=r"ended itself with exit\(1\)"):
            give(running, here, FIREWALL, "-f", "no such file")
        with pytest.raises(RemoteError, match="within 5 seconds"):
            give(running, here, ("lives",), "forever")
        with running.client() as client:
            assert [module["name"] for module in client.ls()] == ["main"]
            calls = client.stats()["sum"]["modules"][0]["calls"]
            until(lambda: client.stats()["sum"]["modules"][0]["calls"] > calls)
        assert shardmos("rm", "main").returncode == 0
        until(lambda: output.count("end: ") == 2 * workers)
        assert all(worker.is_running() for worker in running.workers())


def test_a_program_that_exits_leaves_its_worker(here: Path) -> None:
    capture = write_pcap(here / "a.pcap", conversation(), step=0.05)
    with Running("--replay", str(capture), "--loop", "--rate", "500") as running:
        output, before = Output(running), [worker.pid for worker in running.workers()]
        give(running, here, ("ends",), "callback", "abort")
        until(lambda: any("abort" in line for line in list(output.lines)))
        with running.client() as client:
            packets = client.stats()["sum"]["counters"]["packets"]
            until(lambda: client.stats()["sum"]["counters"]["packets"] > packets + 50)
        assert shardmos("rm", "ends").returncode == 0
        until(lambda: "at exit, last told, 3 packets" in output.lines)
        assert [worker.pid for worker in running.workers()] == before


# ---- in the way of real connections ----


@pytest.fixture(params=[1, 2])
def inline(request: pytest.FixtureRequest, here: Path) -> Iterator[tuple[Wire, Running]]:
    with Wire(queues=2) as wire:
        arguments = quick("--pair", "left", "right", "-w", str(request.param), "--driver", "af_packet")
        with Running(*arguments, prefix=wire.box.command()) as running:
            yield wire, running


def test_a_firewall_in_the_way(here: Path, inline: tuple[Wire, Running]) -> None:
    wire, running = inline
    output = Output(running)

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"let in")

    give(running, here, FIREWALL, "-c", "mos.conf", "-f", "rules")
    with serving(wire.server, (wire.SERVER, 8081), answer), serving(wire.server, (wire.SERVER, 8082), answer):
        with wire.client.socket(socket.AF_INET) as refused:
            refused.settimeout(1.5)
            with pytest.raises(OSError, match="timed out"):
                refused.connect((wire.SERVER, 8081))
        for _ in range(20):
            with connect(wire.client, (wire.SERVER, 8082)) as connection:
                assert connection.recv(100) == b"let in"
        assert shardmos("rm", "main").returncode == 0
        with connect(wire.client, (wire.SERVER, 8081)) as connection:
            assert connection.recv(100) == b"let in"
    until(lambda: output.count("end: ") == len(running.workers()))
    hits = [[int(word) for word in line.split()[1:]] for line in output.lines if line.startswith("end: ")]
    assert sum(first for first, _ in hits) >= 1  # the SYN, and maybe once more


def test_a_proxy_in_the_way(here: Path, inline: tuple[Wire, Running]) -> None:
    """Both ends see streams that were changed, and acknowledge what they saw."""
    wire, running = inline
    request, line = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", b"Via: box\r\n"
    got: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        for number in range(10):
            wanted = len(request % number) + len(line)
            data = connection.recv(wanted, socket.MSG_WAITALL)
            got.append(data)
            connection.sendall(
                b"the SECRET of %d;" % number + os.urandom(3000).replace(b";", b":").replace(b"SECRET", b"") + b";"
            )

    give(running, here, ("proxy",))
    with (
        serving(wire.server, (wire.SERVER, 8080), answer),
        connect(wire.client, (wire.SERVER, 8080)) as connection,
        connection.makefile("rb") as stream,
    ):
        for number in range(10):
            connection.sendall(request % number)
            text = b""
            while text.count(b";") < 2:
                text += stream.read(1)
            assert text.startswith(b"the  of %d;" % number)
    assert got == [(request % n).replace(b"Host", line + b"Host") for n in range(10)]
