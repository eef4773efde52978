"""AF_XDP: packets per second without loss, shardmos with full tracking against a bare counting loop.

Needs root, for network namespaces. Frames of 60 bytes are made inside the kernel (xdp_generate) on core 0 and come over
a veth pair; the receiver has core 1. The highest rate of which at most one packet in 10,000 is lost is searched by
halving, for both receivers in turn, and the ratio of the medians is what counts. `--busy-poll`: the receiver drives the
queue itself.
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
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from coordinators import Running  # noqa: E402
from netns import Wire, missing  # noqa: E402

LOSS_ALLOWED = 1e-4
Count = Callable[[], int]


def bare(arguments: list[str]) -> None:
    """Inside the box: opens the port as the coordinator does, and lets xsk_count run its rings."""
    from shardmos.control import af_xdp

    program, busy = arguments
    options = {"driver": "af_xdp", "xdp_mode": "native", "ring": 16 << 20, "busy_poll": busy == "1", "fail": "closed"}
    port = af_xdp.open_port(["left"], 1, 0, {**options, "promiscuous": False})
    spec = port.spec(0)
    memory, socket = spec["fds"]
    command = [program, memory, spec["frames"], spec["frame_bytes"], spec["ring"], busy, socket]
    with subprocess.Popen(
        list(map(str, command)), pass_fds=[memory, socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as counting:
        for line in sys.stdin:  # each line: tell the kernel's own count of what reached the ring
            del line
            counters = port.counters()[0]
            print(counters["received"] - counters["dropped"], flush=True)
        print(counting.communicate()[0], file=sys.stderr)
    port.close()


@contextmanager
def bare_loop(wire: Wire, busy: bool, cache: Path):  # type: ignore[no-untyped-def]
    command = ["taskset", "-c", "1", sys.executable, __file__, "--bare", str(cache / "bin/xsk_count"), str(int(busy))]
    with subprocess.Popen(
        wire.box.command(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin and process.stdout

        def count() -> int:
            process.stdin.write("\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        count()
        yield count
        process.stdin.close()
        process.wait(10)


@contextmanager
def engine(wire: Wire, busy: bool, cache: Path):  # type: ignore[no-untyped-def]
    arguments = ["-i", "left", "--driver", "af_xdp", *(["--busy-poll"] if busy else [])]
    with (
        Running("--memory", "256MiB", *arguments, prefix=wire.box.command("taskset", "-c", "1")) as running,
        running.client() as client,
    ):
        yield lambda: int(client.stats()["sum"]["counters"]["packets"])


def sent_by(wire: Wire) -> int:
    link = json.loads(wire.client.run("ip", "-s", "-j", "link", "show", "eth0").stdout)[0]["stats64"]["tx"]
    return int(link["packets"])


def trial(wire: Wire, count: Count, cache: Path, flows: int, share: float, seconds: float) -> tuple[int, int, float]:
    """Sent, received, and seconds that it took."""
    sent, received = sent_by(wire), count()
    command = ["taskset", "-c", "0", str(cache / "bin/xdp_generate"), "eth0", str(flows), str(share), str(seconds)]
    done = wire.client.run(*command)
    if done.returncode:
        sys.exit(done.stderr.strip())
    time.sleep(0.3)
    return sent_by(wire) - sent, count() - received, float(json.loads(done.stdout)["seconds"])


def best(wire: Wire, count: Count, cache: Path, flows: int, seconds: float) -> tuple[float, float]:
    """The highest rate with no more loss than is allowed, and what arrives of a flood; packets per second."""
    trial(wire, count, cache, flows, 0.02, 0.3)
    _, got, took = trial(wire, count, cache, flows, 1, seconds)
    flood, found, low, high = got / took, 0.0, 0.0, 1.0
    for _ in range(6):
        middle = (low + high) / 2
        sent, got, took = trial(wire, count, cache, flows, middle, seconds)
        if sent - got <= sent * LOSS_ALLOWED:
            low, found = middle, max(found, got / took)
        else:
            high = middle
    return found, flood


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path(__file__).resolve().parent / ".cache")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--flows", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--busy-poll", action="store_true")
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        bare(given.bare)
        return
    if reason := missing():
        sys.exit(reason)
    subprocess.run(["make", "-sC", Path(__file__).parent, f"CACHE={given.cache}", "xdp_programs"], check=True)
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="smos-")
    receivers: dict[str, Callable[[Wire, bool, Path], AbstractContextManager[Count]]] = {
        "bare loop": bare_loop,
        "shardmos": engine,
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in receivers}
    for _ in range(given.runs):
        for name, receiver in receivers.items():
            with Wire() as wire, receiver(wire, given.busy_poll, given.cache) as count:
                rates[name].append(best(wire, count, given.cache, given.flows, given.seconds))
    print(f"{'packets per second':<20} {'without loss':>14} {'of a flood':>14}")
    medians = {
        name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in rates.items()
    }
    for name, (least, flood) in medians.items():
        print(f"{name:<20} {least:>14,.0f} {flood:>14,.0f}")
    ratios = [ours / theirs for ours, theirs in zip(medians["shardmos"], medians["bare loop"], strict=True)]
    print(f"{'ratio':<20} {ratios[0]:>14.2f} {ratios[1]:>14.2f}   (wanted: 0.75 without loss)")


if __name__ == "__main__":
    main()
