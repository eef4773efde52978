"""Memory for packets that reach the wrong worker: a ring from each worker to each other, and a bell for who sleeps.

Bounded, and the coordinator's, so that a worker that is started again goes on with them (native/src/shard/handover.c).
"""

from __future__ import annotations

import os
from typing import Any

from shardmos.control import memory

_HEADER, _LEAST = 4096, 1 << 20


class Handover:
    """Empty where there is one worker. `scattered`: packets come to any worker; order is to be kept from the start."""

    def __init__(self, workers: int, size: int, scattered: bool) -> None:
        self._scattered = scattered
        self._rings: dict[tuple[int, int], int] = {}
        self._bells: list[int] = []
        self._workers = workers if workers > 1 else 0
        each = max(size, _LEAST) + _HEADER
        memory.check_handover(self._workers * (self._workers - 1) * each)
        try:
            for source in range(self._workers):
                self._bells.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
                for target in range(self._workers):
                    if source != target:
                        fd = os.memfd_create(f"shardmos-handover-{source}-{target}", os.MFD_CLOEXEC)
                        self._rings[source, target] = fd
                        os.ftruncate(fd, each)
        except OSError:
            self.close()
            raise

    def fds(self, worker: int) -> list[int]:
        """What the worker inherits."""
        return self._bells + [fd for ends, fd in self._rings.items() if worker in ends]

    def spec(self, worker: int) -> dict[str, Any] | None:
        """What `Shard.set_handover` takes; -1 stands at the worker's own place."""
        if not self._workers:
            return None
        others = range(self._workers)
        return {
            "from": [self._rings.get((other, worker), -1) for other in others],
            "to": [self._rings.get((worker, other), -1) for other in others],
            "bells": self._bells,
            "scattered": self._scattered,
        }

    def close(self) -> None:
        for fd in (*self._rings.values(), *self._bells):
            os.close(fd)
        self._rings, self._bells = {}, []
