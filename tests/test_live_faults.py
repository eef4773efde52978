"""What goes wrong around a live port: workers die, links go down, interfaces go and come back; and bad input."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinators import PROGRAM, Running, until, write_module
from live import quick, settled, totals, transfer
from netns import Namespace, Wire, join, need

DRIVERS = ("af_packet", "af_xdp")


@contextlib.contextmanager
def bridging(*arguments: str) -> Iterator[tuple[Wire, Running]]:
    with (
        Wire(queues=2) as wire,
        Running(*quick("--pair", "left", "right", *arguments), prefix=wire.box.command()) as running,
    ):
        yield wire, running


class Stream:
    """Numbered datagrams from the client to the server, a millisecond apart."""

    def __init__(self, wire: Wire, port: int = 5000) -> None:
        self.receiver = wire.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.bind((wire.SERVER, port))
        self.receiver.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE: read when all is sent
        self.receiver.settimeout(3)
        self.sender = wire.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sender.connect((wire.SERVER, port))
        self.sent = 0
        self.got: list[int] = []

    def begin(self) -> None:
        """One datagram by itself: those that wait for an answer to ARP are overtaken by what comes after it."""
        self.sender.send(b"first")
        assert self.receiver.recv(100) == b"first"

    def send(self, count: int) -> None:
        for _ in range(count):
            self.sender.send(struct.pack("!I", self.sent))
            self.sent += 1
            time.sleep(0.001)

    def burst(self, count: int) -> None:
        """As fast as one sender can, but not faster than any ring takes them."""
        for _ in range(count):
            self.sender.send(struct.pack("!I", self.sent))
            self.sent += 1

    def received(self) -> list[int]:
        """All that arrived up to now, waiting for what was sent."""
        with contextlib.suppress(TimeoutError):
            while len(self.got) < self.sent:
                self.got.append(struct.unpack("!I", self.receiver.recv(100)[:4])[0])
        return self.got


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_killed_worker_costs_no_packet(runtime_dir: Path, driver: str) -> None:
    with bridging("--driver", driver) as (wire, running):
        stream = Stream(wire)
        stream.begin()
        until(lambda: running.status()["spare"])
        for _ in range(3):
            stream.send(150)
            running.workers()[0].kill()
            stream.send(150)
        assert stream.received() == list(range(stream.sent))
        assert sum(worker["restarts"] for worker in running.status()["workers"]) == 3
        transfer(wire, 1 << 20, 8000)


EDIT = """
@sm.on(sm.PKT_IN)
def mark(self, flow, packet):
    if packet.payload_len == 4:
        packet.overwrite(0, b"E")
