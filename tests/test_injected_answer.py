"""An answer that somebody injects before the true one: whoever listens to anomalies is told, with both copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest
from traffic import ACK, CLIENT, PSH, SERVER, conversation, tcp_frame, write_pcap

import shardmos as sm
from shardmos.workers.shard import Run, Shard
from shardmos.workers.shard_config import ShardConfig

NAME = "reassembly_overlap_different_data"
FORGED, TRUE = b"HTTP/1.0 302 Forged\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nhello"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    frames = conversation(response=TRUE)
    forged = tcp_frame(SERVER, CLIENT, 9001, 1001 + len(b"GET / HTTP/1.0\r\n\r\n"), ACK | PSH, FORGED)
    return write_pcap(tmp_path / "injected.pcap", [*frames[:4], forged, *frames[4:]])


class Watch(sm.Middlebox):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int, bytes, bytes]] = []

    @sm.on(sm.ANOMALY)
    def anomaly(self, flow: Any, anomaly: Any) -> None:
        self.told.append((str(anomaly), anomaly.offset, anomaly.before, anomaly.now))


def told(capture: Path, **settings: Any) -> list[tuple[str, int, bytes, bytes]]:
    watch = Watch()
    sm.run(str(capture), watch, **settings)
    return [entry for entry in watch.told if entry[0] == NAME]


def test_a_listener_is_told_with_both_copies(capture: Path) -> None:
    [(_, offset, before, now)] = told(capture)
    assert offset == FORGED.index(b"302")
    assert (before[:3], now[:3]) == (b"302", b"200")


def test_nothing_is_kept_where_that_is_asked_for(capture: Path) -> None:
    assert told(capture, compare_bytes=0) == []
    assert told(capture, anomalies=False) == []


def test_where_nobody_listens_nothing_is_compared(capture: Path) -> None:
    [flow] = sm.flows(str(capture))
    assert flow.overlaps_conflicting == (0, 0)
    assert flow.retransmits == (0, 1)


def test_it_is_published_to_who_subscribes(capture: Path) -> None:
    with Shard(ShardConfig()) as shard:
        shard.set_publish(["anomalies"])
        shard.open_captures([capture])
        names: list[str] = []
        done = Run(0)
        while not done & (Run.END | Run.FAILED):
            done = shard.run()
            names += [event["anomaly"] for event in msgpack.unpackb(shard.take_events() or b"\x90")]
    assert NAME in names


def test_what_is_kept_leaves_room_for_what_waits_behind_holes(tmp_path: Path) -> None:
    frames = [
        frame
        for number in range(400)
        for frame in conversation(response=b"x" * 8000, client=(f"10.1.{number >> 8}.{number & 255}", 40000))
    ]
    most = 0
    with Shard(ShardConfig(buffer_bytes=2 << 20)) as shard:
        shard.set_publish(["anomalies"])
        shard.open_captures([write_pcap(tmp_path / "many.pcap", frames)])
        done = Run(0)
        while not done & (Run.END | Run.FAILED):
            done = shard.run()
            counters = dict(shard.stats().counters)
            most = max(most, counters["buffered_bytes_now"])
    limit = counters["buffer_limit_now"]
    assert limit / 4 < most < limit / 2 + 32768
    assert counters["full_worker_buffer"] == 0
