"""Properties of the whole engine, over streams that hypothesis cuts, reorders, doubles and overlaps.

SHARDMOS_EXAMPLES=N looks at N random examples of each instead of the same 200 every time.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traffic import ACK, FIN, SYN, tcp_frame, write_pcap

from shardmos.events import Event, Hook, Side
from shardmos.flow import Flow, split_records
from shardmos.workers.binding import ffi
from shardmos.workers.shard import BoxManifest, Run, Shard
from shardmos.workers.shard_config import OVERLAP_POLICIES, ShardConfig

_ASKED = os.environ.get("SHARDMOS_EXAMPLES")
examples = settings(
    max_examples=int(_ASKED or 200),
    derandomize=_ASKED is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
pytestmark = pytest.mark.timeout(120 + int(_ASKED or 0))
SERVER = ("10.0.0.2", 80)
ARP = b"\xff" * 6 + b"\x02\0\0\0\0\x01\x08\x06" + bytes(28)


# ---- captures ----


@dataclass(frozen=True)
class Direction:
    """One end's stream: what it sent, and the segments (start, end) in the order in which they came."""

    isn: int
    data: bytes
    segments: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Connection:
    port: int
    ends: tuple[Direction, Direction]
    acknowledges: bool

    def frames(self) -> Iterator[bytes]:
        client, (c, s) = ("10.0.0.1", self.port), self.ends
        yield tcp_frame(client, SERVER, c.isn, 0, SYN)
        yield tcp_frame(SERVER, client, s.isn, c.isn + 1, SYN | ACK)
        yield tcp_frame(client, SERVER, c.isn + 1, s.isn + 1, ACK)
        rows, came = [list(c.segments), list(s.segments)], [bytearray(len(c.data)), bytearray(len(s.data))]
        turn = random.Random(self.port)
        while rows[0] or rows[1]:
            side = turn.randrange(2) if rows[0] and rows[1] else int(not rows[0])
            start, end = rows[side].pop(0)
            # What is missing is not acknowledged: it would be given up.
            there = (came[not side] + b"\0").index(0) if self.acknowledges else 0
            seq, ack = self.ends[side].isn + 1 + start, self.ends[not side].isn + 1 + there
            ends = (SERVER, client) if side else (client, SERVER)
            yield tcp_frame(*ends, seq, ack, ACK, self.ends[side].data[start:end])
            came[side][start:end] = b"\1" * (end - start)
        c_end, s_end = c.isn + 1 + len(c.data), s.isn + 1 + len(s.data)
        yield tcp_frame(client, SERVER, c_end, s_end, ACK | FIN)
        yield tcp_frame(SERVER, client, s_end, c_end + 1, ACK | FIN)
        yield tcp_frame(client, SERVER, c_end + 1, s_end + 1, ACK)


@st.composite
def ranges(draw: st.DrawFn, length: int, most: int) -> list[tuple[int, int]]:
    pairs = draw(st.lists(st.tuples(st.integers(0, length - 1), st.integers(1, 200)), max_size=most))
    return [(start, min(length, start + size)) for start, size in pairs]


@st.composite
def directions(draw: st.DrawFn) -> Direction:
    """Every byte of the stream is in some segment; others lie over them; their order is any."""
    length = draw(st.integers(0, 600))
    isn = draw(st.sampled_from([0, 1, 2**31 - 100, 2**32 - 1, 2**32 - 300]) | st.integers(0, 2**32 - 1))
    data = random.Random(length).randbytes(length)
    if not length:
        return Direction(isn, data, ())
    cuts = sorted({0, length, *draw(st.lists(st.integers(1, length), max_size=12))})
    segments = list(itertools.pairwise(cuts)) + draw(ranges(length, 8))
    return Direction(isn, data, tuple(draw(st.permutations(segments))))


connections = st.lists(st.tuples(directions(), directions(), st.booleans()), min_size=1, max_size=3).map(
    lambda rows: [Connection(40000 + number, (c, s), acks) for number, (c, s, acks) in enumerate(rows)]
)


def woven(flows: list[Connection], order: random.Random) -> list[bytes]:
    rows = [list(flow.frames()) for flow in flows]
    frames = []
    while rows:
        row = order.choice(rows)
        frames.append(row.pop(0))
        rows = [each for each in rows if each]
    return frames


# ---- what happened ----


@dataclass
class Outcome:
    """Of one flow. `events` holds what was told in order; bytes that follow each other are one entry."""

    streams: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    events: list[tuple[Any, ...]] = field(default_factory=list)
    record: Flow | None = None

    def note(self, call: Any, skipped: int) -> None:
        event, side = Event(call.event), int(call.side)
        number = int(call.packet.number) - skipped if call.packet != ffi.NULL else 0
        if event == Event.NEW_DATA:
            assert call.offset == len(self.streams[side]), "bytes are delivered in order and once"
            self.streams[side].extend(ffi.buffer(call.data, call.length))
            if self.events and self.events[-1][:3] == (event, side, number):
                self.events[-1] = (event, side, number, self.events[-1][3] + call.length)
            else:
                self.events.append((event, side, number, int(call.length)))
            return
        self.events.append((event, int(call.hook), side, number, int(call.offset), int(call.length), int(call.detail)))


