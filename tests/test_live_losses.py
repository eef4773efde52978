"""Sent = received + lost by name: a counted sender, and a worker that sleeps until more came than its ring holds."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from coordinators import Running, until
from live import check_ledger, quick, quiet, since
from netns import Wire
from traffic import ip_frame

FRAME = ip_frame("10.1.0.1", "10.1.0.2", 17, struct.pack("!HHHH", 1000, 2000, 8, 0))


@pytest.mark.parametrize("way", [("-i", "left"), ("--pair", "left", "right")], ids=["passive", "inline"])
def test_what_an_af_packet_ring_could_not_hold_is_counted(runtime_dir: Path, way: tuple[str, ...]) -> None:
    count = 20_000
    arguments = quick(*way, "--driver", "af_packet", "--set", "port.ring=1MiB")
    with Wire() as wire, Running(*arguments, prefix=wire.box.command()) as running:

        def devices_received() -> int:
            with running.client() as client:
                return int(client.stats()["ports"]["devices_received"])

        before = quiet(running)
        (worker,) = running.workers()
        worker.suspend()
        try:
            with wire.client.packet_socket("eth0") as out:
                for _ in range(count):
                    out.send(FRAME)
            # The kernel may still be moving them; its device counts each before the ring has it or loses it.
            until(lambda: devices_received() - before["devices_received"] >= count, 30)
        finally:
            worker.resume()

        counted = since(before, running)
        assert counted["lost_ring"] == counted["port_lost"] > count // 4
        assert counted["received"] == counted["packets"] + counted["lost_ring"] >= count
        assert counted["devices_received"] == counted["received"]
        assert counted["lost_unattributed"] == 0
        if way[0] == "--pair":
            check_ledger(running)
