"""Resets connections whose client sends too much.

shardmos run -r trace.pcap -m examples/quota.py:limit=5000
"""

from __future__ import annotations

from typing import Any

import shardmos as sm


class Quota(sm.Middlebox):
    filter = "tcp port 80"
    limit = sm.param(1_000_000, help="bytes that a client may send")

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.resets = 0

    @sm.on(sm.NEW_DATA, side=sm.SERVER)  # what clients sent
    def count(self, flow: Any, data: memoryview) -> None:
        flow.state.seen += len(data)
        if flow.state.seen > self.limit:
            flow.reset()
            flow.stop()
            self.resets += 1
            self.emit("reset", {"client": flow.client, "bytes": flow.state.seen})


if __name__ == "__main__":
    import sys

    print(sm.run(sys.argv[1], Quota(limit=5_000)))
