"""Workers without traffic: the processor time that they use, and how soon a packet that comes after a pause is through.

Needs root, for network namespaces. The pair is idle, but for what its hosts say by themselves; then one datagram at a
time comes after a pause of 300 ms. Its way is timed from before it is sent until the receiver, which polls, has it.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from coordinators import Running  # noqa: E402
from netns import Wire, missing  # noqa: E402

WAYS = {
    "AF_PACKET pair": ("--driver", "af_packet"),
    "AF_XDP pair": ("--driver", "af_xdp"),
    "AF_XDP pair, busy polling": ("--driver", "af_xdp", "--busy-poll"),
}


def idle_share(running: Running, seconds: float) -> list[float]:
    """Of a core, by worker, in percent."""

    def spent() -> list[float]:
        return [sum(worker.cpu_times()[:2]) for worker in running.workers()]

    before, began = spent(), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    return [100 * (after - first) / passed for first, after in zip(before, spent(), strict=True)]


def ways_of_one(wire: Wire, rounds: int) -> list[float]:
    """Microseconds of single datagrams."""
    receiver = wire.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((wire.SERVER, 5000))
    sender = wire.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect((wire.SERVER, 5000))
    sender.send(b"first")  # finds the neighbour
    receiver.settimeout(5)
    receiver.recv(100)
    receiver.setblocking(False)
    took = []
    for _ in range(rounds):
        time.sleep(0.3)
        began = time.perf_counter_ns()
        sender.send(b"x")
        while True:
            try:
                receiver.recv(100)
                break
            except BlockingIOError:
                if time.perf_counter_ns() - began > 5_000_000_000:
                    sys.exit("a datagram was lost")
        took.append((time.perf_counter_ns() - began) / 1000)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long idling is watched (10)")
    parser.add_argument("--rounds", type=int, default=50, help="datagrams after a pause (50)")
    given = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    os.environ["SHARDMOS_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="smos-")
    print(f"{'two workers':<28} {'idle, % of a core each':>24}   {'after a pause, µs: median, most':>34}")
    with Wire() as wire:  # what the wire itself costs: the kernel's bridge in the place of the pair
        wire.box.ip("link", "add", "bridge", "type", "bridge")
        for name in ("left", "right"):
            wire.box.ip("link", "set", name, "master", "bridge")
        wire.box.ip("link", "set", "bridge", "up")
        took = ways_of_one(wire, given.rounds)
        print(f"{'the kernel bridge':<28} {'':>24}   {statistics.median(took):>24.0f} {max(took):>9.0f}", flush=True)
    for label, arguments in WAYS.items():
        with (
            Wire(queues=2) as wire,
            Running("--pair", "left", "right", "-w", "2", *arguments, prefix=wire.box.command()) as running,
        ):
            time.sleep(2)
            shares = ", ".join(f"{share:.2f}" for share in idle_share(running, given.seconds))
            took = ways_of_one(wire, given.rounds)
            print(f"{label:<28} {shares:>24}   {statistics.median(took):>24.0f} {max(took):>9.0f}", flush=True)


if __name__ == "__main__":
    main()
