"""A running coordinator, seen from outside: who answers, what is refused, what restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from coordinators import Running, files, gone, shardmos, until, write_module
from traffic import conversations, write_pcap

from shardmos.client import AsyncClient, Client
from shardmos.control.protocol import decode_reply, find_coordinator, pack
from shardmos.errors import ShardmosError


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pcap(tmp_path_factory.mktemp("replay") / "many.pcap", conversations(300))


@pytest.fixture
def running(runtime_dir: Path, replay: Path) -> Iterator[Running]:
    with Running("--replay", str(replay), "--loop", "--rate", "20000", "-w", "2") as coordinator:
        yield coordinator


def packets(client: Client) -> int:
    return int(client.stats()["sum"]["counters"].get("packets", 0))


def test_every_packet_of_a_replay_is_accounted_for_once(runtime_dir: Path, replay: Path) -> None:
    with Running("--replay", str(replay), "-w", "2") as coordinator, coordinator.client() as client:
        until(lambda: all(worker["state"] == "ended" for worker in client.status()["workers"]))
        counters = client.stats()["sum"]["counters"]
        assert counters["packets"] == 300 * 8
        accounted = sum(counters[name] for name in ("packets_flow", "packets_orphan", "packets_fragment"))
        accounted += sum(
            counters[f"drop_{why}"] for why in ("not_ip", "malformed", "truncated", "linktype", "filtered", "no_memory")
        )
        assert accounted == counters["packets"]
        assert counters["flows_made"] == 300 and counters["end_fin"] == 300 and counters["flows_now"] == 0


def test_two_workers_share_the_flows_of_a_capture_that_only_one_can_read(
    runtime_dir: Path, replay: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "many.pcap.gz"
    subprocess.run(f"gzip -c {replay} > {packed}", shell=True, check=True)
    with Running("--replay", str(packed), "-w", "2") as coordinator, coordinator.client() as client:
        until(lambda: all(worker["state"] == "ended" for worker in client.status()["workers"]))
        stats = client.stats()
        assert stats["sum"]["counters"]["packets"] == 300 * 8
        assert all(worker["counters"]["packets"] > 0 for worker in stats["workers"])


def test_a_second_coordinator_of_that_name_is_refused_and_the_first_goes_on(running: Running, replay: Path) -> None:
    second = shardmos("up", "--replay", str(replay))
    assert second.returncode == 1
    assert "a coordinator named default runs already" in second.stderr and second.stderr.count("\n") == 1
    with running.client() as client:
        assert client.ping()["pid"] == running.process.pid


def test_a_runtime_directory_that_is_named_is_the_only_one(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "shardmos").symlink_to(os.environ["SHARDMOS_RUNTIME_DIR"])
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("SHARDMOS_RUNTIME_DIR")
    with Client() as client:
        assert client.ping()["pid"] == running.process.pid
    monkeypatch.setenv("SHARDMOS_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(ShardmosError, match="no coordinator"):
        Client()


def test_hostile_messages_are_answered_counted_and_harm_nothing(running: Running) -> None:
    context = zmq.Context()
    try:
        socket = context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, 0)
        socket.connect(f"ipc://{find_coordinator('default')['commands']}")
        sent = [
            [b""],
            [b"\xc1"],
            [b"x" * (18 << 20)],
            [pack({"v": 1, "id": 4, "op": "fly"})],
            [b"a", b"b"],
            [b"\x91" * 9999],
        ]
        codes = []
        for frames in sent:
            socket.send_multipart(frames)
            assert socket.poll(5000)
            error = decode_reply(socket.recv())[2]
            assert error is not None
            codes.append(error.code)
        assert codes == ["malformed", "malformed", "too-large", "unknown-op", "malformed", "malformed"]
    finally:
        context.destroy(linger=0)
    with running.client() as client:
        assert client.stats()["coordinator"]["commands_malformed"] == len(sent)
        before = packets(client)
        until(lambda: packets(client) > before)


def test_a_worker_that_dies_comes_back_with_the_modules_and_the_counts(running: Running, tmp_path: Path) -> None:
    module = write_module(tmp_path / "probe.py", "@sm.on(sm.CONN_START)\ndef start(self, flow): pass")
    with running.client() as client:
        client.push(module)
        events = client.events("coordinator", timeout=10)
        before = client.stats()["workers"][0]
        os.kill(before["pid"], signal.SIGKILL)
        kinds = [event["event"] for _, event in zip(range(3), events, strict=False)]
        assert kinds == ["worker-died", "worker-restarted", "worker-started"]
        until(lambda: client.stats()["workers"][0]["counters"]["packets"] > before["counters"]["packets"])
        after = client.stats()["workers"][0]
        assert after["restarts"] == 1 and after["pid"] != before["pid"]
        until(
            lambda: any(each["name"] == "Probe" and each["calls"] for each in client.stats()["workers"][0]["modules"])
        )


def test_events_of_flows_are_published_only_when_asked_for(running: Running) -> None:
    with running.client() as client:
        assert client.stats()["coordinator"]["events_batches"] == 0
        events = client.events("flow", timeout=5)
        first = next(events)
        assert (first["topic"], first["server"], first["conn_state"]) == ("flow", "10.0.0.2", "SF")
        events.close()
        until(lambda: client.status()["subscriptions"] == [])


def test_the_asynchronous_client_overlaps_its_calls(running: Running) -> None:
    async def ask() -> None:
        async with AsyncClient() as client:
            answers = await asyncio.gather(*(client.ping() for _ in range(20)), client.stats())
            assert {answer["name"] for answer in answers} == {"default"}
            async for event in client.events("flow", timeout=5):
                assert event["topic"] == "flow"
                break
            with pytest.raises(ShardmosError, match="no module nothing"):
                await client.rm("nothing")

    asyncio.run(ask())


def test_a_name_without_coordinator_says_how_to_start_one(runtime_dir: Path) -> None:
    result = shardmos("stats", "--name", "nobody")
    assert result.returncode == 1
    assert result.stderr.strip().endswith("no coordinator named nobody (start one with: shardmos up --name nobody)")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--replay", "/nonexistent.pcap"], 1, "No such file"),
        (["--replay", "EMPTY"], 1, ""),
        (["--replay", "TEXT"], 1, ""),
        (["--replay", "GOOD", "-w", "9999"], 2, "workers"),
        (["--replay", "GOOD", "-f", "tcp prt 80"], 1, "filter"),
        (["--replay", "GOOD", "--memory", "12parsecs"], 2, "memory"),
        (["--replay", "GOOD", "--set", "worker.nothing=1"], 2, "nothing"),
        (["--replay", "GOOD", "--name", "../x"], 1, "name"),
        (["-i", "nosuch0"], 1, "no interface nosuch0"),
        (["--pair", "lo", "lo"], 2, "two interfaces"),
        (["-i", "lo", "--replay", "GOOD"], 2, "one kind of port"),
        ([], 2, "no port"),
    ],
)
def test_what_up_cannot_do_is_one_line(
    runtime_dir: Path, capture: Path, tmp_path: Path, arguments: list[str], code: int, text: str
) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("this is no capture at all, only text\n" * 10)
    places = {"EMPTY": str(tmp_path / "empty"), "TEXT": str(tmp_path / "text"), "GOOD": str(capture)}
    result = shardmos("up", *(places.get(each, each) for each in arguments))
    assert result.returncode == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if " INFO " not in line]
    assert len(errors) == 1 and text in errors[0] and "Traceback" not in result.stderr
    assert files(runtime_dir) == []


def test_stats_and_ls_are_tables_and_json(running: Running) -> None:
    time.sleep(0.3)
    assert '"packets"' in shardmos("stats", "--json").stdout
    assert "flows_made" in shardmos("stats").stdout
    assert "no modules" in shardmos("ls").stdout
    lines = shardmos("events", "flow", "-n", "3").stdout.splitlines()
    assert len(lines) == 3 and all('"topic": "flow"' in line for line in lines)
    assert not gone(running.process.pid)