"""


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_costs_no_packet_that_is_edited_or_another_workers(
    runtime_dir: Path, tmp_path: Path, driver: str, workers: int
) -> None:
    """Those leave in frames other than they came in: the next worker must have some before it has read the old ring."""
    arguments = ("-w", str(workers), "--driver", driver, "--set", "port.fanout=round-robin")
    with bridging(*arguments) as (wire, running), running.client() as client:
        client.push(write_module(tmp_path / "edit.py", EDIT))
        stream = Stream(wire)
        stream.begin()
        until(lambda: running.status()["spare"])
        for _ in range(3):
            stream.send(50)
            stream.received()  # a frame that meets two deaths is let go
            for worker in running.workers():
                worker.kill()
            stream.burst(400)
            stream.received()
            until(lambda: running.status()["spare"])
        assert sorted(number & 0xFFFFFF for number in stream.received()) == list(range(stream.sent))
        assert {number >> 24 for number in stream.got} == {ord("E")}
        assert settled(running)["packets_unsent"] == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_deaths_that_are_no_modules_drop_nothing(runtime_dir: Path, driver: str) -> None:
    """A pair that fails closed keeps back what its modules cannot judge; where there are none it passes on."""
    with bridging("--driver", driver) as (wire, running):
        stream = Stream(wire)
        stream.begin()
        for _ in range(5):
            until(lambda: running.status()["spare"])
            stream.send(30)
            running.workers()[0].kill()
            stream.send(30)
        assert stream.received() == list(range(stream.sent))
        assert settled(running)["drop_resting"] == 0


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_a_packet_that_kills_its_worker_is_let_go(runtime_dir: Path, tmp_path: Path, fail: str, driver: str) -> None:
    """The others of its burst, and all that come after it, go their way; itself only where the pair fails open."""
    body = (
        "@sm.on(sm.PKT_IN)\ndef look(self, flow):\n    if b'poison' in bytes(flow.packet.payload):\n        os.abort()"
    )
    with bridging("--driver", driver, "--set", f"port.fail={fail}") as (wire, running):
        with running.client() as client:
            client.push(write_module(tmp_path / "fragile.py", body, "import os"))
        until(lambda: running.status()["spare"])
        stream = Stream(wire)
        stream.begin()
        stream.send(50)
        stream.sender.send(b"poison")
        stream.send(200)
        got = []
        with contextlib.suppress(TimeoutError):
            while True:
                got.append(stream.receiver.recv(100))
        numbers = [struct.unpack("!I", each)[0] for each in got if each != b"poison"]
        assert numbers == list(range(250))
        assert got.count(b"poison") == (1 if fail == "open" else 0)
        until(lambda: settled(running)["port_poison"] == 1)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_link_that_goes_down_and_an_interface_that_goes_come_back(runtime_dir: Path, driver: str) -> None:
    with bridging("-w", "2", "--driver", driver) as (wire, running):
        transfer(wire, 1 << 20, 8000)
        wire.box.ip("link", "set", "right", "down")
        stream = Stream(wire)
        stream.send(20)
        assert stream.received() == []
        wire.box.ip("link", "set", "right", "up")
        transfer(wire, 1 << 20, 8001)
        # With AF_XDP what workers had queued when they found out is not lost: it waits for the device.
        late = len(stream.received())
        assert late == 0 or driver == "af_xdp"
        until(lambda: sum(totals(running)[f"drop_transmit_{why}"] for why in ("refused", "full")) >= 20 - late, 30)

        pids = [worker.pid for worker in running.workers()]
        wire.box.ip("link", "del", "right")
        time.sleep(1)  # it looks twice a second
        join(wire.server, "eth0", wire.box, "right", queues=2)
        wire.server.ip("address", "add", f"{wire.SERVER}/24", "dev", "eth0")
        wire.client.ip("neigh", "flush", "all")  # the new interface has another address
        time.sleep(2)
        transfer(wire, 1 << 20, 8002)
        assert [worker.pid for worker in running.workers()] == pids
        transfer(wire, 1 << 20, 8003, up=True)


def up(wire: Wire, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = wire.box.command(*prefix, sys.executable, "-c", PROGRAM, "up", "--memory", "32MiB", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--pair", "left", "left"), "a pair needs two interfaces"),
        (("--pair", "left", "nosuch0"), "no interface nosuch0; there are:"),
        (("-i", "right", "-i", "nosuch0"), "no interface nosuch0; there are:"),
        (("--pair", "left", "lo"), "lo is no Ethernet interface"),
        (("-i", "left", "--set", "port.ring=1TiB"), "no memory for the receive rings"),
        (("-i", "left", "--driver", "carrier_pigeon"), "choose one of"),
    ],
)
def test_what_cannot_be_a_port_is_one_line(runtime_dir: Path, arguments: tuple[str, ...], text: str) -> None:
    with Wire() as wire:
        result = up(wire, *arguments)
    errors = [line for line in result.stderr.splitlines() if " INFO " not in line]
    assert result.returncode in (1, 2)
    assert len(errors) == 1 and text in errors[0], result.stderr


def test_without_permission_the_line_says_what_grants_it(runtime_dir: Path) -> None:
    need("setpriv", "util-linux")
    with Wire() as wire:
        result = up(wire, "-i", "left", prefix=("setpriv", "--bounding-set", "-net_raw", "--"))
    errors = [line for line in result.stderr.splitlines() if " INFO " not in line]
    assert len(errors) == 1 and "setcap cap_net_raw,cap_net_admin+ep" in errors[0], result.stderr


def test_unequal_mtus_and_a_second_bridge_are_refused(runtime_dir: Path) -> None:
    with bridging("--driver", "af_packet") as (wire, _):
        for name in ("left", "other"):
            if name != "left":
                wire.box.ip("link", "set", "left", "name", name)
            result = up(wire, "--pair", name, "right", "--name", "second", "--driver", "af_packet")
            assert result.returncode == 1 and f"{name} is an end of another process's inline pair" in result.stderr
    with Wire() as wire:
        wire.box.ip("link", "set", "right", "mtu", "1400")
        result = up(wire, "--pair", "left", "right")
        assert result.returncode == 1 and "ip link set right mtu 1500" in result.stderr


def test_a_port_that_is_down_at_the_start_works_when_it_comes_up(runtime_dir: Path) -> None:
    with Wire() as wire:
        wire.box.ip("link", "set", "left", "down")
        with Running(*quick("--pair", "left", "right"), prefix=wire.box.command()):
            wire.box.ip("link", "set", "left", "up")
            transfer(wire, 1 << 20, 8000)


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_interface_that_was_in_another_namespace_is_opened_again(runtime_dir: Path, driver: str) -> None:
    """It has the number that it had, so that only the sockets know that they are bound to nothing."""
    need("ping", "iputils-ping")
    with bridging("-w", "2", "--driver", driver) as (wire, running):
        transfer(wire, 1 << 20, 8000)
        before = index_in(wire.box, "right")
        wire.box.ip("link", "set", "right", "netns", wire.server.name)
        wire.server.ip("link", "set", "right", "netns", wire.box.name)
        wire.box.ip("link", "set", "right", "up")
        assert index_in(wire.box, "right") == before
        until(lambda: running.status()["ports"][0]["driver"] == driver and reaches(wire), 30)
        transfer(wire, 1 << 20, 8001)


def index_in(box: Namespace, name: str) -> int:
    with box.inside():
        return socket.if_nametoindex(name)


def reaches(wire: Wire) -> bool:
    return wire.client.run("ping", "-c", "1", "-W", "1", wire.SERVER).returncode == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_mtu_that_grows_while_a_pair_forwards(runtime_dir: Path, driver: str) -> None:
    """Frames of the new size pass, with AF_XDP after a pause in which its memory is made anew."""
    need("ping", "iputils-ping")
    with bridging("--driver", driver) as (wire, running):
        transfer(wire, 1 << 20, 8000)
        ends = ((wire.client, "eth0"), (wire.box, "left"), (wire.box, "right"), (wire.server, "eth0"))
        for host, name in ends:
            host.ip("link", "set", name, "mtu", "3000")
        large = ("ping", "-c", "1", "-W", "1", "-M", "do", "-s", "2972", wire.SERVER)
        until(lambda: wire.client.run(*large).returncode == 0, 30)
        transfer(wire, 1 << 20, 8001)
        assert running.status()["ports"][0]["driver"] == driver
