"""The ledgers: every packet that was read is accounted for exactly once, whoever read it and whatever it was."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from traffic import CLIENT, SERVER, SYN, conversations, ip_frame, tcp_frame, write_pcap

import shardmos as sm
from shardmos.run import execute

SAMPLE, SEED = 60, 2
ENDS = ("end_fin", "end_rst", "end_idle", "end_evicted", "end_capture_end", "end_stopped")
REASONS = ("not_ip", "malformed", "truncated", "linktype", "filtered", "no_memory")
PLACES = ("packets_flow", "packets_orphan", "packets_fragment", *(f"passed_{why}" for why in REASONS))
DROPS = tuple(f"drop_{why}" for why in REASONS)
LATER = {
    "drop_verdict", "drop_handover", "drop_reset_flow", "drop_resting",
    "drop_transmit_full", "drop_transmit_refused", "drop_transmit_size",
}  # fmt: skip


class Watch(sm.Middlebox):
    """Counts what it is told, to be compared with what the engine says."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = {"packets": 0, "starts": 0, "ends": 0, "bytes": 0}

    @sm.on(sm.PKT_IN)
    def packet(self, flow: sm.LiveFlow) -> None:
        self.seen["packets"] += 1

    @sm.on(sm.CONN_START)
    def start(self, flow: sm.LiveFlow) -> None:
        self.seen["starts"] += 1

    @sm.on(sm.NEW_DATA, side=sm.BOTH)
    def data(self, flow: sm.LiveFlow, data: memoryview) -> None:
        self.seen["bytes"] += len(data)

    @sm.on(sm.CONN_END)
    def end(self, flow: sm.LiveFlow) -> None:
        self.seen["ends"] += 1


def counted(capture: Path, workers: int = 1, filter: str | None = None, **config: Any) -> dict[str, int]:
    """The counters after a run, found to balance."""
    result = execute(capture, [Watch()], workers=workers, filter=filter, **config)
    counters, seen = result.counters, result.summaries[0]["seen"]
    assert balance(counters) == ""
    assert result.error_count == 0
    told = {"starts": counters["flows_made"], "ends": counters["flows_made"], "bytes": counters["stream_bytes"]}
    assert {name: seen[name] for name in told} == told
    assert seen["packets"] == sum(counters[f"flow_packets_{each}"] for each in ("tcp", "udp", "icmp", "other"))
    return counters


def balance(counters: dict[str, int]) -> str:
    """What does not add up, "" if all does."""
    wrong = []
    if counters["packets"] != sum(counters[name] for name in (*PLACES, *DROPS)):
        wrong.append("packets")
    if counters["flows_made"] != counters["flows_now"] + sum(counters[name] for name in ENDS):
        wrong.append("flows")
    if counters["flows_made"] != sum(counters[f"flows_made_{each}"] for each in ("tcp", "udp", "icmp", "other")):
        wrong.append("protocols")
    unknown = {name for name in counters if name.startswith("drop_")} - {*DROPS} - LATER
    return " ".join([*wrong, *sorted(unknown)])


def mixture() -> list[bytes]:
    """A frame of each kind beside ten connections: no IP, cut, malformed, a fragment, a RST to nothing, UDP, ICMP."""
    ethernet = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02"
    udp = ip_frame("10.0.0.9", "10.0.0.2", 17, struct.pack("!HHHH", 5000, 53, 12, 0) + b"data")
    icmp = ip_frame("10.0.0.9", "10.0.0.2", 1, b"\x08\0\xf7\xff\0\0\0\0")
    fragment = bytearray(ip_frame("10.0.0.9", "10.0.0.2", 17, bytes(16)))
    fragment[20:22] = b"\x20\x00"  # more fragments
    fragment[24:26] = b"\0\0"
    return [
        *conversations(10),
        ethernet + b"\x08\x06" + bytes(28),
        ethernet + b"\x88\xcc" + bytes(46),
        ethernet + b"\x08\x00\x41",
        ethernet + b"\x08\x00" + bytes(40),
        bytes(fragment),
        tcp_frame(("10.9.9.9", 1), SERVER, 5, 0, 4),
        tcp_frame(CLIENT, SERVER, 1, 0, SYN)[:40],
        udp,
        icmp,
    ]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pcap(tmp_path_factory.mktemp("sums") / "mixed.pcap", mixture())


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_packet_is_accounted_for_once(mixed: Path, workers: int) -> None:
    counters = counted(mixed, workers, checksums="ignore", midstream="ignore")
    frames = mixture()
    assert counters["packets"] == len(frames)
    assert counters["bytes"] == sum(map(len, frames))
    assert counters["flows_made_tcp"] >= 10 and counters["flows_made_udp"] == 1 and counters["flows_made_icmp"] == 1
    for name in ("drop_not_ip", "packets_fragment", "packets_orphan"):
        assert counters[name] > 0, name
    assert counters["drop_malformed"] + counters["drop_truncated"] > 0


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_filter_leaves_out_is_counted_as_filtered(mixed: Path, workers: int) -> None:
    whole, part = counted(mixed, workers), counted(mixed, workers, filter="tcp port 80 and host 10.1.0.3")
    assert part["packets"] == whole["packets"]
    assert part["drop_filtered"] > 0 and part["packets_flow"] == 8 and part["flows_made"] == 1


def test_packets_that_found_no_room_are_counted(tmp_path: Path) -> None:
    frames = [tcp_frame((f"10.2.{n >> 8}.{n & 255}", 1000 + n % 7), SERVER, n, 0, SYN) for n in range(5000)]
    counters = counted(write_pcap(tmp_path / "flood.pcap", frames), max_flows=64)
    assert counters["packets"] == 5000
    assert counters["end_evicted"] + counters["drop_no_memory"] >= 5000 - counters["flow_limit_now"]


@pytest.mark.parametrize("workers", [1, 2])
def test_dropped_packets_are_counted_beside_the_flows(mixed: Path, workers: int) -> None:
    class Wall(sm.Middlebox):
        filter = "tcp port 80"

        @sm.on(sm.PKT_IN)
        def packet(self, flow: sm.LiveFlow) -> None:
            flow.drop()

    counters = execute(mixed, [Wall()], workers=workers).counters
    assert balance(counters) == ""
    assert counters["drop_verdict"] >= 80 and counters["stream_bytes"] == 0


def test_real_captures_balance(corpus: Path) -> None:
    entries = [json.loads(line) for line in (corpus / "INDEX.jsonl").read_text().splitlines()]
    paths = [corpus / entry["file"] for entry in entries]
    wrong, compared = [], 0
    for path in random.Random(SEED).sample([path for path in paths if path.is_file()], SAMPLE):
        try:
            counters = execute(path, [Watch()], checksums="ignore").counters
            pair = execute(path, [Watch()], checksums="ignore", workers=2).counters
        except sm.ShardmosError:
            continue  # cut, or of a kind that is not read: test_flows_corpus looks at these
        different = [n for n in ("packets", "bytes", "flows_made", *PLACES, *DROPS) if counters[n] != pair[n]]
        frames = oracle_frames(path)
        compared += frames is not None
        if balance(counters) or balance(pair) or different or frames not in (None, counters["packets"]):
            read = counters["packets"]
            wrong.append(f"{path.name}: {balance(counters)} {balance(pair)} {different} read {read}, has {frames}")
    assert wrong == []
    assert compared > SAMPLE // 2


def oracle_frames(path: Path) -> int | None:
    oracle = path.with_name(path.name + ".oracle.json")
    if not oracle.is_file():
        return None
    with oracle.open() as lines:
        return int(json.loads(next(lines))["frames"])
