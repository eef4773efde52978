"""A log of HTTP/1.x: each request with its response, over the reassembled streams, on any port.

    shardmos push httplog                        then: shardmos events module.httplog.exchange
    shardmos run -r trace.pcap -m httplog --events

Pipelining, keep-alive, chunked bodies, HEAD and 1xx are the parser's business (h11: pip install 'shardmos[http]').
A connection whose first bytes are no request is left alone; one that loses bytes, or changes to another protocol, is
logged up to there.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from shardmos import CONN_END, GAP, NEW_DATA, SERVER, LiveFlow, Middlebox, ModuleError, on, param

try:
    import h11
except ImportError:
    raise ModuleError("httplog: the HTTP parser is missing: pip install 'shardmos[http]'") from None

REQUEST = re.compile(rb"[A-Z]{3,20} \S+ HTTP/1\.[01]\r?\n")
START = re.compile(rb"[A-Z]{1,20}( \S*)?\Z|[A-Z]{3,20} \S+ ")
SHOWN = (b"host", b"user-agent", b"referer", b"content-type")
MAX_HEAD = 65536


class Connection:
    """Both directions of one connection: a parser for each, and the requests that wait for their responses."""

    def __init__(self) -> None:
        self.requests = parser(h11.SERVER)
        self.responses = parser(h11.CLIENT)
        self.switched = False
        self.waiting: deque[dict[str, Any]] = deque()
        self.begun: dict[str, Any] | None = None  # the request whose response is being read
        self.current: dict[str, Any] | None = None  # the request that is being read

    def client_sent(self, data: bytes, time_ns: int) -> None:
        if self.requests.their_state is h11.IDLE and not self.requests.trailing_data[0]:
            data = data.lstrip(b"\r\n")  # empty lines before a request: RFC 9112 2.2
        if not data:
            return
        self.requests.receive_data(data)
        self._read_requests(time_ns)
        if len(self.requests.trailing_data[0]) > MAX_HEAD:
            raise h11.RemoteProtocolError("too much waits for an answer")

    def _read_requests(self, time_ns: int) -> None:
        while True:
            event = self.requests.next_event()
            if isinstance(event, h11.Request):
                self.current = {
                    "time_ns": time_ns,
                    "method": event.method.decode("latin-1"),
                    "target": event.target.decode("latin-1"),
                    "version": event.http_version.decode("latin-1"),
                    "request_bytes": 0,
                    **shown("request", event.headers),
                    "_connection": [pair for pair in event.headers if pair[0] in (b"connection", b"upgrade")],
                }
                self.waiting.append(self.current)
            elif isinstance(event, h11.Data) and self.current is not None:
                self.current["request_bytes"] += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                if not self._next_request():
                    return
            else:
                return

    def _next_request(self) -> bool:
        """Answers for the server, as it were: h11 follows one exchange at a time."""
        if self.requests.our_state is not h11.SEND_RESPONSE:
            return False
        if self.current is not None and self.current["method"] == "CONNECT":
            return False  # what comes next, its answer tells
        return self._answer(200)

    def _answer(self, status: int) -> bool:
        self.requests.send(h11.Response(status_code=status, headers=[("content-length", "0")]))
        self.requests.send(h11.EndOfMessage())
        self.requests, more = next_cycle(self.requests)
        return more

    def server_sent(self, data: bytes, time_ns: int) -> list[dict[str, Any]]:
        """The exchanges that are complete now."""
        self.responses.receive_data(data)
        done: list[dict[str, Any]] = []
        while self._asked():
            event = self.responses.next_event()
            exchange = self.begun
            assert exchange is not None
            if isinstance(event, h11.Response):
                exchange.update(
                    status=event.status_code,
                    reason=event.reason.decode("latin-1"),
                    response_bytes=0,
                    took_ms=round((time_ns - exchange["time_ns"]) / 1e6, 3),
                    **shown("response", event.headers),
                )
                if exchange["method"] == "CONNECT":
                    if 200 <= event.status_code < 300:
                        return [*done, self._switch()]
                    if self._answer(event.status_code):
                        self._read_requests(time_ns)
            elif isinstance(event, h11.Data):
                exchange["response_bytes"] += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                done.append(exchange)
                self.begun = None
                self.responses, more = next_cycle(self.responses)
                if not more:
                    break
            elif not isinstance(event, h11.InformationalResponse):
                break
            elif event.status_code == 101:
                exchange.update(status=101, response_bytes=0, **shown("response", event.headers))
                return [*done, self._switch()]
        return done

    def _switch(self) -> dict[str, Any]:
        """From here on it is another protocol, or a tunnel's."""
        assert self.begun is not None
        exchange, self.begun, self.switched = self.begun, None, True
        self.waiting.clear()  # what followed was no HTTP
        return exchange

    def _asked(self) -> bool:
        """The parser of responses knows the request that the next one is for."""
        if self.begun is not None:
            return True
        if not self.waiting or self.responses.our_state is not h11.IDLE:
            return False
        self.begun = self.waiting.popleft()
        headers = [("host", "x"), *self.begun["_connection"]]
        self.responses.send(h11.Request(method=self.begun["method"], target=self.begun["target"], headers=headers))
        self.responses.send(h11.EndOfMessage())
        return True

    def server_closed(self) -> list[dict[str, Any]]:
        """A body without a length ends with the connection."""
        if self.begun is None or "status" not in self.begun:
            return []
        return self.server_sent(b"", self.begun["time_ns"])


