"""A pair whose module kills each worker that has it, at every packet: what becomes of packets is as port.fail says."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from coordinators import Running, until, write_module
from live import quick, settled, totals
from netns import Wire, need

DRIVERS = ("af_packet", "af_xdp")
FRAGILE = "@sm.on(sm.PKT_IN)\ndef look(self, flow):\n    os.abort()"
SOUND = "@sm.on(sm.PKT_IN)\ndef look(self, flow):\n    pass"


class Talk:
    """Numbered datagrams from the client to the server."""

    def __init__(self, wire: Wire) -> None:
        self.receiver = wire.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.bind((wire.SERVER, 5000))
        self.sender = wire.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sender.connect((wire.SERVER, 5000))
        self.sent = 0

    def send(self) -> int:
        self.sender.send(str(self.sent).encode())
        self.sent += 1
        return self.sent - 1

    def received(self, seconds: float) -> list[int]:
        got = []
        self.receiver.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            while True:
                got.append(int(self.receiver.recv(100)))
        return got


def worker_of(running: Running) -> dict[str, Any]:
    (worker,) = running.status()["workers"]
    return dict(worker)


def keep_killing(running: Running, talk: Talk) -> None:
    """Until the worker rests for at least three seconds."""

    def long_rest() -> bool:
        talk.send()
        time.sleep(0.02)
        worker = worker_of(running)
        return bool(worker["restarts"] >= 10 and worker["state"] == "resting")

    until(long_rest, 60)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_a_pair_is_served_while_its_modules_rest(runtime_dir: Path, tmp_path: Path, fail: str, driver: str) -> None:
    arguments = quick("--pair", "left", "right", "-w", "1", "--driver", driver, "--set", f"port.fail={fail}")
    with Wire(queues=1) as wire, Running(*arguments, prefix=wire.box.command()) as running, running.client() as client:
        talk = Talk(wire)
        until(lambda: running.status()["spare"])
        client.push(write_module(tmp_path / "fragile.py", FRAGILE, "import os"))
        keep_killing(running, talk)
        assert client.ls()[0]["name"] == "Probe"

        talk.received(0.3)
        before = totals(running)
        sent = [talk.send() for _ in range(30)]
        if fail == "open":
            assert talk.received(1) == sent
            assert totals(running)["drop_resting"] == 0
        else:
            until(lambda: totals(running)["drop_resting"] >= before["drop_resting"] + 30)

        # Without the module, or with a version that does not break, the pause is over; nothing comes late.
        if driver == "af_xdp":
            client.rm("Probe")
        else:
            client.push(write_module(tmp_path / "sound.py", SOUND))
        until(lambda: worker_of(running)["state"] == "running")
        after = [talk.send() for _ in range(30)]
        assert talk.received(1) == after
        counters = settled(running)
        assert counters["drop_resting"] == 0 if fail == "open" else counters["drop_resting"] >= 30


def pings(wire: Wire, seconds: int) -> bool:
    """Whether `ping` gets an answer within that time; its neighbour is known before, so that ARP is not asked."""
    return wire.client.run("ping", "-c", "1", "-w", str(seconds), wire.SERVER).returncode == 0


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_a_worker_that_dies_while_it_rests_is_replaced_by_one_that_rests(
    runtime_dir: Path, tmp_path: Path, fail: str, driver: str
) -> None:
    """Nobody loads modules that kill, and nobody leaves the pair without a worker, until the modules are gone."""
    need("ping", "iputils-ping")
    arguments = quick("--pair", "left", "right", "-w", "1", "--driver", driver, "--set", f"port.fail={fail}")
    with Wire(queues=1) as wire, Running(*arguments, prefix=wire.box.command()) as running, running.client() as client:
        assert pings(wire, 10)
        until(lambda: running.status()["spare"])
        client.push(write_module(tmp_path / "fragile.py", FRAGILE, "import os"))
        keep_killing(running, Talk(wire))
        pid = worker_of(running)["pid"]
        running.workers()[0].kill()
        until(lambda: worker_of(running)["state"] == "resting" and worker_of(running)["pid"] != pid)
        if fail == "open":
            assert pings(wire, 10)
        else:
            before = totals(running)["drop_resting"]
            assert not pings(wire, 2)
            assert totals(running)["drop_resting"] > before
        client.rm("Probe")
        until(lambda: worker_of(running)["state"] == "running")
        assert pings(wire, 10)


def test_a_module_that_cannot_be_loaded_again_rests_too(runtime_dir: Path, tmp_path: Path) -> None:
    """It was pushed when it could be; now each worker that is given it dies before it has taken a packet."""
    switch = tmp_path / "abort"
    head = f"import os\nif os.path.exists({str(switch)!r}):\n    os.abort()"
    arguments = quick("--pair", "left", "right", "-w", "1", "--set", "port.fail=open")
    with Wire(queues=1) as wire, Running(*arguments, prefix=wire.box.command()) as running, running.client() as client:
        talk = Talk(wire)
        talk.receiver.settimeout(20)

        def through() -> bool:
            return talk.send() == int(talk.receiver.recv(100))

        assert through()
        until(lambda: running.status()["spare"])
        client.push(write_module(tmp_path / "fragile.py", SOUND, head))
        switch.touch()
        running.workers()[0].kill()
        until(lambda: worker_of(running)["restarts"] >= 7 and worker_of(running)["state"] == "resting", 60)
        assert through()
        switch.unlink()
        until(lambda: worker_of(running)["state"] == "running", 60)
        assert client.ls()[0]["name"] == "Probe"
        assert through()
