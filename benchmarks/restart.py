"""A killed worker of a pair: how long until another serves it, and how long the packets of a steady stream wait.

Needs root, for network namespaces. A datagram goes through the pair every millisecond; the worker is killed; the
longest pause between two arrivals is what the kill cost. Nothing may be lost: the ring is the coordinator's.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from coordinators import Running, until, write_module  # noqa: E402
from netns import Wire, missing  # noqa: E402


def stream(wire: Wire, stop: threading.Event, arrivals: list[float]) -> tuple[threading.Thread, list[int]]:
    """Sends and receives until told to stop; arrival times, and how many were sent."""
    receiver = wire.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((wire.SERVER, 5000))
    receiver.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE: what waited comes in one burst
    receiver.settimeout(5.0)
    sender = wire.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect((wire.SERVER, 5000))
    sent = [0]

    def receive() -> None:
        try:
            while True:
                receiver.recv(100)
                arrivals.append(time.monotonic())
        except TimeoutError:
            pass

    def send() -> None:
        while not stop.is_set():
            sender.send(b"x" * 32)
            sent[0] += 1
            time.sleep(0.001)

    threading.Thread(target=send, daemon=True).start()
    reader = threading.Thread(target=receive, daemon=True)
    reader.start()
    return reader, sent


def measure(rounds: int, spare: bool, modules: list[Path]) -> tuple[list[float], int]:
    """Per kill the longest pause in milliseconds; and how many datagrams were lost."""
    os.environ["SHARDMOS_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="smos-")
    setting = f"coordinator.spare={'true' if spare else 'false'}"
    with (
        Wire() as wire,
        Running("--pair", "left", "right", "--set", setting, prefix=wire.box.command()) as running,
        running.client() as client,
    ):
        for module in modules:
            client.push(module)
        stop, arrivals, pauses = threading.Event(), [], []
        reader, sent = stream(wire, stop, arrivals)
        for _ in range(rounds):
            until(lambda: client.status()["spare"] == spare)
            time.sleep(1.0)
            begin = len(arrivals)
            os.kill(client.status()["workers"][0]["pid"], signal.SIGKILL)
            time.sleep(1.5)
            seen = arrivals[max(0, begin - 1) :]
            pauses.append(max(b - a for a, b in pairwise(seen)) * 1000)
        stop.set()
        reader.join()  # five seconds after the last datagram: what was sent is counted by then
        return pauses, sent[0] - len(arrivals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    if reason := missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as directory:
        body = "@sm.on(sm.CONN_START)\ndef start(self, flow): pass"
        module = write_module(Path(directory) / "probe.py", body)
        print(f"{'':<34} {'median':>8} {'longest':>8}  lost")
        for spare in (True, False):
            for modules in ([], [module]):
                pauses, lost = measure(rounds, spare, modules)
                what = f"{'spare' if spare else 'no spare'}, {'a Python module' if modules else 'no module'}"
                print(f"{what:<34} {statistics.median(pauses):>5.0f} ms {max(pauses):>5.0f} ms  {lost}", flush=True)


if __name__ == "__main__":
    main()
