"""The clients, as a program uses them: both kinds give the same answers, errors are one line, events come and end."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinators import PROGRAM, Running, until, write_module
from test_stats_sums import balance
from traffic import conversations, write_pcap

import shardmos as sm
from shardmos import AsyncClient, Client, ShardmosError

CONNECTIONS = 300
EMIT = "@sm.on(sm.CONN_START)\ndef start(self, flow):\n    self.emit('n', {number})"


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pcap(tmp_path_factory.mktemp("client") / "many.pcap", conversations(CONNECTIONS))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, replay: Path) -> Iterator[Running]:
    patch = pytest.MonkeyPatch()
    patch.setenv("SHARDMOS_RUNTIME_DIR", str(tmp_path_factory.mktemp("r")))
    with Running("--replay", str(replay), "--loop", "--rate", "10000", "-w", "2") as coordinator:
        yield coordinator
    patch.undo()


def asynchronous(use: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with AsyncClient() as client:
            return await use(client)

    return asyncio.run(run())


def shape(value: Any) -> Any:
    """The keys, all the way down; counters and lists of workers are kept, numbers are not."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else type(value).__name__


def test_both_clients_give_the_same_answers(running: Running, tmp_path: Path) -> None:
    path = write_module(tmp_path / "probe.py", EMIT.format(number=1))
    with Client() as client:
        plain: dict[str, Any] = {
            "ping": client.ping(),
            "push": client.push(path),
            "status": client.status(),
            "ls": client.ls(),
            "stats": client.stats(),
            "rm": client.rm("Probe"),
        }
        assert isinstance(client.flows_count(), int)

    async def ask(client: AsyncClient) -> dict[str, Any]:
        assert isinstance(await client.flows_count(), int)
        return {
            "ping": await client.ping(),
            "push": await client.push(path),
            "status": await client.status(),
            "ls": await client.ls(),
            "stats": await client.stats(),
            "rm": await client.rm("Probe"),
        }

    other = asynchronous(ask)
    assert plain["ping"] == other["ping"] == {"name": "default", "pid": running.process.pid}
    assert plain["push"]["version"] == other["push"]["version"] and len(plain["push"]["pause_ns"]) == 2
    for name in ("status", "ls", "rm"):
        assert shape(plain[name]) == shape(other[name]), name
    assert plain["stats"].keys() == other["stats"].keys()


def test_stats_are_of_each_worker_and_in_sum(running: Running) -> None:
    with Client() as client:
        stats = client.stats()
    counters = [worker["counters"] for worker in stats["workers"]]
    assert len(counters) == 2 and all(each["packets"] > 0 for each in counters)
    assert {name: sum(each[name] for each in counters) for name in counters[0]} == stats["sum"]["counters"]
    # Each worker's segment is read at one moment: it balances while packets flow.
    assert [balance(each) for each in counters] == ["", ""]


