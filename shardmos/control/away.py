"""A port whose interface is gone, until it is there again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shardmos.control import interface
from shardmos.control.interface import Interface


@dataclass(slots=True)
class AwayPort:
    """Nothing is open; each of `workers` has been told so, or will be."""

    names: list[str]
    workers: int
    driver: str = "away"
    mode: str = "waiting for its interface"
    interfaces: list[Interface] = field(default_factory=list)

    def fds(self, worker: int) -> list[int]:
        return []

    def spec(self, worker: int) -> dict[str, Any]:
        return {"driver": self.driver, "names": self.names, "fds": []}

    def counters(self) -> list[dict[str, int]]:
        return [{"received": 0, "dropped": 0} for _ in range(self.workers)]

    def details(self) -> dict[str, int]:
        return {}

    def stale(self) -> bool:
        return all(interface.index_of(name) for name in self.names)

    def close(self) -> None:
        pass
