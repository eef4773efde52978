"""Sent = received + lost by name: a counted sender, and a worker that sleeps until more came than its ring holds."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from coordinators import Running, until
from live import check_ledger, quick, settled
from netns import Wire
from traffic import ip_frame

FRAME = ip_frame("10.1.0.1", "10.1.0.2", 17, struct.pack("!HHHH", 1000, 2000, 8, 0))


@pytest.mark.parametrize("way", [("-i", "left"), ("--pair", "left", "right")], ids=["passive", "inline"])
def test_what_an_af_packet_ring_could_not_hold_is_counted(runtime_dir: Path, way: tuple[str, ...]) -> None:
    count = 20_000
    arguments = quick(*way, "--driver", "af_packet", "--set", "port.ring=1MiB")
    with Wire() as wire, Running(*arguments, prefix=wire.box.command()) as running:

        def stats() -> Any:
            with running.client() as client:
                return client.stats()

        settled(running)
        before = stats()["ports"]
        (worker,) = running.workers()
        worker.suspend()
        try:
            with wire.client.packet_socket("eth0") as out:
                for _ in range(count):
                    out.send(FRAME)
            # The kernel may still be moving them; its device counts each before the ring has it or loses it.
            until(lambda: stats()["ports"]["devices_received"] - before["devices_received"] >= count, 30)
        finally:
            worker.resume()

        def taken() -> bool:
            now = stats()
            return bool(now["ports"]["received"] == now["sum"]["counters"]["port_packets"] + now["ports"]["lost_ring"])

        until(taken, 30)
        counters, ports = settled(running), stats()["ports"]
        assert ports["lost_ring"] == counters["port_lost"] > count // 4
        assert ports["received"] == counters["packets"] + ports["lost_ring"] >= count
        assert ports["devices_received"] == ports["received"]
        assert ports["lost_unattributed"] == 0
        if way[0] == "--pair":
            check_ledger(running)
