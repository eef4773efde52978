"""Reading streams in every way at chance moments: each byte that is read is the one that was sent, or is told lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traffic import ACK, CLIENT, FIN, SERVER, SYN, tcp_frame, write_pcap

import shardmos as sm

Segments = list[tuple[int, bytes]]


def frame(side: int, at: int, data: bytes) -> bytes:
    if side == sm.SERVER:
        return tcp_frame(CLIENT, SERVER, 1001 + at, 9001, ACK, data)
    return tcp_frame(SERVER, CLIENT, 9001 + at, 1001, ACK, data)


def opened() -> list[bytes]:
    return [
        tcp_frame(CLIENT, SERVER, 1000, 0, SYN),
        tcp_frame(SERVER, CLIENT, 9000, 1001, SYN | ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK),
    ]


def cut(chance: random.Random, data: bytes) -> Segments:
    """In segments of any size; some late, some twice, some never."""
    parts: Segments = []
    while (at := sum(len(part) for _, part in parts)) < len(data):
        parts.append((at, data[at : at + chance.randrange(1, 300)]))
    out: Segments = []
    for at in range(0, len(parts), 5):
        group = parts[at : at + 5] + [chance.choice(parts[: at + 5]) for _ in range(2)]
        if chance.random() < 0.3:
            group.pop(chance.randrange(len(group)))
        chance.shuffle(group)
        out += group
    return out


class Reader:
    """What one socket reads, and what is wrong with it."""

    def __init__(self, chance: random.Random, sent: list[bytes], wrong: list[Any]) -> None:
        self._chance, self._sent, self._wrong, self._at = chance, sent, wrong, [0, 0]

    def __call__(self, flow: sm.LiveFlow) -> None:
        for _ in range(self._chance.randrange(3)):
            side, action = self._chance.randrange(2), self._chance.random()
            if action < 0.6:
                self._peek(flow, side)
            elif action < 0.8:
                self._look(flow, side)
            elif action < 0.84:
                flow.set(history=self._chance.choice([1, 20, 300, 4000]), side=side)
            elif action < 0.86:
                flow.set(buffer=self._chance.choice([0, 500, 100_000]), side=side)
            elif action < 0.87:
                flow.set(overlap=self._chance.choice(["first", "last"]), side=side)

    def _peek(self, flow: sm.LiveFlow, side: int) -> None:
        data, lost = flow.peek(side, self._chance.choice([0, 1, 7, 100, 65536]))
        self._at[side] += lost
        if data != self._sent[side][self._at[side] : self._at[side] + len(data)]:
            self._wrong.append(("peek", side, self._at[side], data))
        self._at[side] += len(data)
        info = flow.buffer_info(side)
        if info.read != self._at[side] or info.read > info.next:
            self._wrong.append(("cursor", side, self._at[side], info))

    def _look(self, flow: sm.LiveFlow, side: int) -> None:
        stretches = flow.buffered(side)
        places = [place for stretch in stretches for place in stretch]
        if places != sorted(places):
            self._wrong.append(("stretches", side, stretches))
        for begin, end in stretches:
            at = self._chance.randrange(begin, end)
            data = flow.peek_at(side, at)
            if len(data) < end - at or data != self._sent[side][at : at + len(data)]:
                self._wrong.append(("peek_at", side, at, len(data), stretches))


EVENTS = [
    (sm.PKT_IN, sm.RECEIVER), (sm.PKT_IN, sm.SENDER), (sm.NEW_DATA, None), (sm.GAP, None), (sm.ERROR, None),
    (sm.REXMIT, sm.RECEIVER), (sm.CONN_END, None),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_what_is_read_at_chance_is_what_was_sent(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    sent = [chance.randbytes(chance.randrange(1, 4000)) for _ in range(2)]
    talk = [[frame(side, at, data) for at, data in cut(chance, sent[side])] for side in range(2)]
    frames = opened()
    while any(talk):
        frames.append(chance.choice([side for side in talk if side]).pop(0))
    if chance.random() < 0.5:
        frames.append(tcp_frame(CLIENT, SERVER, 1001 + len(sent[1]), 9001, ACK | FIN))
    wrong: list[Any] = []
    with sm.Context(write_pcap(tmp_path / "x.pcap", frames)) as ctx:
        for _ in range(chance.randrange(1, 5)):
            socket, reader = ctx.socket(), Reader(chance, sent, wrong)
            for side in range(2):
                socket.set(history=chance.choice([1, 10, 100, 1000, 5000]), side=side)
            for event, hook in EVENTS:
                if chance.random() < 0.7:
                    socket.register(event, reader, hook=hook)
        result = ctx.run()
    assert (wrong, result.error_count) == ([], 0)


def test_what_waits_comes_before_what_nobody_waits_for(tmp_path: Path) -> None:
    """Two segments wait behind a hole; then out-of-order bytes are not wanted any longer, and one comes again."""
    sent = bytes(range(256)) * 3
    places = [(0, 98), (505, 695), (220, 505), (0, 98), (505, 695), (695, 700)]
    frames = [*opened(), *(frame(sm.SERVER, begin, sent[begin:end]) for begin, end in places)]
    told: list[tuple[int, bytes]] = []

    def stop_waiting(number: list[int]) -> Callable[[sm.LiveFlow], None]:
        def count(flow: sm.LiveFlow) -> None:
            number[0] += 1
            if number[0] == 7:
                flow.set(buffer=0)

        return count

    with sm.Context(write_pcap(tmp_path / "x.pcap", frames)) as ctx:
        socket = ctx.socket()
        socket.register(sm.PKT_IN, stop_waiting([0]), hook=sm.RECEIVER)
        socket.register(sm.NEW_DATA, lambda flow, data: told.append((flow.offset, bytes(data))))
        ctx.run()
    assert [(at, at + len(data)) for at, data in told] == [(0, 98), (220, 505), (505, 695), (695, 700)]
    assert all(data == sent[at : at + len(data)] for at, data in told)