def play(path: Path, workers: int, skipped: int = 0, **options: Any) -> dict[int, Outcome]:
    """By client port: what `workers` shards made of a capture whose first `skipped` frames are none of the flows'."""
    outcomes: dict[int, Outcome] = defaultdict(Outcome)
    for worker in range(workers):
        config = ShardConfig(
            worker=worker, workers=workers, max_flows=16, buffer_bytes=1 << 20, defrag_bytes=0, records=True, **options
        )
        with Shard(config) as shard:
            registrations = [
                (int(event), int(Hook.BOTH if event == Event.PKT_IN else Hook.NONE), int(Side.BOTH)) for event in Event
            ]

            def record(call: Any) -> None:
                outcomes[int(call.tuple.sport)].note(call, skipped)

            shard.commit(shard.create_python_box(BoxManifest(name="seen", registrations=registrations), "1", record))
            shard.open_captures([path])
            records = bytearray()
            done = Run(0)
            while not done & (Run.END | Run.FAILED):
                done = shard.run()
                records += shard.take_records()
            while not (done := shard.finish("capture_end")) & Run.END:
                records += shard.take_records()
            records += shard.take_records()
            assert [module["errors"] for module in shard.stats().modules] == [0], "the recorder itself failed"
            for flow in map(Flow, split_records(bytes(records))):
                outcomes[flow.client_port].record = flow
    return outcomes


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# ---- the properties ----


@examples
@given(flows=connections, order=st.randoms(use_true_random=False), shift=st.integers(1, 70))
def test_streams_come_out_as_they_went_in(
    folder: Path, flows: list[Connection], order: random.Random, shift: int
) -> None:
    frames = woven(flows, order)
    plain = write_pcap(folder / "plain.pcap", frames)
    # Other frames before them move the borders of the bursts; each has the time that it had.
    shifted = write_pcap(folder / "shifted.pcap", [ARP] * shift + frames, start=1_700_000_000.0 - shift * 0.001)
    first = play(plain, 1)
    assert len(first) == len(flows)
    for flow in flows:
        outcome = first[flow.port]
        client, server = flow.ends
        assert bytes(outcome.streams[Side.SERVER]) == client.data
        assert bytes(outcome.streams[Side.CLIENT]) == server.data
        assert not [event for event in outcome.events if event[0] in (Event.GAP, Event.ERROR)]
        assert outcome.record is not None
        assert outcome.record.stream_bytes == (len(client.data), len(server.data))
        assert outcome.record.missing_bytes == outcome.record.overlaps_conflicting == (0, 0)
        assert outcome.record.end_reason == "fin"
    for other in (play(shifted, 1, shift), play(plain, 2), play(plain, 4), play(shifted, 2, shift)):
        assert other.keys() == first.keys()
        for port, outcome in first.items():
            assert other[port].events == outcome.events
            assert other[port].streams == outcome.streams


# By policy: whether a new segment [start, end) takes the bytes that it shares with an older one [old_start, old_end).
NEW_WINS: dict[str, Callable[[int, int, int, int], bool]] = {
    "first": lambda old_start, old_end, start, end: False,
    "last": lambda old_start, old_end, start, end: True,
    "bsd": lambda old_start, old_end, start, end: start < old_start,
    "linux": lambda old_start, old_end, start, end: start < old_start or (start == old_start and end > old_end),
    "old_linux": lambda old_start, old_end, start, end: start < old_start or (start == old_start and end >= old_end),
    "solaris": lambda old_start, old_end, start, end: end > old_end or (end == old_end and start <= old_start),
    "old_solaris": lambda old_start, old_end, start, end: False,
    "bsd_right": lambda old_start, old_end, start, end: start >= old_start,
}
NEW_WINS |= dict.fromkeys(("hpux10", "irix", "macos", "windows", "windows2k3"), NEW_WINS["bsd"])
NEW_WINS |= {"hpux11": NEW_WINS["solaris"], "vista": NEW_WINS["first"]}


def model(policy: str, segments: list[tuple[int, int, bytes]], length: int) -> tuple[bytes, bool]:
    """Byte by byte: the stream, and whether different bytes met."""
    place: list[tuple[int, int, int] | None] = [None] * length  # value, and the bounds of the segment that it came with
    conflict = False
    for start, end, data in segments:
        for at in range(start, end):
            old, value = place[at], data[at - start]
            conflict |= old is not None and old[0] != value
            if old is None or NEW_WINS[policy](old[1], old[2], start, end):
                place[at] = (value, start, end)
    return bytes(entry[0] for entry in place if entry is not None), conflict


def test_the_model_knows_every_policy() -> None:
    assert NEW_WINS.keys() == {name.replace("-", "_") for name in OVERLAP_POLICIES}


@pytest.mark.parametrize("policy", sorted(OVERLAP_POLICIES))
@settings(examples, max_examples=max(1, examples.max_examples // 4))
@given(data=st.data(), isn=st.sampled_from([1, 2**32 - 30]) | st.integers(0, 2**32 - 1))
def test_different_bytes_for_one_place(folder: Path, policy: str, data: st.DataObject, isn: int) -> None:
    """Nothing is in order until the last segment, which is the whole stream: all that came before it was buffered."""
    length = data.draw(st.integers(2, 120))
    pairs = [(max(1, start), end) for start, end in data.draw(ranges(length, 10)) if end > 1] + [(0, length)]
    letters = data.draw(st.lists(st.sampled_from(b"abc"), min_size=len(pairs), max_size=len(pairs)))
    segments = [
        (start, end, bytes([letter]) * (end - start)) for (start, end), letter in zip(pairs, letters, strict=True)
    ]
    client = ("10.0.0.1", 40000)
    frames = [tcp_frame(client, SERVER, isn, 0, SYN), tcp_frame(SERVER, client, 5, isn + 1, SYN | ACK)]
    frames += [tcp_frame(client, SERVER, isn + 1 + start, 6, ACK, text) for start, _, text in segments]
    outcome = play(write_pcap(folder / "overlap.pcap", frames), 1, overlap_policy=policy)[40000]
    expected, conflict = model(policy.replace("-", "_"), segments, length)
    assert bytes(outcome.streams[Side.SERVER]) == expected
    assert outcome.record is not None
    assert bool(outcome.record.overlaps_conflicting[0]) == conflict
