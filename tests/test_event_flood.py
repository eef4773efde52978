"""More events than the coordinator can carry: commands have their turn all the same."""

from __future__ import annotations

from pathlib import Path

from coordinators import Running, until
from traffic import conversation, write_pcap

import shardmos as sm


def test_commands_are_answered_under_a_flood_of_flow_records(tmp_path: Path, runtime_dir: Path) -> None:
    path = write_pcap(tmp_path / "one.pcap", conversation())
    with Running("--replay", str(path), "--loop", "-w", "1") as running:
        with sm.Client() as reader, running.client() as client:
            events = reader.events("flow")
            next(events)
            for _ in range(3):
                assert client.status()["workers"]
            events.close()
        with running.client() as client:
            until(lambda: "flow" not in client.status()["subscriptions"], 30)
