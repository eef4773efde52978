"""A link that loses, delays and repeats frames: transfers are whole all the same, edited ones too."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinators import Running
from live import Reported, bridged, connect, serving, transfer
from netns import Wire, need

Bridge = tuple[Wire, Running]

# 2 % are lost, 5 % come 3 ms late, behind others, and 2 % twice; each way.
RELAY = """
import random, select, socket, time
chance, late, ends = random.Random(7), [], []
for name in ("near", "far"):
    each = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    each.bind((name, 3))
    each.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    each.setsockopt(263, 23, 1)  # PACKET_IGNORE_OUTGOING
    ends.append(each)
print("ready", flush=True)
while True:
    ready, _, _ = select.select(ends, [], [], 0.001 if late else None)
    for each in ready:
        out, frame, what = ends[each is ends[0]], each.recv(65536), chance.random()
        if what < 0.02:
            continue
        if what < 0.07:
            late.append((time.monotonic() + 0.003, out, frame))
            continue
        out.send(frame)
        if what < 0.09:
            out.send(frame)
    while late and late[0][0] < time.monotonic():
        _, out, frame = late.pop(0)
        out.send(frame)
"""


@pytest.fixture(scope="module", params=["af_packet", "af_xdp"])
def bridge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    need("ethtool", "ethtool")
    with bridged(tmp_path_factory, request.param, 2, relay=True) as (wire, running):
        relay = wire.relay.start(sys.executable, "-c", RELAY)
        try:
            assert relay.stdout is not None and relay.stdout.readline() == "ready\n"
            yield wire, running
        finally:
            relay.kill()
            relay.communicate()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("up", [False, True], ids=["download", "upload"])
def test_a_transfer_is_whole(bridge: Bridge, version: int, up: bool) -> None:
    wire, running = bridge
    size, port = 4 << 20, 8400 + 2 * version + up
    with Reported(running) as reported:
        transfer(wire, size, port, version, up)
        (flow,) = reported.wait(lambda flow: flow["server_port"] == port, 1)
    sender = 0 if up else 1
    assert flow["stream_span"][sender] == size
    assert (flow["conn_state"], flow["missing_bytes"]) == ("SF", [0, 0])
    assert flow["retransmits"][sender] > 0  # the box is behind the bad link, or before it: it sees what is sent again


# Each byte that the server sends at a multiple of 1,000 gets a mark before it, and the three from 500 on are taken out.
# Handlers see the stream as its receiver will: numbers and payload of what was edited before are the edited ones. What
# comes ahead of its turn is dropped, and comes again: its edited number depends on what will be done before it.
EDITS = """
import shardmos as sm

class Edits(sm.Middlebox):
    filter = "tcp port 8410"

    class State:
        next: int = 0
        original: int = 0

    @sm.on(sm.PKT_IN, side=sm.SERVER, hook=sm.SENDER)
    def edit(self, flow, packet):
        state, length = flow.state, len(packet.payload)
        if packet.tcp_flags & 2:
            state.next = packet.seq + 1
            return
        again = (state.next - packet.seq) % 2**32
        if again >= 2**31 and length:
            flow.drop()
        if again >= length:
            return
        grown, number = 0, packet.seq
        for at in range(length - 1, again - 1, -1):  # from the end, so that offsets stay what they are
            place = (state.original + at - again) % 1000
            if 500 <= place < 503:
                packet.remove(at, 1)
                grown -= 1
            elif place == 0:
                packet.insert(at, b"<EDIT>")
                grown += 6
        state.original += length - again
        state.next = (number + length + grown) % 2**32
"""


def edited(text: bytes) -> bytes:
    out = bytearray()
    for at in range(0, len(text), 1000):
        part = text[at : at + 1000]
        out += b"<EDIT>" + part[:500] + part[503:]
    return bytes(out)


def test_an_edited_answer_is_exactly_the_edited_text(bridge: Bridge, tmp_path: Path) -> None:
    """HTTP, over loss, reordering and repetition: what comes again goes out as it did the first time."""
    wire, running = bridge
    text = os.urandom(600_000)
    header = b"HTTP/1.0 200 OK\r\n\r\n"
    (tmp_path / "edits.py").write_text(EDITS)
    with running.client() as client:
        client.push(tmp_path / "edits.py")

    def answer(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(1000)
        connection.sendall(header + text)

    try:
        with serving(wire.server, (wire.SERVER, 8410), answer):
            for _ in range(2):
                with connect(wire.client, (wire.SERVER, 8410)) as connection:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    got = bytearray()
                    while data := connection.recv(65536):
                        got += data
                assert bytes(got) == edited(header + text)
            together = [threading.Thread(target=fetch, args=(wire, edited(header + text))) for _ in range(4)]
            for thread in together:
                thread.start()
            for thread in together:
                thread.join()
            assert not WRONG
        with running.client() as client:
            (module,) = [each for each in client.stats()["sum"]["modules"] if each["name"] == "Edits"]
            assert module["errors"] == 0
    finally:
        with running.client() as client:
            client.rm("Edits")


WRONG: list[str] = []


def fetch(wire: Wire, expected: bytes) -> None:
    with connect(wire.client, (wire.SERVER, 8410)) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        got = bytearray()
        while data := connection.recv(65536):
            got += data
    if bytes(got) != expected:
        WRONG.append(f"{len(got)} bytes instead of {len(expected)}")
