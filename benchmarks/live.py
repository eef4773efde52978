"""Live ports: receive rate, forwarding rate, added latency, and two workers, beside bare loops and the kernel's bridge.

Needs root, for network namespaces. Packets are made inside the kernel (xdp_generate): TCP segments of 60 bytes, in
order, on 1,024 connections. They come over a veth pair; core 0 makes them and runs the kernel's half of the receiving,
core 1 has the receiver. A rate without loss is the highest at which at most one packet in 10,000 is lost in one of two
tries, searched by halving, for the programs in turn; what counts is the ratio of medians. A receiver that loses nothing
of all that can be made is not at its limit: the processor time that it took for a packet says how far it is from it.
The bare loops run over the very sockets and rings that shardmos's coordinator opens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from coordinators import Running  # noqa: E402
from netns import Namespace, Wire, missing  # noqa: E402

from shardmos.control import offloads  # noqa: E402

LOSS_ALLOWED = 1e-4
TARGETS = {"af_xdp": 0.75, "af_packet": 0.85}
PORT = {
    "ring": 16 << 20, "fail": "closed", "promiscuous": False, "xdp_mode": "native", "block_time": 0.008,
    "fanout": "owner",
}  # fmt: skip


@dataclass(frozen=True)
class Carried:
    """Packets that came out of what is measured, and the processor time of its processes in seconds."""

    count: Callable[[], int]
    pids: Callable[[], list[int]] = list

    def seconds(self) -> float:
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in self.pids())


Carrier = AbstractContextManager[Carried]
Rates = tuple[float, float, float]  # without loss, of a flood, nanoseconds of processor time for a packet of the flood


@dataclass(frozen=True)
class Setup:
    cache: Path
    runs: int
    flows: int
    seconds: float
    asked: int  # round trips

    def program(self, name: str) -> str:
        return str(self.cache / "bin" / name)


# ---- What receives or forwards. Each counts what came out of it. ----


def bare(arguments: list[str]) -> None:
    """Inside the box: opens the port as the coordinator does, and lets a program in C run its rings."""
    from shardmos.control import af_packet, af_xdp

    binaries, driver, busy, *names = arguments
    options = {**PORT, "driver": driver, "busy_poll": busy == "1"}
    port: Any = {"af_xdp": af_xdp, "af_packet": af_packet}[driver].open_port(names, 1, 0, options)
    spec = port.spec(0)
    if driver == "af_xdp":
        memory, *sockets = fds = spec["fds"]
        command = ["xsk_bare", memory, spec["frames"], spec["frame_bytes"], spec["ring"], busy, *sockets]
    else:
        fds = spec["fds"]
        command = ["packet_bare", spec["block_bytes"], spec["blocks"], spec["frame_bytes"], *fds]
    command[:1] = ["taskset", "-c", "1", f"{binaries}/{command[0]}"]
    with subprocess.Popen(list(map(str, command)), pass_fds=fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as loop:
        for _ in sys.stdin:  # each line: tell the kernel's own count of what reached the ring
            counters = port.counters()[0]
            print(counters["received"] - counters["dropped"], flush=True)
        loop.communicate()
    port.close()


def without_xdp(wire: Wire) -> None:
    """Devices that no XDP program is attached to take XDP frames only with NAPI."""
    for name in ("left", "right"):
        with wire.box.inside():
            offloads.switch(name, {"rx-gro"}, on=True)


def arrived(wire: Wire) -> int:
    return counter(wire.server, "rx", "packets")


def counter(host: Namespace, way: str, *names: str) -> int:
    link = json.loads(host.run("ip", "-s", "-j", "link", "show", "eth0").stdout)[0]["stats64"][way]
    return sum(int(link[name]) for name in names)


@contextmanager
def bare_loop(setup: Setup, wire: Wire, driver: str, busy: bool, names: list[str]) -> Iterator[Carried]:
    if driver == "af_packet":
        without_xdp(wire)
    script = [sys.executable, __file__, "--bare", str(setup.cache / "bin"), driver, str(int(busy)), *names]
    with subprocess.Popen(
        wire.box.command("taskset", "-c", "0", *script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        into, out = process.stdin, process.stdout

        def count() -> int:
            into.write("\n")
            into.flush()
            return int(out.readline())

        count()
        pids = [
            each.pid for each in psutil.Process(process.pid).children(recursive=True) if each.name().endswith("_bare")
        ]
        yield Carried(count if len(names) == 1 else lambda: arrived(wire), lambda: pids)
        into.close()
        process.wait(10)


@contextmanager
def engine(setup: Setup, wire: Wire, driver: str, busy: bool, names: list[str], workers: int = 1) -> Iterator[Carried]:
    del setup
    if driver == "af_packet":
        without_xdp(wire)
    ports = ["-i", *names] if len(names) == 1 else ["--pair", *names]
    arguments = [*ports, "-w", str(workers), "--driver", driver, *(["--busy-poll"] if busy else [])]
    with (
        Running("--memory", "256MiB", *arguments, prefix=wire.box.command("taskset", "-c", "0,1")) as running,
        running.client() as client,
    ):
        pids = [each.pid for each in running.workers()]
        if len(names) == 1:
            yield Carried(lambda: int(client.stats()["sum"]["counters"]["packets"]), lambda: pids)
        else:
            yield Carried(lambda: arrived(wire), lambda: pids)


@contextmanager
def bridge(wire: Wire, core: int | None = None) -> Iterator[Carried]:
    """Linux's own: on the core that a packet comes by, or on another (RPS)."""
    without_xdp(wire)
    wire.box.ip("link", "add", "br0", "type", "bridge")
    for name in ("left", "right"):
        wire.box.ip("link", "set", name, "master", "br0")
        if core is not None:
            wire.box.run("sh", "-c", f"echo {1 << core} > /sys/class/net/{name}/queues/rx-0/rps_cpus")
    wire.box.ip("link", "set", "br0", "up")
    yield Carried(lambda: arrived(wire))


