"""The main job, shown (make run): a coordinator with two workers replays a capture, and gets middleboxes meanwhile.

Needs no root and no network card. Each step says what it does; the README explains what is shown.
"""

from __future__ import annotations

import ipaddress
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shardmos import Client, ShardmosError
from shardmos.cli.push import describe
from shardmos.cli.stats import tables

ROOT = Path(__file__).resolve().parent
NAME = f"demo-{os.getpid()}"
CONNECTIONS = 3000
console = Console(soft_wrap=True, highlight=False, width=max(110, Console().width))

QUOTA = '''\
from shardmos import NEW_DATA, CLIENT, Middlebox, on, param


class Quota(Middlebox):
    """Says which clients were sent more than their limit."""

    filter = "tcp port 80"
    limit = param({limit}, help="bytes that a connection may be sent")

    @on(NEW_DATA, side=CLIENT)
    def count(self, flow, data):
        flow.state.seen += len(data)
        if flow.state.seen > self.limit and not flow.state.told:
            flow.state.told = 1
            self.emit("over", {{"client": flow.client, "seen": flow.state.seen, "limit": self.limit}})
'''


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="shardmos-demo-") as scratch:
        capture = write_capture(Path(scratch) / "http.pcap")
        step(f"a capture of {CONNECTIONS:,} HTTP-like connections was written ({capture.stat().st_size / 1e6:.1f} MB)")
        command = [
            "up",
            "--replay",
            str(capture),
            *["--loop", "--rate", "50000", "-w", "2", "--memory", "256MiB", "--name"],
            NAME,
        ]
        step("shardmos " + " ".join(command[:2]) + " http.pcap " + " ".join(command[3:]))
        program = "from shardmos.cli.main import main; main()"
        coordinator = subprocess.Popen([sys.executable, "-c", program, *command])
        try:
            with connect(coordinator) as client:
                show(client, Path(scratch))
        finally:
            step("Ctrl-C: flows are finished, workers end, sockets and memory go")
            began = time.monotonic()
            coordinator.send_signal(signal.SIGINT)
            code = coordinator.wait(10)
        console.print(f"stopped with exit code {code} after {time.monotonic() - began:.2f} s")
        return code


def connect(coordinator: subprocess.Popen[bytes]) -> Client:
    """A client, once the coordinator answers."""
    deadline = time.monotonic() + 15
    while True:
        try:
            return Client(NAME)
        except ShardmosError:
            if coordinator.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def show(client: Client, scratch: Path) -> None:
    time.sleep(3)
    step("a Python middlebox is pushed into the running workers")
    console.print(describe(client.push("count", every=500), "pushed"))
    quota = scratch / "quota.py"
    quota.write_text(QUOTA.format(limit=3000))
    console.print(describe(client.push(quota), "pushed"))
    time.sleep(3)
    step("a C middlebox is compiled, and pushed")
    console.print(describe(client.push(ROOT / "synwatch.c", every=1000), "pushed"))
    time.sleep(3)
    step("a new version of quota is pushed over the old one, then rolled back")
    quota.write_text(QUOTA.format(limit=4000))
    console.print(describe(client.push(quota), "pushed"))
    time.sleep(3)
    console.print(describe(client.rollback("Quota"), "rolled back to"))
    step("a module that does not compile is refused, and nothing changes")
    bad = scratch / "bad.c"
    bad.write_text("#include <shardmos/shardmos.h>\nint broken(void) { return missing; }\n")
    try:
        client.push(bad)
    except ShardmosError as error:
        console.print(str(error), style="yellow", markup=False)
    step("events, as they come")
    show_events(client)
    step("modules")
    table = Table(box=None)
    for column in ("module", "kind", "version", "calls", "errors"):
        table.add_column(column)
    for module in client.ls():
        table.add_row(
            module["name"], module["kind"], module["version"][:12], f"{module['calls']:,}", str(module["errors"])
        )
    console.print(table)
    step("stats, per worker and in sum")
    for each in tables(client.stats()):
        console.print(each)


def show_events(client: Client) -> None:
    table = Table(box=None)
    for column in ("topic", "worker", "what"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for topic, wanted in (("module.synwatch.", 2), ("module.Quota.", 3), ("flow", 3)):
        events = client.events(topic, timeout=3)
        for _, event in zip(range(wanted), events, strict=False):
            what = (
                event.get("data")
                or f"{event['client']} > {event['server']}:{event['server_port']} {event['conn_state']}"
            )
            table.add_row(event["topic"], str(event["worker"]), str(what))
        events.close()
    console.print(table)


def step(text: str) -> None:
    console.print(f"\n[bold]== {text}[/]")


# ---- the capture: connections of one request and a response of about 4 KB, interleaved, the same each time ----


def write_capture(path: Path) -> Path:
    """A pcap of Ethernet frames with valid checksums."""
    chance = random.Random(7)
    waiting = [connection(number, chance) for number in range(CONNECTIONS)]
    running: list[list[bytes]] = []
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        microseconds = 1_700_000_000 * 10**6
        while running or waiting:
            while waiting and len(running) < 200:
                running.append(waiting.pop())
            at = chance.randrange(len(running))
            frame = running[at].pop()
            if not running[at]:
                running[at] = running[-1]
                running.pop()
            microseconds += 100
            file.write(
                struct.pack("<IIII", microseconds // 10**6, microseconds % 10**6, len(frame), len(frame)) + frame
            )
    return path


def connection(number: int, chance: random.Random) -> list[bytes]:
    """The frames of one, the last first."""
    client = (ipaddress.IPv4Address("10.0.0.0") + number).packed, 1024 + number % 60000
    server = bytes([192, 0, 2, 1 + number % 20]), 80
    c, s = chance.randrange(2**32), chance.randrange(2**32)
    frames = [tcp(client, server, c, 0, 0x02)]
    c += 1
    if number % 50 == 49:  # refused
        return [tcp(server, client, 0, c, 0x14), *frames]
    frames += [tcp(server, client, s, c, 0x12), tcp(client, server, c, s + 1, 0x10)]
    s += 1
    request = f"GET /{number} HTTP/1.1\r\nHost: example.org\r\n\r\n".encode()
    frames.append(tcp(client, server, c, s, 0x18, request))
    c += len(request)
    body = chance.randbytes(chance.randrange(2000, 6000))
    response = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    for at in range(0, len(response), 1400):
        frames.append(tcp(server, client, s, c, 0x18, response[at : at + 1400]))
        s += len(response[at : at + 1400])
    frames += [
        tcp(client, server, c, s, 0x11),
        tcp(server, client, s, c + 1, 0x11),
        tcp(client, server, c + 1, s + 1, 0x10),
    ]
    return frames[::-1]


def tcp(
    source: tuple[bytes, int], target: tuple[bytes, int], seq: int, ack: int, flags: int, data: bytes = b""
) -> bytes:
    """An Ethernet frame with one TCP segment."""
    head = struct.pack("!HHIIBBHHH", source[1], target[1], seq % 2**32, ack % 2**32, 0x50, flags, 65535, 0, 0)
    pseudo = source[0] + target[0] + struct.pack("!BBH", 0, 6, len(head) + len(data))
    segment = head[:16] + struct.pack("!H", checksum(pseudo + head + data)) + head[18:] + data
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, 6, 0) + source[0] + target[0]
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0" + ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + segment


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    sys.exit(main())