def test_a_push_rolls_back_from_either_client(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "probe.py"
    with Client() as client:
        first = client.push(write_module(path, EMIT.format(number=1)))
        second = asynchronous(lambda other: other.push(write_module(path, EMIT.format(number=2))))
        assert second["replaced"] == first["version"]
        assert asynchronous(lambda other: other.rollback("Probe"))["version"] == first["version"]
        client.rm("Probe")


def test_what_is_refused_is_one_line_from_either(running: Running, tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import shardmos as sm\ndef broken(:\n")
    asks: list[tuple[Callable[[Any], Any], str]] = [
        (lambda client: client.rm("nothing"), "no module nothing"),
        (lambda client: client.rollback("nothing"), "nothing"),
        (lambda client: client.push(bad), "bad.py, line 2"),
        (lambda client: client.push(tmp_path / "none.py"), "no such file"),
        (lambda client: client.call("fly"), "fly"),
        (lambda client: client.call("rm", {"name": 5}), "name"),
        *(
            (lambda client, seconds=seconds: client.call("ping", timeout=seconds), f"timeout: {seconds!r}")
            for seconds in (-1, float("nan"), "long")
        ),
    ]
    with Client() as client:
        for ask, text in asks:
            with pytest.raises(ShardmosError, match=text) as caught:
                ask(client)
            assert "\n" not in str(caught.value)
            with pytest.raises(ShardmosError, match=text):
                asynchronous(ask)


@pytest.mark.parametrize(("topic", "text"), [(5, "topic 5"), ("x" * 300, "256 bytes"), ("\udcff", "give text")])
def test_a_topic_that_is_none_is_refused_at_once(running: Running, topic: Any, text: str) -> None:
    began = time.monotonic()
    with Client() as client, pytest.raises(ShardmosError, match=text):
        client.events(topic)

    async def first(client: AsyncClient) -> None:
        async for _ in client.events(topic):
            break

    with pytest.raises(ShardmosError, match=text):
        asynchronous(first)
    assert time.monotonic() - began < 3


def test_a_client_that_is_closed_says_so(running: Running) -> None:
    client = Client(timeout=float("inf"))
    assert client.ping()["name"] == "default"
    client.close()
    with pytest.raises(ShardmosError, match="the client is closed"):
        client.ls()
    with pytest.raises(ShardmosError, match="the client is closed"):
        client.events("flow")

    async def late(client: AsyncClient) -> Any:
        await client.close()
        return await client.ls()

    with pytest.raises(ShardmosError, match="the client is closed"):
        asynchronous(late)
    for name in (None, 5, b"default"):
        with pytest.raises(ShardmosError, match="coordinator's name"):
            Client(name)  # type: ignore[arg-type]


def test_events_end_after_a_silence_or_when_they_are_closed(running: Running) -> None:
    with Client() as client:
        began = time.monotonic()
        assert list(client.events("module.nobody.", timeout=0.3)) == []
        assert time.monotonic() - began < 5
        events = client.events("flow", timeout=10)
        assert next(events)["topic"] == "flow"
        events.close()
        assert list(events) == []

    async def silence(client: AsyncClient) -> list[Any]:
        return [event async for event in client.events("module.nobody.", timeout=0.3)]

    assert asynchronous(silence) == []


def test_many_clients_at_once(running: Running) -> None:
    async def ask() -> list[Any]:
        clients = [AsyncClient() for _ in range(20)]
        try:
            return list(await asyncio.gather(*(client.ping() for client in clients for _ in range(10))))
        finally:
            for client in clients:
                await client.close()

    answers = asyncio.run(ask())
    assert len(answers) == 200 and all(answer["pid"] == running.process.pid for answer in answers)


def test_clients_and_their_events_end_with_the_coordinator(runtime_dir: Path, replay: Path) -> None:
    with Running("--replay", str(replay), "--loop", "--rate", "1000", name="short") as coordinator:
        client = Client("short", timeout=1)
        events = client.events("flow", timeout=20)
        next(events)
        coordinator.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        stopped = [event for event in events if event["end_reason"] == "stopped"]
        assert time.monotonic() - began < 10
        assert len(stopped) <= CONNECTIONS
        with pytest.raises(ShardmosError, match="no coordinator named short"):
            client.ping()
        client.close()
        client.close()


def test_stop_from_a_client_ends_the_coordinator(runtime_dir: Path, replay: Path) -> None:
    with Running("--replay", str(replay), "--loop", name="ended") as coordinator:
        with coordinator.client() as client:
            client.stop()
        assert coordinator.process.wait(5) == 0


def test_stats_can_be_watched_and_left_with_control_c(running: Running) -> None:
    """On a terminal, as a person sees it: tables that change, no traceback at the end."""
    main, other = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, "stats", "--watch"]
    process = subprocess.Popen(
        command, stdout=other, stderr=other, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(other)
    shown = b""
    try:
        until(lambda: _more(main) is not None)
        deadline = time.monotonic() + 20
        while b"packets/s" not in shown and time.monotonic() < deadline:
            shown += _more(main) or b""
        process.send_signal(signal.SIGINT)
        code = process.wait(10)
        shown += _more(main) or b""
    finally:
        process.kill()
        process.wait()
        os.close(main)
    assert b"packets/s" in shown and b"Traceback" not in shown
    assert code in (0, 130)


def _more(fd: int) -> bytes | None:
    if not select.select([fd], [], [], 0.2)[0]:
        return None
    try:
        return os.read(fd, 65536)
    except OSError:
        return None


def test_watched_stats_as_json_are_one_object_a_line(running: Running) -> None:
    command = [sys.executable, "-c", PROGRAM, "stats", "--watch", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        assert first["sum"]["counters"]["packets"] < second["sum"]["counters"]["packets"]
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_replay_from_standard_input_is_counted_whole(runtime_dir: Path, replay: Path, workers: int) -> None:
    command = [sys.executable, "-c", PROGRAM, "up", "--replay", "-", "-w", str(workers), "--memory", "32MiB"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdin is not None
        content = replay.read_bytes()
        process.stdin.write(content[: len(content) // 2])
        process.stdin.flush()
        until(_comes_up)
        with Client() as client:
            half = client.stats()["sum"]["counters"]
            assert half.get("packets", 0) < CONNECTIONS * 8  # the rest is not there yet
            process.stdin.write(content[len(content) // 2 :])
            process.stdin.close()
            until(lambda: all(worker["state"] == "ended" for worker in client.status()["workers"]))
            counters = client.stats()["sum"]["counters"]
        assert counters["packets"] == CONNECTIONS * 8 and balance(counters) == ""
        assert counters["end_fin"] == counters["flows_made"] == CONNECTIONS
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        process.stderr.close()


def _comes_up() -> bool:
    try:
        with Client() as client:
            return bool(client.ping())
    except ShardmosError:
        return False


def test_a_client_without_coordinator_says_how_to_start_one(runtime_dir: Path) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(sm.ShardmosError, match=r"no coordinator named nobody .*shardmos up --name nobody"):
            kind("nobody")
