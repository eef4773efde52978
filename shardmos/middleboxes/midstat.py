"""netstat for a middlebox: the connections that pass, and the TCP state of both ends, published every second.

shardmos push midstat --set every=2          then: shardmos events module.midstat.connections
shardmos run -r trace.pcap -m midstat        the table as it is when the capture ends
"""

from __future__ import annotations

from shardmos import CLIENT, CONN_END, CONN_START, TCP_STATE_CHANGE, LiveFlow, Middlebox, TcpState, on, param

Row = dict[str, object]


class MidStat(Middlebox):
    """`table` has a row for each open connection. It costs an event for each change of a state, none per packet."""

    name = "midstat"
    every = param(1.0, help="seconds of packet time between two tables; 0 never")
    limit = param(1000, help="rows of a published table; more are counted")

    def __init__(self, **params: object) -> None:
        super().__init__(**params)
        self.table: dict[int, Row] = {}
        self.opened = self.closed = 0

    def on_start(self) -> None:
        if self.every > 0:
            self.timer(self.every, self.publish, period=self.every)

    def publish(self) -> None:
        rows = list(self.table.values())
        self.emit("connections", {"open": len(rows), "rows": rows[: self.limit]})

    def row(self, flow: LiveFlow) -> Row:
        row = self.table.get(flow.handle)
        if row is None:  # new, or older than this middlebox
            info = flow.info
            row = self.table[flow.handle] = {
                "proto": info.proto,
                "client": info.client_endpoint,
                "server": info.server_endpoint,
                "states": list(info.tcp_state) if info.proto == "tcp" else ["", ""],
            }
            self.opened += 1
        return row

    @on(CONN_START)
    def started(self, flow: LiveFlow) -> None:
        self.row(flow)

    @on(TCP_STATE_CHANGE)
    def changed(self, flow: LiveFlow, state: TcpState) -> None:
        states = self.row(flow)["states"]
        assert isinstance(states, list)
        states[0 if flow.side == CLIENT else 1] = state.name

    @on(CONN_END)
    def ended(self, flow: LiveFlow) -> None:
        self.closed += self.table.pop(flow.handle, None) is not None

    def summary(self) -> dict[str, object]:
        return {"opened": self.opened, "closed": self.closed, "open": list(self.table.values())[: self.limit]}