# ---- Rates ----


def trial(
    setup: Setup, wire: Wire, carried: Carried, share: float, seconds: float, cores: int = 1
) -> tuple[int, int, float]:
    """Sent, arrived, and seconds that it took."""
    sent, got = counter(wire.client, "tx", "packets", "dropped"), carried.count()
    first = ["chrt", "-o", "0"] if cores > 1 else []  # who shares a core with a worker stands behind it
    commands = [
        wire.client.command(
            *first, "taskset", "-c", str(core), setup.program("xdp_generate"), "eth0", str(core + 1), str(setup.flows),
            str(share), str(seconds),
        )
        for core in range(cores)
    ]  # fmt: skip
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    took = [float(json.loads(each.communicate()[0])["seconds"]) for each in running]
    last, now = -1, carried.count()
    while now != last:
        time.sleep(0.2)
        last, now = now, carried.count()
    return counter(wire.client, "tx", "packets", "dropped") - sent, now - got, max(took)


def best(setup: Setup, wire: Wire, carried: Carried, cores: int = 1, busy: bool = False) -> Rates:
    """Linux takes 50 ms of each second even from what runs first and polls without pause, and no ring holds so much: of
    that only the flood is measured."""
    trial(setup, wire, carried, 0.05, 0.3, cores)
    used = carried.seconds()
    sent, got, took = trial(setup, wire, carried, 1, setup.seconds, cores)
    flood, cost = got / took, (carried.seconds() - used) / max(1, got) * 1e9
    if busy:
        return float("nan"), flood, cost
    if sent - got <= sent * LOSS_ALLOWED:
        return flood, flood, cost
    found, low, high = 0.0, 0.0, 1.0
    for _ in range(6):
        middle = (low + high) / 2
        for _ in range(2):
            sent, got, took = trial(setup, wire, carried, middle, setup.seconds, cores)
            if sent - got <= sent * LOSS_ALLOWED:
                low, found = middle, max(found, got / took)
                break
        else:
            high = middle
    return found, flood, cost


def head(title: str) -> None:
    print(f"\n{title:<44} {'without loss':>14} {'of a flood':>14} {'CPU, ns':>9}   packets per second", flush=True)


def row(name: str, results: list[Rates]) -> Rates:
    without, flood, cost = (statistics.median(column) for column in zip(*results, strict=True))
    print(f"{name:<44} {without:>14,.0f} {flood:>14,.0f} {cost or float('nan'):>9.0f}", flush=True)
    return without, flood, cost


def rates(setup: Setup, title: str, carriers: dict[str, Callable[[Wire], Carrier]], busy: bool = False) -> list[Rates]:
    found: dict[str, list[Rates]] = {name: [] for name in carriers}
    for _ in range(setup.runs):
        for name, carrier in carriers.items():
            with Wire() as wire, carrier(wire) as carried:
                found[name].append(best(setup, wire, carried, busy=busy))
    head(title)
    return [row(name, each) for name, each in found.items()]


def receive(setup: Setup) -> None:
    for driver, busy in (("af_xdp", False), ("af_xdp", True), ("af_packet", False)):
        how = f"{driver}, busy polling" if busy else driver
        told, ours = rates(setup, f"receive: {how}", {
            "bare loop": lambda wire, d=driver, b=busy: bare_loop(setup, wire, d, b, ["left"]),
            "shardmos, full tracking": lambda wire, d=driver, b=busy: engine(setup, wire, d, b, ["left"]),
        }, busy)  # fmt: skip
        ratios = "".join(
            f" {mine / theirs:>{width}.2f}" for mine, theirs, width in zip(ours, told, (14, 14, 9), strict=True)
        )
        print(f"{'ratio':<44}{ratios}   wanted: {TARGETS[driver]}", flush=True)


