"""What users and hosts get wrong about live ports: one clear line that says what, where and how to mend it, and where
it can be, shardmos goes on. More of it: test_live_faults.py, test_live_xdp.py and, for `shardmos nic`, test_nic.py."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from coordinators import PROGRAM, Running, until
from live import quick, totals, transfer
from netns import Namespace, Wire, join, need

DRIVERS = ("af_packet", "af_xdp")
NOBODY = 65534


def logging_to(log: Path, box: Namespace) -> list[str]:
    """The start of a command in the box whose standard error goes to a file."""
    return box.command("sh", "-c", 'exec "$@" 2>"$0"', str(log))


def refused(box: Namespace, *arguments: str, prefix: Sequence[str] = ()) -> str:
    """The one line of a command that cannot start."""
    command = box.command(*prefix, sys.executable, "-c", PROGRAM, "up", "--memory", "32MiB", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    errors = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert done.returncode in (1, 2) and len(errors) == 1, done.stderr
    assert errors[0].startswith("shardmos: ")
    return errors[0]


def as_nobody(capabilities: Sequence[str]) -> list[str]:
    """Runs what follows as a user without rights but these; it may read the interpreter, wherever that is."""
    need("setpriv", "util-linux")
    only = ",".join(["-all", "+dac_read_search", *(f"+{each.removeprefix('cap_')}" for each in capabilities)])
    user = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return ["setpriv", *user, f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}", "--"]


@pytest.mark.parametrize("driver", ["auto", *DRIVERS])
@pytest.mark.parametrize("port", [("-i", "left"), ("--pair", "left", "right")], ids=["passive", "pair"])
def test_a_user_without_rights_is_told_what_grants_them_and_that_does(
    runtime_dir: Path, tmp_path: Path, port: tuple[str, ...], driver: str
) -> None:
    with Wire() as wire:
        os.chown(runtime_dir, NOBODY, NOBODY)
        line = refused(wire.box, *port, "--driver", driver, prefix=as_nobody([]))
        assert "no permission" in line and "run it as root, or: sudo setcap " in line
        said = re.search(r"setcap (\S+)\+ep \$\(readlink -f \$\(command -v python3\)\)$", line)
        assert said is not None, line
        log = tmp_path / "log"
        log.touch()
        command = (*as_nobody(said[1].split(",")), sys.executable, "-c", PROGRAM, "up", "--memory", "32MiB")
        running = subprocess.Popen([*logging_to(log, wire.box), *command, *port, "--driver", driver])
        try:
            until(lambda: "coordinator default is up" in log.read_text() or running.poll() is not None, 30)
            assert running.poll() is None, log.read_text()
            if port[0] == "--pair":
                transfer(wire, 1 << 20, 8000)
            running.send_signal(signal.SIGINT)
            assert running.wait(10) == 0
        finally:
            running.kill()
            running.wait()


@pytest.mark.parametrize("name", ["nosuch0", "..", "a/b", "left right", "xxxxxxxxxxxxxxxxxxxx", "", "left\n"])
def test_what_no_interface_is_called(runtime_dir: Path, name: str) -> None:
    with Wire() as wire:
        for driver in DRIVERS:
            line = refused(wire.box, "-i", name, "--driver", driver)
            assert "there are: left, lo, right" in line or "give a list of interfaces" in line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--pair", "left", "left"), "left left: a pair needs two interfaces, this is one"),
        (("-i", "left", "-i", "left"), "each interface once"),
        (("--pair", "left", "right", "--pair", "right", "left"), "--pair can be given once"),
        (("--set", "port.pair=left"), "give two interfaces"),
        (("-i", "left", "--pair", "left", "right"), "one kind of port at a time"),
        (("-i", "left", "--set", "port.ring=1TiB"), "no memory for the receive rings"),
        (("-i", "left", "-w", "2", "--set", "port.handover=1TiB"), "no memory for the rings between workers"),
    ],
)
@pytest.mark.parametrize("driver", DRIVERS)
def test_ports_that_cannot_be(runtime_dir: Path, driver: str, arguments: tuple[str, ...], text: str) -> None:
    with Wire() as wire:
        assert text in refused(wire.box, *arguments, "--driver", driver)


def test_a_sysfs_of_another_namespace(runtime_dir: Path) -> None:
    """As after nsenter: sockets are of the one namespace, and what /sys tells is of another."""
    need("nsenter", "util-linux")
    with Wire() as wire:
        inside = ("nsenter", f"--net=/run/netns/{wire.box.name}", sys.executable, "-c", PROGRAM, "up", "-i")
        for name, said in (
            ("left", "left: /sys shows another network namespace; enter by ip netns exec"),
            ("nosuch0", "no interface nosuch0; there are: left, lo, right"),
        ):
            done = subprocess.run([*inside, name], capture_output=True, text=True, timeout=30)
            assert (done.returncode, done.stderr.count("\n")) == (1, 1)
            assert said in done.stderr


def test_queues_that_another_process_has(runtime_dir: Path) -> None:
    """A socket of AF_XDP without a program, of any process; asked for nothing else, shardmos takes packet sockets."""
    from shardmos.control import xsk

    with Wire() as wire:
        with wire.box.inside():
            index = socket.if_nametoindex("left")
            memory = xsk.Memory(512, 2048)
            other = xsk.Socket(memory, 256, None, busy_poll=False)
            other.bind(index, 0, copy=True)
        try:
            text = "queue 0 of left is another process's AF_XDP socket's; stop that one first"
            assert text in refused(wire.box, "--pair", "left", "right", "--driver", "af_xdp")
            with Running(*quick("--pair", "left", "right"), prefix=wire.box.command()) as running:
                (port,) = running.status()["ports"]
                assert port["driver"] == "af_packet" and text in port["why"]
                transfer(wire, 1 << 20, 8000)
        finally:
            other.close()
            memory.close()


def test_too_little_locked_memory_is_no_end_where_another_driver_is_allowed(runtime_dir: Path) -> None:
    for program in ("setpriv", "prlimit"):
        if shutil.which(program) is None:
            pytest.skip(f"the program {program} is missing: apt-get install util-linux")
    limited = ("prlimit", "--memlock=65536", "setpriv", "--bounding-set", "-ipc_lock", "--")
    pair = quick("--pair", "left", "right")
    with Wire() as wire:
        text = "the frames may not be locked in memory: ulimit -l unlimited, or a smaller --set port.ring"
        assert text in refused(wire.box, *pair, "--driver", "af_xdp", prefix=limited)
        with Running(*pair, prefix=wire.box.command(*limited)) as running:
            (port,) = running.status()["ports"]
            assert port["driver"] == "af_packet" and text in port["why"]
            transfer(wire, 1 << 20, 8000)


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_becomes_of_an_interface_is_said_once_and_it_goes_on(
    runtime_dir: Path, tmp_path: Path, driver: str
) -> None:
    """Down at the start, up, down, up, gone, back with another MTU, and then with the right one."""
    log = tmp_path / "log"
    is_down = "right is down: nothing comes or goes through it: ip link set right up"
    gone = "right is gone; waiting for an interface of that name"
    other = "--pair: left has MTU 1500 and right 1400; make them equal: ip link set right mtu 1500"

    def said() -> list[str]:
        lines = (line.split(" ", 2) for line in log.read_text().splitlines())
        return [text for _, level, text in lines if "right" in text and (level != "INFO" or text.endswith("up again"))]

    def says(*texts: str) -> None:
        """All of it so far, in this order."""
        until(lambda: len(said()) >= len(texts), 30)
        assert said() == list(texts)

    with Wire() as wire:
        wire.box.ip("link", "set", "right", "down")
        arguments = quick("--pair", "left", "right", "--driver", driver)
        with Running(*arguments, prefix=logging_to(log, wire.box)) as running:
            first = "right is down: no packets come before: ip link set right up"
            says(first)
            wire.box.ip("link", "set", "right", "up")
            says(first, "right is up again")
            transfer(wire, 1 << 20, 8000)
            wire.box.ip("link", "set", "right", "down")
            says(first, "right is up again", is_down)
            wire.box.ip("link", "set", "right", "up")
            so_far = [first, "right is up again", is_down, "right is up again"]
            says(*so_far)
            transfer(wire, 1 << 20, 8001)
            wire.server.ip("link", "set", "eth0", "down")  # a cable that is pulled: setting it up would not help
            so_far.append("right has no carrier: nothing comes or goes through it; is its other end plugged in and up?")
            says(*so_far)
            wire.box.ip("link", "del", "right")
            says(*so_far, gone)
            join(wire.server, "eth0", wire.box, "right", mtu=1400, up=False)
            so_far += [gone, is_down, other]
            says(*so_far)
            for namespace, name in ((wire.server, "eth0"), (wire.box, "right")):
                namespace.ip("link", "set", name, "mtu", "1500")
                namespace.ip("link", "set", name, "up")
            wire.server.ip("address", "add", f"{wire.SERVER}/24", "dev", "eth0")
            wire.client.ip("neigh", "flush", "all")  # the new interface has another address
            until(lambda: len(running.status()["ports"]) == 1 and running.status()["ports"][0]["driver"] == driver)
            transfer(wire, 1 << 20, 8002)
            says(*so_far, "right is up again")
        assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_tap_outlives_its_interface(runtime_dir: Path, tmp_path: Path, driver: str) -> None:
    """And the other one of the same coordinator goes on meanwhile."""
    log = tmp_path / "log"
    with (
        Wire() as wire,
        Running(*quick("-i", "left", "-i", "right", "--driver", driver), prefix=logging_to(log, wire.box)) as running,
    ):

        def seen(sender: Namespace) -> bool:
            """What a host sends through its interface is taken."""
            before = totals(running)["packets"]
            with sender.packet_socket("eth0") as out:
                for _ in range(50):
                    out.send(b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(60))  # of an experimental type
            until(lambda: totals(running)["packets"] >= before + 50)
            return True

        assert seen(wire.client) and seen(wire.server)
        pids = [worker.pid for worker in running.workers()]
        wire.box.ip("link", "del", "right")
        until(lambda: "right is gone" in log.read_text())
        assert seen(wire.client)
        join(wire.server, "eth0", wire.box, "right")
        until(lambda: "right is up again" in log.read_text())
        until(lambda: {port["driver"] for port in running.status()["ports"]} == {driver})
        until(lambda: seen(wire.server))
        assert seen(wire.client)
        assert [worker.pid for worker in running.workers()] == pids
