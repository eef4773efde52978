"""The mOS programming model in Python: sockets over a capture, registrations, user-defined events, streams, timers."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from traffic import ACK, CLIENT, PSH, SERVER, SYN, conversations, tcp_frame, write_pcap

import shardmos as sm
from shardmos.errors import ModuleError
from shardmos.run import execute

REQUEST, RESPONSE = b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nhello"


def segments(*texts: bytes, out_of_order: bool = False) -> list[bytes]:
    """A handshake, then these segments of the client."""
    frames = [
        tcp_frame(CLIENT, SERVER, 1000, 0, SYN),
        tcp_frame(SERVER, CLIENT, 9000, 1001, SYN | ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK),
    ]
    at, made = 1001, []
    for text in texts:
        made.append(tcp_frame(CLIENT, SERVER, at, 9001, PSH | ACK, text))
        at += len(text)
    return frames + (made[::-1] if out_of_order else made)


def test_a_socket_watches_what_its_filter_matches(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "two.pcap", conversations(2))
    told: list[str] = []
    with sm.Context(path) as ctx:
        sock = ctx.socket(sm.MONITOR_STREAM)
        sock.bind("tcp port 80")
        other = ctx.socket()
        other.bind("udp")
        sock.register(sm.CONN_START, lambda flow, packet: told.append(f"start {packet.flags}"), hook=sm.SENDER)
        sock.register(sm.NEW_DATA, lambda flow, data: told.append(bytes(data).decode()[:3]), side=sm.SERVER)
        sock.register(sm.CONN_END, lambda flow, reason: told.append(reason))
        other.register(sm.CONN_START, lambda flow: told.append("never"))
        result = ctx.run()
    assert sorted(told) == ["GET", "GET", "fin", "fin", "start S", "start S"]
    assert result.error_count == 0 and result.counters["flows_made"] == 2


def test_sockets_are_called_in_chain_order(capture: Path) -> None:
    told: list[str] = []
    with sm.Context(capture) as ctx:
        for name in "abc":
            sock = ctx.socket()
            sock.register(sm.PKT_IN, lambda flow, packet, name=name: told.append(name), hook=sm.SENDER)
        ctx.run()
    assert told[:6] == ["a", "b", "c", "c", "b", "a"]  # SYN, then SYN/ACK


def test_a_context_runs_once_and_closes(capture: Path) -> None:
    with sm.Context(capture) as ctx:
        ctx.run()
        with pytest.raises(ModuleError, match="was run already"):
            ctx.run()
    with pytest.raises(ModuleError, match="closed"):
        ctx.socket()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s: s.bind("tcp port nonsense"), "bind: bad filter"),
        (lambda s: s.register(99, print), "99"),
        (lambda s: s.register(sm.NEW_DATA, print, hook=sm.SENDER), "has no hook"),
        (lambda s: s.register(sm.NEW_DATA, None), "cannot be called"),
        (lambda s: s.register(sm.NEW_DATA, lambda: None), r"takes \(flow\) or \(flow, data\)"),
        (lambda s: s.unregister(sm.NEW_DATA), "unregister_handler: No such file"),
        (lambda s: s.set(overlap="nobody"), "choose one of first"),
        (lambda s: s.set(history=-1), "whole number"),
        (lambda s: s.set(history=1, side=9), "a side is CLIENT, SERVER or BOTH, not 9"),
        (lambda s: s.set(frames=1), "True or False"),
        (lambda s: s.set(datagrams=1), "True or False"),
        (lambda s: s.bind(80), "filter: 80 is no text"),
        (lambda s: s.bind("", orphans=80), "filter: 80 is no text"),
        (lambda s: (s.close(), s.register(sm.GAP, print)), "no such socket"),
    ],
)
def test_what_a_socket_refuses_is_one_line(capture: Path, wrong: Any, message: str) -> None:
    with sm.Context(capture) as ctx, pytest.raises(ModuleError, match=message) as error:
        wrong(ctx.socket())
    assert "\n" not in str(error.value)


def test_registering_on_one_flow(tmp_path: Path) -> None:
    class Once(sm.Middlebox):
        def __init__(self) -> None:
            super().__init__()
            self.told: list[Any] = []

        @sm.on(sm.NEW_DATA, side=sm.SERVER)
        def first(self, flow: sm.LiveFlow, data: memoryview) -> None:
            self.told.append(("first", flow.offset))
            if flow.offset == 0:
                flow.register(sm.NEW_DATA, self.more, side=sm.SERVER)
            if flow.offset == 4:
                flow.unregister(sm.NEW_DATA, self.first)

        def more(self, flow: sm.LiveFlow, data: memoryview) -> None:
            self.told.append(("more", flow.offset))

    path = write_pcap(tmp_path / "x.pcap", segments(b"ab", b"cd", b"ef", b"gh"))
    told = sm.run(path, Once())["told"]
    assert told == [("first", 0), ("first", 2), ("more", 2), ("first", 4), ("more", 4), ("more", 6)]


LONG = sm.event(sm.NEW_DATA, lambda flow, data: len(data) >= 3)
LONGER = sm.event(LONG, lambda flow, data: len(data) >= 5)


class Events(sm.Middlebox):
    least = sm.param(4)

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.told: list[str] = []
        self.asked = 0

    @sm.event(sm.NEW_DATA)
    def enough(self, flow: sm.LiveFlow, data: memoryview) -> bool:
        self.asked += 1
        return len(data) >= self.least

    @sm.on(enough, side=sm.SERVER)
    def on_enough(self, flow: sm.LiveFlow, data: memoryview) -> None:
        self.told.append(f"enough {len(data)}")

    @sm.on(enough, side=sm.SERVER)
    def on_enough_too(self, flow: sm.LiveFlow) -> None:
        self.told.append("too")

    @sm.on(LONGER)
    def on_longer(self, flow: sm.LiveFlow, data: memoryview) -> None:
        self.told.append(f"longer {bytes(data)!r}")


def test_user_defined_events(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "x.pcap", segments(b"ab", b"abcd", b"abcdef"))
    told = sm.run(path, Events())
    assert sorted(told["told"]) == ["enough 4", "enough 6", "longer b'abcdef'", "too", "too"]
    assert told["asked"] == 3
    assert sm.run(path, Events(least=6))["told"].count("enough 6") == 1


def test_an_event_with_several_outcomes(tmp_path: Path) -> None:
    told: list[str] = []

    def classify(flow: sm.LiveFlow, data: memoryview) -> bool:
        for letter, each in outcomes.items():
            if letter in bytes(data):
                flow.raise_event(each)
        return True

    kind = sm.event(sm.NEW_DATA, classify)
    outcomes = {b"a": sm.outcome(kind), b"b": sm.outcome(kind)}
    with sm.Context(write_pcap(tmp_path / "x.pcap", segments(b"a1", b"b2", b"ab", b"c"))) as ctx:
        sock = ctx.socket()
        sock.register(outcomes[b"a"], lambda flow, data: told.append("A" + bytes(data).decode()))
        sock.register(outcomes[b"b"], lambda flow, data: told.append("B" + bytes(data).decode()))
        assert ctx.run().error_count == 0
    assert told == ["Aa1", "Bb2", "Aab", "Bab"]
    with pytest.raises(ModuleError, match="no user-defined event with a filter"):
        sm.outcome(outcomes[b"a"])


def test_reading_streams_by_cursor_and_place(tmp_path: Path) -> None:
    read: list[Any] = []

    def packet(flow: sm.LiveFlow, packet: sm.Packet) -> None:
        if packet.payload_len:
            read.append((flow.peek(sm.SERVER), flow.buffered(sm.SERVER), flow.peek_at(sm.SERVER, 3, 2)))
            assert flow.peek(sm.SERVER) == (b"", 0)
            assert flow.buffer_info(sm.SERVER).init_seq == 1001

    with sm.Context(write_pcap(tmp_path / "x.pcap", segments(b"abc", b"def", out_of_order=True))) as ctx:
        sock = ctx.socket()
        sock.set(history=100, side=sm.SERVER)
        sock.register(sm.PKT_IN, packet, hook=sm.RECEIVER, side=sm.SERVER)
        assert ctx.run().error_count == 0
    assert read == [((b"", 0), [(3, 6)], b"de"), ((b"abcdef", 0), [(0, 6)], b"de")]


def test_unread_bytes_that_were_given_up_are_counted(tmp_path: Path) -> None:
    told: list[Any] = []

    class Slow(sm.Middlebox):
        def on_start(self) -> None:
            self.own_socket.set(history=4, side=sm.SERVER)

        @sm.on(sm.ERROR)
        def error(self, flow: sm.LiveFlow, what: str) -> None:
            told.append((what, flow.offset))

        @sm.on(sm.CONN_END)
        def end(self, flow: sm.LiveFlow) -> None:
            told.append(tuple(flow.peek(sm.SERVER)))

    sm.run(write_pcap(tmp_path / "x.pcap", segments(b"abc", b"def")), Slow())
    assert told == [("unread", 0), (b"cdef", 2)]


def test_timers_on_packet_time(tmp_path: Path) -> None:
    told: list[Any] = []

    class Clock(sm.Middlebox):
        def on_start(self) -> None:
            self.ticks = self.timer(0.0, self.tick, period=0.0025)

        def tick(self) -> None:
            told.append("tick")
            if told.count("tick") == 2:
                assert self.ticks.cancel()

        @sm.on(sm.CONN_START)
        def start(self, flow: sm.LiveFlow) -> None:
            flow.timer(0.002, self.later)
            cancelled = flow.timer(0.001, self.never)
            assert cancelled.cancel() and not cancelled.cancel()

        def later(self, flow: sm.LiveFlow) -> None:
            told.append(flow.client)

        def never(self, flow: sm.LiveFlow) -> None:
            told.append("never")

    result = execute(write_pcap(tmp_path / "x.pcap", segments(b"a", b"b", b"c", b"d")), [Clock()])
    assert told.count("tick") == 2 and told.count(CLIENT[0]) == 1 and "never" not in told
    assert result.error_count == 0


def test_timers_of_one_time_ring_as_they_were_set(tmp_path: Path) -> None:
    told: list[int] = []
    with sm.Context(write_pcap(tmp_path / "x.pcap", segments(b"a", b"b"))) as ctx:
        timers = [ctx.timer(0.001 * (n % 3), lambda n=n: told.append(n)) for n in range(300)]  # type: ignore[misc]
        ctx.timer(0.0, lambda: [timer.cancel() for timer in timers[::7]])
        ctx.run()
    first = [n for n in range(300) if n % 3 == 0]  # due before the one that cancels
    assert told == first + [n for late in (1, 2) for n in range(300) if n % 3 == late and n % 7]


def test_more_at_once_than_is_kept_is_told(tmp_path: Path) -> None:
    """Nothing waits to be read when six bytes come where four are kept: the first two are lost all the same."""
    told: list[Any] = []
    with sm.Context(write_pcap(tmp_path / "x.pcap", segments(b"ab", b"cdefgh", b"i"))) as ctx:
        socket = ctx.socket()
        socket.set(history=4)
        socket.register(sm.ERROR, lambda flow, what: told.append((what, flow.offset, flow.length)))
        socket.register(sm.NEW_DATA, lambda flow: told.append(tuple(flow.peek(sm.SERVER))))
        ctx.run()
    assert told == [(b"ab", 0), ("unread", 2, 2), (b"efgh", 2), (b"i", 0)]


def test_less_history_gives_bytes_back(tmp_path: Path) -> None:
    told: list[Any] = []

    def keep(flow: sm.LiveFlow) -> None:
        if flow.peek_at(sm.SERVER, 0):
            for most in (3, 0, 9):
                flow.set(history=most)
                told.append(flow.buffered(sm.SERVER))

    with sm.Context(write_pcap(tmp_path / "x.pcap", segments(b"abcdef"))) as ctx:
        socket = ctx.socket()
        socket.set(history=100)
        socket.register(sm.PKT_IN, keep, hook=sm.RECEIVER)
        ctx.run()
    assert told == [[(3, 6)], [], []]


def test_raw_sockets_get_packets(capture: Path) -> None:
    numbers: list[int] = []
    with sm.Context(capture) as ctx:
        sock = ctx.socket(sm.MONITOR_RAW)
        sock.bind("tcp[tcpflags] & tcp-syn != 0")
        sock.register(sm.PKT_IN, lambda flow, packet: numbers.append(packet.number))
        ctx.run()
    assert numbers == [1, 2]


def test_data_after_its_call_raises_and_slices_are_told(capture: Path) -> None:
    kept: list[memoryview] = []

    class Keeper(sm.Middlebox):
        @sm.on(sm.NEW_DATA)
        def keep(self, flow: sm.LiveFlow, data: memoryview) -> None:
            kept.append(data)

        @sm.on(sm.CONN_SETUP)
        def keep_slice(self, flow: sm.LiveFlow, packet: sm.Packet) -> None:
            kept.append(packet.frame[2:8])

    class Slicer(sm.Middlebox):
        @sm.on(sm.NEW_DATA)
        def keep_part(self, flow: sm.LiveFlow, data: memoryview) -> None:
            kept.append(data[1:3])

    result = execute(capture, [Keeper(), Slicer()])
    with pytest.raises(ValueError, match="released"):
        bytes(kept[1])
    assert result.error_count >= 3
    assert any("Slicer.keep_part kept a part of `data` beyond its call" in text for text in result.errors)
    gc.collect()
    for each in kept:  # wrong bytes at worst, never a crash
        try:
            bytes(each)
        except ValueError as error:
            assert "released" in str(error)


def test_a_callback_that_closes_its_socket(capture: Path) -> None:
    told: list[str] = []
    with sm.Context(capture) as ctx:
        sock = ctx.socket()

        def once(flow: sm.LiveFlow) -> None:
            told.append("once")
            sock.close()

        sock.register(sm.PKT_IN, once)
        sock.register(sm.PKT_IN, lambda flow: told.append("after"))
        assert ctx.run().error_count == 0
    assert told == ["once"]


def test_the_flow_objects_are_let_go(tmp_path: Path) -> None:
    class Each(sm.Middlebox):
        @sm.on(sm.CONN_START)
        def start(self, flow: sm.LiveFlow) -> None:
            flow.state.seen = 1

        @sm.on(sm.CONN_END)
        def end(self, flow: sm.LiveFlow) -> None:
            flow.state.seen = 2

        def summary(self) -> int:
            return len(self._host.main.flows) if self._host else -1

    assert sm.run(write_pcap(tmp_path / "many.pcap", conversations(50)), Each()) == 0