def parser(role: Any, data: bytes = b"") -> Any:
    made = h11.Connection(role, max_incomplete_event_size=MAX_HEAD)
    if data:
        made.receive_data(data)
    return made


def next_cycle(done: Any) -> tuple[Any, bool]:
    """The parser for the next exchange; False if there is none."""
    states = {done.our_state, done.their_state}
    if states == {h11.DONE}:
        done.start_next_cycle()
        return done, True
    if states <= {
        h11.DONE,
        h11.MUST_CLOSE,
    }:  # of HTTP/1.0, whose keep-alive h11 does not know; who closes sends no more
        return parser(done.our_role, done.trailing_data[0]), True
    return done, False


def shown(whose: str, headers: Any) -> dict[str, str]:
    found = {}
    for name, value in headers:
        if name in SHOWN:
            key = name.decode().replace("-", "_")
            found[key if name != b"content-type" else f"{whose}_type"] = value.decode("latin-1")
    return found


class HttpLog(Middlebox):
    """Publishes `exchange` for each request, with its response where there was one."""

    name = "httplog"
    filter = "tcp"
    keep = param(0, help="exchanges that are kept for the summary of a run, besides being published")

    def __init__(self, **params: object) -> None:
        super().__init__(**params)
        self.exchanges = self.unanswered = self.not_http = self.broken = 0
        self.kept: list[dict[str, Any]] = []

    @on(NEW_DATA, side=SERVER)
    def request(self, flow: LiveFlow, data: memoryview) -> None:
        state = flow.state
        if not state.connection:
            if not self._begin(flow, data):
                return
        else:
            self._parse(flow, bytes(data))

    def _begin(self, flow: LiveFlow, data: memoryview) -> bool:
        """Is it HTTP? Told by the first line; until it is whole its bytes wait."""
        state = flow.state
        head = ((state.head or b"") + bytes(data[:MAX_HEAD])).lstrip(b"\r\n")
        if not head:
            return False
        if REQUEST.match(head):
            state.connection, state.head = Connection(), None
            self._parse(flow, head)
            return True
        if not START.match(head) or len(head) >= MAX_HEAD or b"\n" in head:
            self.not_http += 1
            flow.stop()
        state.head = head
        return False

    def _parse(self, flow: LiveFlow, data: bytes) -> None:
        try:
            flow.state.connection.client_sent(data, flow.time_ns)
        except h11.ProtocolError:
            self._give_up(flow)

    @on(NEW_DATA, side=0)
    def response(self, flow: LiveFlow, data: memoryview) -> None:
        connection = flow.state.connection
        if not connection:
            return
        try:
            self._log(flow, connection.server_sent(bytes(data), flow.time_ns))
        except h11.ProtocolError:
            self._give_up(flow)
            return
        if connection.switched:
            flow.state.connection = None
            flow.stop()

    @on(GAP)
    def gap(self, flow: LiveFlow) -> None:
        if flow.state.connection:
            self._give_up(flow)
        else:
            flow.stop()

    @on(CONN_END)
    def end(self, flow: LiveFlow) -> None:
        connection = flow.state.connection
        if not connection:
            return
        try:
            self._log(flow, connection.server_closed())
        except h11.ProtocolError:
            self.broken += 1
        self._log(flow, [*([connection.begun] if connection.begun else []), *connection.waiting])
        flow.state.connection = None

    def _give_up(self, flow: LiveFlow) -> None:
        self.broken += 1
        connection = flow.state.connection
        self._log(flow, [*([connection.begun] if connection.begun else []), *connection.waiting])
        flow.state.connection = None
        flow.stop()

    def _log(self, flow: LiveFlow, exchanges: list[dict[str, Any]]) -> None:
        for exchange in exchanges:
            self.exchanges += 1
            self.unanswered += "status" not in exchange
            row = {key: value for key, value in exchange.items() if key[0] != "_"}
            row.update(client=flow.client_endpoint, server=flow.server_endpoint)
            self.emit("exchange", row)
            if len(self.kept) < self.keep:
                self.kept.append(row)
