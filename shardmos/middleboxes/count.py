"""Accounting: flows and bytes per server port, in both directions, published now and then."""

from shardmos import BOTH, CONN_END, CONN_START, NEW_DATA, SERVER, LiveFlow, Middlebox, on, param


class Count(Middlebox):
    """`ports` has [flows, bytes from clients, bytes from servers] for each server port."""

    name = "count"
    every = param(1000, help="publish the table after so many flows that end; 0 never")
    limit = param(1024, help="ports that are told apart; further ones are counted as port 0")

    def __init__(self, **params: object) -> None:
        super().__init__(**params)
        self.ports: dict[int, list[int]] = {}
        self.ended = 0

    def _row(self, flow: LiveFlow) -> list[int]:
        if flow.state.owner is not self:  # its first event here: the flow may be older than this version
            port = flow.server_port
            if port not in self.ports and len(self.ports) >= self.limit:
                port = 0
            row = self.ports.setdefault(port, [0, 0, 0])
            row[0] += 1
            flow.state.owner, flow.state.row = self, row
        return flow.state.row  # type: ignore[no-any-return]

    @on(CONN_START)
    def start(self, flow: LiveFlow) -> None:
        self._row(flow)

    @on(NEW_DATA, side=BOTH)
    def data(self, flow: LiveFlow, data: memoryview) -> None:
        self._row(flow)[1 if flow.side == SERVER else 2] += len(data)

    @on(CONN_END)
    def end(self, flow: LiveFlow) -> None:
        self.ended += 1
        if self.every and self.ended % self.every == 0:
            table = [
                {"port": port, "flows": row[0], "from_clients": row[1], "from_servers": row[2]}
                for port, row in self.ports.items()
            ]
            self.emit("ports", table)
