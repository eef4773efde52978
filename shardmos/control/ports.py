"""Live ports of a coordinator: opened here by driver, handed to workers as descriptors. The place that knows drivers.

A driver is a function (names, workers, owner_seed, options) -> LivePort; ShardmosError with one line where it cannot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from shardmos.config import Settings
from shardmos.control import af_packet, af_xdp, interface
from shardmos.control.away import AwayPort
from shardmos.control.interface import Interface
from shardmos.errors import ShardmosError

log = logging.getLogger("shardmos")


class LivePort(Protocol):
    """What a driver opened: one passive interface, or a pair, for all workers."""

    driver: str
    names: list[str]
    interfaces: list[Interface]

    @property
    def mode(self) -> str:
        """How, in a few words."""

    def fds(self, worker: int) -> list[int]:
        """Descriptors that the worker inherits; their numbers are the same in both processes."""

    def spec(self, worker: int) -> dict[str, Any]:
        """What the worker's `Shard` opens it from; has "driver"."""

    def counters(self) -> list[dict[str, int]]:
        """Per worker, over the port's life: "received" (all that the kernel had for it) and, of those, "dropped"."""

    def details(self) -> dict[str, int]:
        """What the driver's kernel side counts, by name."""

    def stale(self) -> bool:
        """It must be opened again: its interface is another one now."""

    def close(self) -> None: ...


Opener = Callable[[list[str], int, int, dict[str, Any]], LivePort]
DRIVERS: dict[str, Opener] = {"af_xdp": af_xdp.open_port, "af_packet": af_packet.open_port}
BEST_FIRST = ("af_xdp", "af_packet")  # what auto tries
_GONE = "is gone; waiting for an interface of that name"
_LOST_BEFORE = ("rx_errors", "rx_fifo_errors", "rx_missed_errors")


