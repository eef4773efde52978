"""Bytes by server and losses, from the events of a capture, with several processes.

shardmos run -r trace.pcap -m examples/top_talkers.py -w 2
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import shardmos as sm


class TopTalkers(sm.Middlebox):
    most = sm.param(10, help="how many servers the summary has")

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self._bytes: Counter[str] = Counter()
        self._lost = 0

    @sm.on(sm.GAP)
    def gap(self, flow: Any, gap: Any) -> None:
        self._lost += gap.length

    @sm.on(sm.CONN_END)
    def end(self, flow: Any) -> None:
        self._bytes[flow.server] += sum(flow.info.payload_bytes)

    def summary(self) -> Any:
        return {"lost": self._lost, "servers": dict(self._bytes)}

    @classmethod
    def merge(cls, summaries: list[Any]) -> Any:
        total: Counter[str] = Counter()
        for summary in summaries:
            total.update(summary["servers"])
        return {"lost": sum(summary["lost"] for summary in summaries), "servers": dict(total)}
