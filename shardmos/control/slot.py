"""Places for workers, and the processes in them."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from shardmos.control.rights import Rights, rights_of
from shardmos.control.stats import WorkerStats

RESTART_WINDOW = 60.0
_AT_ONCE = 3  # deaths within the window after which a worker is started again without a pause
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 10.0


@dataclass(eq=False, slots=True)
class Slot:
    """A place for a worker; the process in it may change."""

    index: int
    core: int
    fds: dict[str, int]
    stats: WorkerStats
    ring_fd: int | None = None
    state: str = "starting"  # starting, ready, running, resting, ended, failed, dead
    rests: str = ""  # its next worker runs without modules at first, and its port is "open" or "closed"
    rest: float = 0.0  # seconds of that
    awake: asyncio.Event = field(default_factory=asyncio.Event)  # set to end it
    process: subprocess.Popen[bytes] | None = None
    liveness: socket.socket | None = None
    identity: bytes = b""
    restarts: int = 0
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=32))
    message: str = ""
    sent: dict[str, int] = field(default_factory=dict)
    sent_before: dict[str, int] = field(default_factory=dict)
    pending: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        return self.state in ("running", "ended")

    @property
    def answers(self) -> bool:
        return self.alive or self.state == "resting"

    def rights(self) -> Rights | None:
        """What its process may; None while there is none."""
        return rights_of(self.process.pid) if self.process is not None and self.process.returncode is None else None

    def pause(self) -> float:
        """Seconds to wait before the next start, of a worker that died just now: more after each of many deaths."""
        now = time.monotonic()
        recent = sum(now - death < RESTART_WINDOW for death in self.deaths)
        self.deaths.append(now)
        return 0.0 if recent < _AT_ONCE else min(_FIRST_PAUSE * 2 ** (recent - _AT_ONCE), _LONGEST_PAUSE)

    def queues(self) -> dict[str, int]:
        """What it sent and lost on the way to the coordinator, over all its lives."""
        return {key: self.sent.get(key, 0) + self.sent_before.get(key, 0) for key in {**self.sent, **self.sent_before}}


@dataclass(eq=False, slots=True)
class Spare:
    """A process that may become a worker; then `slot` says which."""

    process: subprocess.Popen[bytes]
    line: socket.socket
    slot: Slot | None = None
