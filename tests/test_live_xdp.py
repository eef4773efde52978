"""What is AF_XDP's own: modes, checksums that hosts left to their devices, offloads, losses by name, and bad input."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinators import PROGRAM, Running, until
from live import Reported, drops, lost, quick, quiet, settled, since, transfer, udp_echo
from netns import Namespace, Wire
from traffic import conversation, ip_frame

from shardmos.control import offloads
from shardmos.control.interface import Interface
from shardmos.control.switched_off import SwitchedOff

SEGMENTATION = {
    "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation",
    "tx-udp-segmentation", "tx-generic-segmentation",
}  # fmt: skip


@contextlib.contextmanager
def running(box: Namespace, *arguments: str) -> Iterator[Running]:
    with Running(*quick("--driver", "af_xdp", *arguments), prefix=box.command()) as started:
        yield started


def port_of(started: Running) -> dict[str, str]:
    ports: list[dict[str, str]] = started.status()["ports"]
    return ports[0]


def features(box: Namespace, name: str) -> set[str]:
    with box.inside():
        return offloads.active(name)


def has_program(box: Namespace, name: str) -> bool:
    return "xdp" in box.run("ip", "link", "show", name).stdout


def no_large_packets(wire: Wire) -> None:
    """Generic mode loses what is larger than a frame: hosts that are virtual peers must not send it."""
    for host in (wire.client, wire.server):
        with host.inside():
            offloads.switch("eth0", SEGMENTATION, on=False)


def check_forwarded(counters: dict[str, int]) -> None:
    """All that came went out, or was lost by name: a host on a busy machine may have no room for a burst."""
    lost = drops(counters)
    assert set(lost) <= {"drop_transmit_full"}
    assert counters["packets"] == counters["packets_forwarded"] + sum(lost.values())


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("workers", [1, 2])
def test_real_programs_through_a_pair_in_either_mode(runtime_dir: Path, mode: str, workers: int) -> None:
    size = 4 << 20
    with Wire(queues=2) as wire:
        no_large_packets(wire)
        arguments = ("--pair", "left", "right", "-w", str(workers), "--set", f"port.xdp_mode={mode}")
        with running(wire.box, *arguments) as started, Reported(started) as reported:
            assert port_of(started)["mode"] == f"{mode} mode, the kernel copies"  # veth has no zero copy
            for version in (4, 6):
                transfer(wire, size, 8000 + version, version)
                transfer(wire, size, 8010 + version, version, up=True)
                udp_echo(wire, [os.urandom(length) for length in (0, 1, 1472, 9000)], 9000 + version, version)
            for port, span in ((8004, [0, size]), (8014, [size, 0]), (8006, [0, size]), (8016, [size, 0])):
                (flow,) = reported.wait(lambda flow, port=port: flow["server_port"] == port, 1)  # type: ignore[misc]
                assert (flow["stream_span"], flow["missing_bytes"], flow["conn_state"]) == (span, [0, 0], "SF")
            counters = settled(started)
    check_forwarded(counters)
    assert counters["port_checksums_completed"] > 0  # the hosts leave them to their devices
    assert counters["bad_checksum"] == 0


def test_a_checksum_that_is_wrong_stays_wrong(runtime_dir: Path) -> None:
    wrong = ip_frame("10.7.0.1", "10.7.0.2", 17, struct.pack("!HHHH", 1000, 2000, 16, 0x1234) + b"8 bytes.")
    with Wire() as wire, running(wire.box, "--pair", "left", "right") as started:
        with wire.client.packet_socket("eth0") as out, wire.server.packet_socket("eth0") as back:
            back.settimeout(5)
            out.send(wrong)
            while (got := back.recv(2000))[12:14] != b"\x08\x00" or got[23] != 17:
                continue
        assert got[: len(wrong)] == wrong
        counters = settled(started)
        assert (counters["port_checksums_completed"], counters["bad_checksum"]) == (0, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_was_changed_at_the_devices_is_put_back(runtime_dir: Path, number: int) -> None:
    """By the same coordinator, or by the next one where it was killed; under the name that the interface has then."""
    with Wire() as wire:
        pair = ("--pair", "left", "right")
        before = {name: features(wire.box, name) for name in ("left", "right")}
        assert "rx-vlan-hw-parse" in before["left"]
        with running(wire.box, *pair) as started:
            for name in ("left", "right"):
                assert "rx-vlan-hw-parse" not in features(wire.box, name)
                assert has_program(wire.box, name)
                assert "promiscuity 1" in wire.box.run("ip", "-d", "link", "show", name).stdout
            started.stop(number)
        until(lambda: not has_program(wire.box, "left") and not has_program(wire.box, "right"))
        assert "promiscuity 0" in wire.box.run("ip", "-d", "link", "show", "left").stdout
        if number == signal.SIGKILL:
            assert "rx-vlan-hw-parse" not in features(wire.box, "left")
            found = left_off_as_told(wire.box, "left")
            assert "off since a coordinator was killed" in found["found"]
            switch, *how = found["mend"].split(", or: ")[0].split()
            if shutil.which(switch) is not None:
                assert wire.box.run(switch, *how).returncode == 0
                assert before["left"] == features(wire.box, "left")
            with running(wire.box, *pair) as started:
                assert left_off_as_told(wire.box, "left") == {}
        assert before == {name: features(wire.box, name) for name in ("left", "right")}
        assert list(runtime_dir.iterdir()) == []


def left_off_as_told(box: Namespace, name: str) -> dict[str, str]:
    """What the doctor says of features that nobody puts back."""
    told = json.loads(box.run(sys.executable, "-c", PROGRAM, "doctor", "--json").stdout)
    return next((check for check in told["checks"] if check["name"] == f"offloads of {name}"), {})


def test_a_renamed_interface_gets_its_features_back(runtime_dir: Path) -> None:
    with Wire() as wire:
        before = features(wire.box, "left")
        with running(wire.box, "--pair", "left", "right"):
            wire.box.ip("link", "set", "left", "name", "other")
            assert "rx-vlan-hw-parse" not in features(wire.box, "other")
            transfer(wire, 1 << 20, 8000)  # what is joined are the interfaces, not their names
        assert features(wire.box, "other") == before


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_tap_gets_every_frame(runtime_dir: Path, mode: str, workers: int) -> None:
    data = bytes(range(256)) * 2
    frames = [f for n in range(40) for f in conversation(data, data * 2, client=(f"10.1.0.{n + 1}", 40000 + n))]
    arguments = ("-i", "left", "-w", str(workers), "--set", f"port.xdp_mode={mode}")
    with Wire(queues=2) as wire, running(wire.box, *arguments) as started, Reported(started) as reported:
        before = quiet(started)
        with wire.client.packet_socket("eth0") as out:
            for frame in frames:
                out.send(frame)
        flows = reported.wait(lambda flow: flow["client"].startswith("10.1."), 40)
        assert all(flow["stream_bytes"] == [len(data), 2 * len(data)] for flow in flows)
        assert all(flow["conn_state"] == "SF" for flow in flows)
        counted = since(before, started)
    assert counted["received"] == counted["devices_received"] >= len(frames)
    assert lost(counted) == {}


def test_sent_is_received_and_lost_by_name(runtime_dir: Path) -> None:
    """More frames than the rings hold, while no worker takes any."""
    frame = ip_frame("10.1.0.1", "10.1.0.2", 17, struct.pack("!HHHH", 1000, 2000, 8, 0))
    count = 3000
    with Wire() as wire, running(wire.box, "-i", "left", "--set", "port.ring=512KiB") as started:
        before = quiet(started)
        (worker,) = started.workers()
        worker.suspend()
        with wire.client.packet_socket("eth0") as out:
            for _ in range(count):
                out.send(frame)
        time.sleep(0.2)
        worker.resume()
        until(lambda: settled(started)["packets"] > before["packets"])
        counted = since(before, started)
    assert counted["xsk_rx_dropped"] + counted["xsk_rx_ring_full"] == counted["lost_ring"] > count // 2
    assert counted["received"] == counted["packets"] + counted["lost_ring"] >= count
    assert counted["devices_received"] == counted["received"] and counted["lost_unattributed"] == 0


def up(box: Namespace, *arguments: str, prefix: tuple[str, ...] = ()) -> str:
    """The one line that a command, which cannot start, ends with."""
    command = box.command(*prefix, sys.executable, "-c", PROGRAM, "up", "--memory", "32MiB", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    errors = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert done.returncode == 1 and len(errors) == 1, done.stderr
    return errors[0]


def test_what_af_xdp_cannot_do_is_one_line(runtime_dir: Path) -> None:
    xdp = ("--driver", "af_xdp")
    with Wire(queues=2) as wire:
        line = up(wire.box, "--pair", "left", "right", "-w", "3", *xdp)
        assert "left has 2 receive queues for 3 workers" in line and "-w 2" in line
        assert "lo: AF_XDP wants an Ethernet interface" in up(wire.box, "-i", "lo", *xdp)
        prefix: tuple[str, ...] = ("prlimit", "--memlock=65536", "setpriv", "--bounding-set", "-ipc_lock", "--")
        assert "ulimit -l unlimited" in up(wire.box, "-i", "left", *xdp, prefix=prefix)
        prefix = ("setpriv", "--bounding-set", "-net_admin,-sys_admin,-bpf", "--")
        assert "setcap cap_net_raw,cap_net_admin,cap_bpf" in up(wire.box, "-i", "left", *xdp, prefix=prefix)
        with running(wire.box, "-i", "left"):
            for other in (("-i", "left"), ("--pair", "left", "right")):
                line = up(wire.box, *other, "--name", "second", *xdp)
                assert "left carries another XDP program" in line
        for name in ("left", "right"):
            wire.box.ip("link", "set", name, "mtu", "9000")
        assert "MTU 9000 does not fit" in up(wire.box, "--pair", "left", "right", *xdp)
        assert not has_program(wire.box, "left") and not has_program(wire.box, "right")


WITHOUT = """
import errno, shardmos.control.af_xdp as af_xdp
def refuse(*_): raise OSError(errno.EAFNOSUPPORT, "")
af_xdp.Socket = refuse
"""


def test_a_kernel_without_af_xdp_is_told(runtime_dir: Path) -> None:
    with Wire() as wire:
        program = WITHOUT + PROGRAM
        command = (sys.executable, "-c", program, "up", "--pair", "left", "right", "--driver", "af_xdp")
        done = wire.box.run(*command)
        assert "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS); use --driver af_packet" in done.stderr
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert not has_program(wire.box, "left")


def test_auto_says_what_it_took_and_why(runtime_dir: Path) -> None:
    chosen = []
    with Wire(queues=2) as wire:
        for box, arguments in (
            (wire.box, ("--pair", "left", "right")),
            (wire.box, ("--pair", "left", "right", "-w", "3")),
            (wire.server, ("-i", "eth0")),
        ):
            with Running(*arguments, prefix=box.command()) as started:
                port = port_of(started)
                chosen.append((port["driver"], port["why"]))
    assert chosen[0] == ("af_xdp", "the best that works here")
    assert chosen[1][0] == "af_packet" and "2 receive queues for 3 workers" in chosen[1][1]
    assert chosen[2][0] == "af_packet" and "it would take eth0's packets from this host" in chosen[2][1]


def test_busy_polling_pairs_forward(runtime_dir: Path) -> None:
    with Wire() as wire, running(wire.box, "--pair", "left", "right", "--busy-poll") as started:
        transfer(wire, 1 << 20, 8000)
        check_forwarded(settled(started))


def left() -> Interface:
    """In the namespace of this thread, which /sys knows nothing of."""
    return Interface("left", socket.if_nametoindex("left"), 1500, 1, True)


def test_features_are_named_as_ethtool_names_them(tmp_path: Path) -> None:
    with Wire() as wire, wire.box.inside():
        assert {"rx-gro", "tx-tcp-segmentation"} & offloads.active("left")
        off = SwitchedOff(left(), ("rx-gro", "tx-tcp-segmentation"), str(tmp_path))
        assert "tx-tcp-segmentation" in off.changed and "tx-tcp-segmentation" not in offloads.active("left")
        off.restore()
        assert "tx-tcp-segmentation" in offloads.active("left")
        with pytest.raises(OSError):
            offloads.active("nosuch0")


@pytest.mark.parametrize("record", ["", "{", "[]", '{"device": 1}', "DEVICE", "OTHER"])
def test_a_record_that_is_none_changes_nothing(tmp_path: Path, record: str) -> None:
    """Cut short, of another device, or with features that no device has."""
    with Wire() as wire, wire.box.inside():
        of, wanted = left(), ("tx-tcp-segmentation",)
        offloads.switch("left", {"rx-vlan-hw-parse"}, on=False)
        os.close(SwitchedOff(of, wanted, str(tmp_path))._record)  # as of one that is killed
        (path,) = tmp_path.iterdir()
        made = json.loads(path.read_text())
        assert made["features"] == ["tx-tcp-segmentation"]
        if record == "DEVICE":
            record = json.dumps({**made, "features": ["tx-tcp-segmentation", "no such thing"]})
        elif record == "OTHER":
            record = json.dumps({**made, "device": [made["device"][0], "02:00:00:00:00:01"]})
        path.write_text(record)
        restores = "no such thing" in record
        off = SwitchedOff(of, wanted, str(tmp_path))
        assert ("tx-tcp-segmentation" in off.changed) == restores
        off.restore()
        assert ("tx-tcp-segmentation" in offloads.active("left")) == restores
        assert "rx-vlan-hw-parse" not in offloads.active("left") and list(tmp_path.iterdir()) == []
