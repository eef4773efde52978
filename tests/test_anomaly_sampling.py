"""A flood of anomalies does not flood the event stream; the counters count all (docs/anomalies.md says how many)."""

from __future__ import annotations

from pathlib import Path

import msgpack
from flow_script import capture, parse

from shardmos.workers.shard import Run, Shard
from shardmos.workers.shard_config import ShardConfig

PER_FLOW, PER_SECOND = 16, 1000


def published(text: str, directory: Path) -> tuple[list[str], dict[str, int]]:
    """The names of the published anomalies, and the counters."""
    path = directory / "flood.pcap"
    path.write_bytes(capture(parse(text + "\n= flows 1")))
    names: list[str] = []
    with Shard(ShardConfig()) as shard:
        shard.set_publish(["anomalies"])
        shard.open_captures([path])
        done = Run(0)
        while not done & (Run.END | Run.FAILED):
            done = shard.run()
            data = shard.take_events()
            if data:
                names += [event["anomaly"] for event in msgpack.unpackb(data) if event["topic"] == "anomaly"]
        counters = dict(shard.stats().counters)
    return names, counters


def bad_start(port: int, time: str = "+0.0001") -> str:
    return f"port client {port}\n{time} > F. 1(0) ack 1"


def test_one_flow_publishes_a_few_and_counts_all(tmp_path: Path) -> None:
    flood = "\n".join("> F. 1(0) ack 1\n> F. 9(0) ack 1" for _ in range(200))
    names, counters = published("> . 1(0) ack 1\n" + flood, tmp_path)
    assert names == ["fin_different_seq"] * PER_FLOW
    assert counters["anomaly.fin_different_seq"] == 200


def test_one_that_came_before_does_not_silence_other_flows(tmp_path: Path) -> None:
    flood = "\n".join("> F. 1(0) ack 1\n> F. 9(0) ack 1" for _ in range(20))
    names, _ = published("> . 1(0) ack 1\n" + flood + "\n" + bad_start(40001), tmp_path)
    assert names == ["fin_different_seq"] * PER_FLOW + ["fin_but_no_session"]


def test_many_flows_publish_no_more_than_so_many_in_a_second(tmp_path: Path) -> None:
    first = "\n".join(bad_start(1000 + n) for n in range(3000))
    names, counters = published(first, tmp_path)
    assert len(names) == PER_SECOND
    assert counters["anomaly.fin_but_no_session"] == 3000


def test_the_next_second_publishes_again(tmp_path: Path) -> None:
    first = "\n".join(bad_start(1000 + n) for n in range(1500))
    names, counters = published(f"{first}\n{bad_start(9000, '2.5')}\n{bad_start(9001, '2.6')}", tmp_path)
    assert len(names) == PER_SECOND + 2
    assert counters["anomaly.fin_but_no_session"] == 1502


def test_none_is_looked_for_when_nobody_asked(tmp_path: Path) -> None:
    path = tmp_path / "one.pcap"
    path.write_bytes(capture(parse(bad_start(1000) + "\n= flows 1")))
    with Shard(ShardConfig(anomalies=False)) as shard:
        shard.open_captures([path])
        while not shard.run() & (Run.END | Run.FAILED):
            pass
        counters = shard.stats().counters
    assert not any(value for name, value in counters.items() if name.startswith("anomaly."))
