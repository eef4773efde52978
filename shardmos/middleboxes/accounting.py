"""Bytes per subscriber, with retransmitted bytes told apart, so that they can be charged or not.

    shardmos push accounting --set subscribers=10.0.0.0/8 --set charge_retransmissions=false

A subscriber is an address of `subscribers`, whichever end opens the flow; without it, the client. The engine counts
anyway, so nothing is called per packet: a flow's counters are read when it ends and every few seconds, and only
retransmissions cost an event each.
"""

from __future__ import annotations

import ipaddress

from shardmos import CONN_END, CONN_START, REXMIT, SENDER, Flow, LiveFlow, Middlebox, ModuleError, Packet, on, param

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
FIELDS = ("flows", "up", "down", "up_again", "down_again", "charged")


class Accounting(Middlebox):
    """`accounts` has for each subscriber: flows, bytes on the wire up and down, payload sent again, bytes charged."""

    name = "accounting"
    subscribers = param("", help="networks of the subscribers, separated by commas; empty: every client is one")
    charge_retransmissions = param(False, help="charge payload that was sent before, too")
    every = param(10.0, help="seconds of packet time between two readings of long flows, and publications; 0 never")

    class State:
        """What was booked of a flow, and the payload bytes that each end (client first) sent again."""

        __slots__ = ("again", "booked", "known")

        def __init__(self) -> None:
            self.booked = [0, 0, 0, 0]
            self.again = [0, 0]
            self.known = False

    def __init__(self, **params: object) -> None:
        super().__init__(**params)
        try:
            self._networks: list[Network] = [
                ipaddress.ip_network(text.strip()) for text in self.subscribers.split(",") if text.strip()
            ]
        except ValueError as error:
            raise ModuleError(f"accounting: subscribers: {error}") from None
        self.accounts: dict[str, dict[str, int]] = {}
        self._open: dict[int, LiveFlow] = {}

    def on_start(self) -> None:
        if self.every > 0:
            self.timer(self.every, self.read_long_flows, period=self.every)

    @on(CONN_START)
    def started(self, flow: LiveFlow) -> None:
        self._open[flow.handle] = flow

    @on(REXMIT, hook=SENDER)
    def again(self, flow: LiveFlow, packet: Packet) -> None:
        flow.state.again[int(packet.sender)] += packet.payload_len

    @on(CONN_END)
    def ended(self, flow: LiveFlow) -> None:
        self._open.pop(flow.handle, None)
        self.book(flow)

    def read_long_flows(self) -> None:
        for flow in self._open.values():
            self.book(flow)
        self.emit("accounts", [{"subscriber": name, **account} for name, account in self.accounts.items()])

    def book(self, flow: LiveFlow) -> None:
        """Adds what the flow brought since it was last read."""
        info, state = flow.info, flow.state
        own = self.side_of(info)
        if own is None:
            return
        name = info.client if own == 0 else info.server
        account = self.accounts.setdefault(name, dict.fromkeys(FIELDS, 0))
        account["flows"] += not state.known
        state.known = True
        now = [info.wire_bytes[own], info.wire_bytes[1 - own], state.again[own], state.again[1 - own]]
        new = [after - before for after, before in zip(now, state.booked, strict=True)]
        state.booked = now
        for field, value in zip(FIELDS[1:5], new, strict=True):
            account[field] += value
        account["charged"] += new[0] + new[1] - (0 if self.charge_retransmissions else new[2] + new[3])

    def side_of(self, info: Flow) -> int | None:
        """Which end is the subscriber: 0 the client, 1 the server; None neither."""
        if not self._networks:
            return 0
        for side, address in enumerate((info.client, info.server)):
            if any(ipaddress.ip_address(address) in network for network in self._networks):
                return side
        return None

    def summary(self) -> dict[str, dict[str, int]]:
        return self.accounts