def forward(setup: Setup) -> None:
    pair = ["left", "right"]
    rates(setup, "forward", {
        "the kernel's bridge": bridge,
        "the kernel's bridge, on core 1": lambda wire: bridge(wire, 1),
        "af_xdp, bare loop": lambda wire: bare_loop(setup, wire, "af_xdp", False, pair),
        "af_xdp, shardmos": lambda wire: engine(setup, wire, "af_xdp", False, pair),
        "af_packet, bare loop": lambda wire: bare_loop(setup, wire, "af_packet", False, pair),
        "af_packet, shardmos": lambda wire: engine(setup, wire, "af_packet", False, pair),
    })  # fmt: skip


def workers(setup: Setup) -> None:
    """Two queues, and a program that makes packets on each core: they and the workers share both cores.

    A packet's queue is its maker's core, not its flow's owner: over AF_XDP half of the packets are handed over.
    """
    for driver in ("af_packet", "af_xdp"):
        head(f"one worker and two: {driver}")
        for title, makers, count in (
            ("core 0 makes, core 1 has the worker", 1, 1),
            ("both make, one worker", 2, 1),
            ("both make, a worker each", 2, 2),
        ):
            found = []
            for _ in range(setup.runs):
                with Wire(queues=2) as wire, engine(setup, wire, driver, False, ["left"], count) as carried:
                    found.append(best(setup, wire, carried, makers))
            row(title, found)


# ---- Latency ----


def round_trips(setup: Setup, wire: Wire) -> dict[str, float]:
    program = setup.program("round_trip")
    echo = wire.server.start("taskset", "-c", "0", program, "echo", wire.SERVER, "7000")
    try:
        time.sleep(0.3)
        command = ("taskset", "-c", "0", program, "ask", wire.SERVER, "7000", str(setup.asked), "100")
        done = wire.client.run(*command)
        if done.returncode:
            sys.exit(done.stderr.strip())
        result: dict[str, float] = json.loads(done.stdout)
        return result
    finally:
        echo.kill()
        echo.communicate()


def latency(setup: Setup) -> None:
    pair = ["left", "right"]
    carriers: dict[str, Callable[[Wire], Carrier]] = {
        "the kernel's bridge": bridge,
        "the kernel's bridge, on core 1": lambda wire: bridge(wire, 1),
        **{
            f"{driver}{', busy polling' if busy else ''}, {who}": lambda wire, d=driver, b=busy, c=carrier: c(
                setup, wire, d, b, pair
            )
            for driver, busy in (("af_xdp", False), ("af_xdp", True), ("af_packet", False))
            for who, carrier in (("bare loop", bare_loop), ("shardmos", engine))
        },
    }
    told: dict[str, list[dict[str, float]]] = {"a cable": [], **{name: [] for name in carriers}}
    for _ in range(setup.runs):
        with Wire(box=False) as wire:
            told["a cable"].append(round_trips(setup, wire))
        for name, carrier in carriers.items():
            with Wire() as wire, carrier(wire):
                told[name].append(round_trips(setup, wire))
    print(f"\n{'latency':<44} {'p50':>8} {'p99':>8} {'added p50':>11} {'added p99':>11}   microseconds, one way, idle")
    base: dict[str, float] = {}
    for name, results in told.items():
        value = {key: statistics.median(each[key] for each in results) / 2000 for key in ("p50", "p99")}
        base = base or value
        added = "".join(f" {value[key] - base[key]:>11.1f}" for key in value) if value is not base else ""
        print(f"{name:<44} {value['p50']:>8.1f} {value['p99']:>8.1f}{added}", flush=True)


PARTS: dict[str, Callable[[Setup], None]] = {
    "receive": receive, "forward": forward, "latency": latency, "workers": workers,
}  # fmt: skip


def go_first() -> None:
    """Before whatever else the machine does: a receiver that has to wait for its core loses packets."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        print("no real-time priority: what else runs here disturbs the rates", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path(__file__).resolve().parent / ".cache")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--flows", type=int, default=1024, help="connections, a power of two")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each try at a rate")
    parser.add_argument("--quick", action="store_true", help="one run, shorter: to try it, not to quote it")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--bare", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        bare(given.bare)
        return
    if reason := missing():
        sys.exit(reason)
    runs, seconds, asked = (1, 0.4, 2000) if given.quick else (given.runs, given.seconds, 10000)
    setup = Setup(given.cache.resolve(), runs, given.flows, seconds, asked)
    subprocess.run(["make", "-sC", Path(__file__).parent, f"CACHE={setup.cache}", "live_programs"], check=True)
    go_first()
    with tempfile.TemporaryDirectory(prefix="smos-") as directory:
        os.environ["SHARDMOS_RUNTIME_DIR"] = directory
        for name in given.only or PARTS:
            PARTS[name](setup)


if __name__ == "__main__":
    main()