class Ports:
    """All live ports of a coordinator; empty where it replays captures."""

    def __init__(self, settings: Settings, workers: int, owner_seed: int) -> None:
        self._options, self._workers, self._seed = dict(settings["port"]), workers, owner_seed
        wanted = [[name] for name in self._options["interfaces"]]
        if self._options["pair"]:
            wanted.append(list(self._options["pair"]))
        self.ports: list[LivePort] = []
        self._why: dict[tuple[str, ...], str] = {}
        self._began: dict[str, dict[str, int]] = {}
        try:
            for names in wanted:
                self.ports.append(self._open(names))
        except ShardmosError:
            self.close()
            raise
        self._states = {name: interface.why_down(name) for name in self.names}
        self._backlog = interface.backlog()
        self._seen: dict[str, dict[str, int]] = {}
        self._past: list[list[dict[str, int]]] = []  # of ports that were opened again
        self._past_details: list[dict[str, int]] = []
        self._refused = ""
        self._counted: list[list[dict[str, int]]] = []

    def _open(self, names: list[str]) -> LivePort:
        chosen = self._options["driver"]
        refused = []
        for driver in BEST_FIRST if chosen == "auto" else (chosen,):
            try:
                port = DRIVERS[driver](names, self._workers, self._seed, self._options)
            except ShardmosError as error:
                if chosen != "auto" or driver == BEST_FIRST[-1]:
                    raise
                refused.append(f"{driver} not: {error}")
                continue
            for name in names:  # at once: what comes between is in our counters only, and would hide a loss of as many
                self._began.setdefault(name, interface.counters(name))
            why = "; ".join(refused) or ("as asked" if chosen != "auto" else "the best that works here")
            log.info("port %s: driver %s, %s (%s)", " and ".join(names), driver, port.mode, why)
            self._why[tuple(names)] = why
            for name in names:
                if why := interface.why_down(name):
                    log.warning("%s %s", name, why.format("no packets come before"))
            return port
        raise AssertionError

    @property
    def names(self) -> list[str]:
        return [name for port in self.ports for name in port.names]

    def fds(self, worker: int) -> list[int]:
        return [fd for port in self.ports for fd in port.fds(worker)]

    def spec(self, worker: int) -> list[dict[str, Any]]:
        return [port.spec(worker) for port in self.ports]

    def status(self) -> list[dict[str, Any]]:
        """Per port its driver and interfaces, with what their devices counted since the start."""
        return [
            {
                "driver": port.driver,
                "mode": port.mode,
                "why": self._why.get(tuple(port.names), ""),
                "interfaces": [
                    {
                        "name": name,
                        "up": interface.is_up(name),
                        "counters": {
                            key: value - self._began[name].get(key, 0)
                            for key, value in interface.counters(name).items()
                        },
                    }
                    for name in port.names
                ],
            }
            for port in self.ports
        ]

    def dropped(self, worker: int) -> int:
        """Packets for which a worker's rings had no room, at the last `ledger`."""
        return sum(counted[worker]["dropped"] for counted in self._counted)

    def ledger(self, counters: dict[str, int]) -> dict[str, int]:
        """Where packets were lost on the way to the workers, whose counters are given; since the start.

        devices_received = received + lost_backlog + lost_unattributed, where super packets are counted as what they
        were on the wire or as one, as the device does. received = what workers took + lost_ring + waiting.
        """
        if not self.ports:
            return {}
        self._counted = self._past + [port.counters() for port in self.ports]
        devices: dict[str, int] = {}
        for name in self.names:
            self._seen[name] = interface.counters(name) or self._seen.get(name, {})
            for key, value in self._seen[name].items():
                devices[key] = devices.get(key, 0) + value - self._began[name].get(key, 0)
        backlog = {key: value - self._backlog[key] for key, value in interface.backlog().items()}
        received = sum(each["received"] for counted in self._counted for each in counted)
        lost_ring = sum(each["dropped"] for counted in self._counted for each in counted)
        incoming = received - counters.get("port_outgoing", 0)
        seen = incoming + counters.get("port_segments", 0) + backlog["backlog_dropped"]
        return {
            "devices_received": devices.get("rx_packets", 0),
            "devices_sent": devices.get("tx_packets", 0),
            # Not lost to us: Linux counts here too what the host had no use for after we had received it.
            "devices_dropped": devices.get("rx_dropped", 0),
            **{f"lost_device_{key[3:]}": value for key, value in devices.items() if key in _LOST_BEFORE},
            "lost_transmit_device": devices.get("tx_dropped", 0) + devices.get("tx_errors", 0),
            "lost_backlog": backlog["backlog_dropped"],
            "backlog_squeezed": backlog["backlog_squeezed"],
            "received": received,
            "lost_ring": lost_ring,
            "waiting_now": max(0, received - lost_ring - counters.get("port_packets", 0)),
            **self._details(),
            "lost_unattributed": max(0, devices.get("rx_packets", 0) - seen),
        }

    def look(self) -> None:
        """Says in the log which interfaces went, came, or changed between up and down since the last look."""
        for name in self.names:
            state = interface.why_down(name) if interface.index_of(name) else _GONE
            before, self._states[name] = self._states.get(name, state), state
            if state == before:
                continue
            if not state:
                log.info("%s is up again", name)
            else:
                log.warning("%s %s", name, state.format("nothing comes or goes through it"))

    def _details(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for details in (*self._past_details, *(port.details() for port in self.ports)):
            for name, value in details.items():
                total[name] = total.get(name, 0) + value
        return total

    def reopen(self) -> list[int]:
        """Closes what went, opens again what came back; the places of those ports. What cannot be opened yet is tried
        at the next call."""
        changed = []
        for place, port in enumerate(self.ports):
            if not port.stale():
                continue
            if port.driver != "away":
                self._put_away(place, port)
                changed.append(place)
                if port.driver == "af_xdp":  # its queues are taken until the workers have let go of them
                    continue
            try:
                self.ports[place] = self._open(port.names)
            except ShardmosError as error:
                if str(error) != self._refused:
                    log.warning("%s", error)
                self._refused = str(error)
                continue
            if place not in changed:
                changed.append(place)
        return changed

    def _put_away(self, place: int, port: LivePort) -> None:
        self._past.append(port.counters())
        self._past_details.append(port.details())
        for each in port.interfaces:
            if interface.index_of(each.name) != each.index:  # the counters of its successor begin anew
                self._gone_counters(each.name)
        port.close()
        self.ports[place] = AwayPort(port.names, self._workers)

    def _gone_counters(self, name: str) -> None:
        """What the interface had counted when it went is lost; from here on it adds to what was seen of it last."""
        last = self._seen.get(name, {})
        self._began[name] = {key: self._began[name].get(key, 0) - value for key, value in last.items()}

    def close(self) -> None:
        for port in self.ports:
            port.close()
