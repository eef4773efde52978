"""The defects of mOS's programming model, one test each: what a right one does (the engine's: test_mos_faults.py)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from traffic import ACK, FIN, PSH, SYN, conversation, conversations, ip_frame, tcp_frame, write_pcap

import shardmos as sm
from shardmos.errors import ModuleError
from shardmos.workers.binding import ffi

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)


def segments(*places: tuple[int, bytes]) -> list[bytes]:
    """A handshake, then segments of the client at these places of its stream."""
    opening = [
        tcp_frame(CLIENT, SERVER, 1000, 0, SYN),
        tcp_frame(SERVER, CLIENT, 9000, 1001, SYN | ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK),
    ]
    return opening + [tcp_frame(CLIENT, SERVER, 1001 + at, 9001, PSH | ACK, data) for at, data in places]


def udp(source: str, destination: str, port: int) -> bytes:
    return ip_frame(source, destination, 17, struct.pack("!HHHH", 4000, port, 12, 0) + b"data")


def test_fault_03_peeking_when_nothing_is_unread_gives_nothing(tmp_path: Path) -> None:
    """The natural application peeks all it can at every event, FINs and the flow's end too."""
    read: list[bytes] = []

    def peek_all(flow: sm.LiveFlow, _: Any = None) -> None:
        for side in (sm.CLIENT, sm.SERVER):
            while chunk := flow.peek(side, 7).data:
                read.append(chunk)

    with sm.Context(write_pcap(tmp_path / "a.pcap", conversation())) as ctx:
        sock = ctx.socket()
        sock.set(history=4096)
        for event in (sm.PKT_IN, sm.NEW_DATA, sm.CONN_SETUP, sm.TCP_STATE_CHANGE, sm.CONN_END):
            sock.register(event, peek_all)
        result = ctx.run()
    assert result.error_count == 0
    assert b"".join(read) == b"GET / HTTP/1.0\r\n\r\nHTTP/1.0 200 OK\r\n\r\nhello"


def test_fault_03_a_fin_alone_raises_no_new_data(tmp_path: Path) -> None:
    lengths: list[int] = []

    class Watch(sm.Middlebox):
        @sm.on(sm.NEW_DATA)
        def data(self, flow: sm.LiveFlow, data: memoryview) -> None:
            lengths.append(len(data))

    fin = [tcp_frame(CLIENT, SERVER, 1003, 9001, FIN | ACK)]
    sm.run(write_pcap(tmp_path / "a.pcap", [*segments((0, b"ab")), *fin]), Watch())
    assert lengths == [2]


def test_fault_12_outcomes_and_registrations_come_and_go(tmp_path: Path) -> None:
    """An event's filter is asked once per segment, whoever listens; outcomes are raised; what was undone can be done
    again."""
    told: list[str] = []
    asked: list[bytes] = []

    def sort(flow: sm.LiveFlow, data: memoryview) -> bool:
        asked.append(bytes(data))
        flow.raise_event(upper if bytes(data).isupper() else lower)
        return True

    kind = sm.event(sm.NEW_DATA, sort)
    upper, lower = sm.outcome(kind), sm.outcome(kind)

    def on_upper(flow: sm.LiveFlow, data: memoryview) -> None:
        told.append("upper " + bytes(data).decode())

    def on_lower(flow: sm.LiveFlow, data: memoryview) -> None:
        told.append("lower " + bytes(data).decode())
        if bytes(data) == b"off":
            flow.unregister(upper, on_upper)
        if bytes(data) == b"on":
            flow.register(upper, on_upper)

    texts = [b"A", b"off", b"B", b"on", b"C"]
    places = [(sum(map(len, texts[:n])), text) for n, text in enumerate(texts)]
    with sm.Context(write_pcap(tmp_path / "a.pcap", segments(*places))) as ctx:
        sock = ctx.socket()
        sock.register(upper, on_upper, side=sm.SERVER)
        sock.register(lower, on_lower, side=sm.SERVER)
        assert ctx.run().error_count == 0
    assert told == ["upper A", "lower off", "lower on", "upper C"]
    assert asked == texts


def test_fault_13_every_number_of_event_may_be_a_parent(tmp_path: Path) -> None:
    """40 events, each with one of its own: mOS took some of those numbers for sets of bits."""
    told: list[int] = []
    with sm.Context(write_pcap(tmp_path / "a.pcap", segments((0, b"x")))) as ctx:
        sock = ctx.socket()
        for number in range(40):
            parent = sm.event(sm.NEW_DATA, lambda flow, data: True)
            child = sm.event(parent, lambda flow, data: True)
            sock.register(child, lambda flow, data, number=number: told.append(number), side=sm.SERVER)
        assert ctx.run().error_count == 0
    assert sorted(told) == list(range(40))


@pytest.mark.parametrize("parent", [-1, 11, 63, 5000])
def test_fault_14_what_is_no_event_is_no_parent(parent: int) -> None:
    with pytest.raises(ModuleError, match="is no event"):
        sm.event(parent, lambda flow: True)  # type: ignore[call-overload]


def test_fault_14_a_filter_without_argument_stands_beside_one_with(tmp_path: Path) -> None:
    """In C: the same parent and filter, once with an argument of its own and once with none."""
    told: list[str] = []

    class Probe(sm.Middlebox):
        def on_start(self) -> None:
            calls = self._host.api  # type: ignore[union-attr]
            self.made = []
            for size in (0, 4, 0, 4):
                number = ffi.new("uint32_t *")
                arg = ffi.NULL if not size else ffi.new("char[4]", b"abcd")
                predicate = ffi.cast("smos_predicate_t", 1)  # never called: nobody registers for it
                calls("define_event", int(sm.NEW_DATA), predicate, arg, size, number)
                self.made.append(int(number[0]))
            told.append("defined")

    probe = Probe()
    sm.run(write_pcap(tmp_path / "a.pcap", conversation()), probe)
    assert told == ["defined"]
    first, second, third, fourth = probe.made
    assert (first, second) == (third, fourth)  # equal definitions share a number
    assert first != second


def test_fault_15_a_raw_socket_gets_each_packet_once(tmp_path: Path) -> None:
    """With a filter or without, TCP or not, alone in the application or not."""
    frames = [*conversation(), udp(CLIENT[0], SERVER[0], 53), ip_frame(CLIENT[0], SERVER[0], 89, b"ospf")]
    path = write_pcap(tmp_path / "a.pcap", frames)
    for wanted, expected in (("", 10), ("tcp", 8), ("udp", 1), ("ip proto 89", 1), ("not tcp", 2)):
        numbers: list[int] = []
        with sm.Context(path) as ctx:
            sock = ctx.socket(sm.MONITOR_RAW)
            sock.bind(wanted)
            sock.register(sm.PKT_IN, lambda flow, packet, numbers=numbers: numbers.append(packet.number))
            assert ctx.run().error_count == 0
        assert len(numbers) == len(set(numbers)) == expected, wanted


def test_fault_16_a_flow_joins_only_the_sockets_whose_filter_it_matches(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    frames = [
        f
        for port in (80, 443, 80, 25, 443, 80)
        for f in conversation(server=(SERVER[0], port), client=(f"10.1.{port % 7}.1", 5000 + len(told)))
    ]
    with sm.Context(write_pcap(tmp_path / "a.pcap", frames)) as ctx:
        for wanted in ("tcp port 80", "tcp port 443", "tcp"):
            sock = ctx.socket()
            sock.bind(wanted)
            sock.register(sm.NEW_DATA, lambda flow, data, wanted=wanted: told.append((wanted, flow.server_port)))
        assert ctx.run().error_count == 0
    seen = {(wanted, port) for wanted, port in told}
    assert seen == {("tcp port 80", 80), ("tcp port 443", 443), ("tcp", 80), ("tcp", 443), ("tcp", 25)}


def test_fault_20_a_closed_socket_is_not_called_again_and_the_others_are(tmp_path: Path) -> None:
    told: list[str] = []
    with sm.Context(write_pcap(tmp_path / "a.pcap", conversations(3))) as ctx:
        first, second = ctx.socket(), ctx.socket()

        def close(flow: sm.LiveFlow) -> None:
            told.append("first")
            first.close()

        first.register(sm.CONN_START, close)
        second.register(sm.CONN_START, lambda flow: told.append("second"))
        assert ctx.run().error_count == 0
        with pytest.raises(ModuleError, match="no such socket"):
            first.bind("tcp")
    assert sorted(told) == ["first", "second", "second", "second"]


def test_fault_24_at_the_end_of_one_side_the_other_is_still_there(tmp_path: Path) -> None:
    """Both calls of CONN_END see both ends as they were last."""
    told: list[Any] = []

    class Ends(sm.Middlebox):
        @sm.on(sm.CONN_END, side=sm.CLIENT)
        def client_side(self, flow: sm.LiveFlow) -> None:
            told.append((flow.info.tcp_state, flow.info.stream_bytes))

        @sm.on(sm.CONN_END, side=sm.SERVER)
        def server_side(self, flow: sm.LiveFlow) -> None:
            told.append((flow.info.tcp_state, flow.info.stream_bytes))

    sm.run(write_pcap(tmp_path / "a.pcap", conversation(b"12345", b"123")), Ends())
    assert told == [(("TIME_WAIT", "CLOSED"), (5, 3))] * 2


@pytest.mark.parametrize("side", [sm.CLIENT, sm.SERVER, sm.BOTH])
@pytest.mark.parametrize("when", [sm.CONN_START, sm.CONN_SETUP, sm.NEW_DATA])
def test_fault_27_watching_may_stop_at_any_time_and_side(when: Any, side: Any, tmp_path: Path) -> None:
    """During the SYN too, when the server's side was never heard. Of a stopped side nothing comes but the end."""
    told: list[tuple[str, int]] = []
    with sm.Context(write_pcap(tmp_path / "a.pcap", conversation(b"12345", b"123"))) as ctx:
        sock = ctx.socket()
        sock.register(when, lambda flow: flow.stop(side))
        sock.register(sm.NEW_DATA, lambda flow, data: told.append(("data", int(flow.side))))
        sock.register(sm.CONN_END, lambda flow: told.append(("end", int(flow.side))), side=sm.SERVER)
        assert ctx.run().error_count == 0
    stopped = {0, 1} if side == sm.BOTH else {int(side)}
    assert ("end", 1) in told
    if when is not sm.NEW_DATA:
        assert {at for what, at in told if what == "data"} == {0, 1} - stopped


@pytest.mark.parametrize("policy", ["first", "last"])
def test_fault_27_an_overlap_policy_may_be_set_on_the_template(policy: str, tmp_path: Path) -> None:
    got: list[bytes] = []
    places = ((5, b"xxxxx"), (5, b"YYYYY"), (0, b"start"))
    with sm.Context(write_pcap(tmp_path / "a.pcap", segments(*places))) as ctx:
        sock = ctx.socket()
        sock.set(overlap=policy)
        sock.register(sm.NEW_DATA, lambda flow, data: got.append(bytes(data)), side=sm.SERVER)
        assert ctx.run().error_count == 0
    assert b"".join(got) == (b"startxxxxx" if policy == "first" else b"startYYYYY")


@pytest.mark.parametrize("room", [0, 1, 2, 5, 6, 7])
def test_fault_30_the_list_of_fragments_never_exceeds_its_room(room: int, tmp_path: Path) -> None:
    """Six stretches wait behind holes; as many are written as fit, lowest first, and nothing behind them."""
    places = tuple((10 + 20 * n, b"0123456789") for n in range(6))
    told: list[list[int]] = []

    def look(flow: sm.LiveFlow, packet: sm.Packet) -> None:
        if packet.number < 9:
            return
        ranges = ffi.new("smos_range_t[]", room + 2)
        ffi.memmove(ranges, b"\xaa" * ffi.sizeof(ranges), ffi.sizeof(ranges))
        count = flow._watcher._api("buffered", flow.handle, int(sm.SERVER), ranges, room)
        told.append([int(each) for i in range(room + 2) for each in (ranges[i].start, ranges[i].end)])
        assert count == min(room, 6)

    with sm.Context(write_pcap(tmp_path / "a.pcap", segments(*places))) as ctx:
        sock = ctx.socket()
        sock.register(sm.NEW_DATA, lambda flow: None)
        sock.register(sm.PKT_IN, look, hook=sm.RECEIVER, side=sm.SERVER)
        assert ctx.run().error_count == 0
    written = [edge for at, _ in places[:room] for edge in (at, at + 10)]
    untouched = [0xAAAA_AAAA_AAAA_AAAA] * (2 * (room + 2) - len(written))
    assert told == [written + untouched]


def test_the_end_of_what_waits_is_told_behind_any_number_of_holes(tmp_path: Path) -> None:
    """100 stretches wait; `last` is after the highest."""
    places = tuple((10 + 20 * n, b"0123456789") for n in range(100))
    last: list[int] = []
    with sm.Context(write_pcap(tmp_path / "a.pcap", segments(*places))) as ctx:
        sock = ctx.socket()
        sock.register(sm.NEW_DATA, lambda flow: None)
        sock.register(
            sm.PKT_IN, lambda flow: last.append(flow.buffer_info(sm.SERVER).last), hook=sm.RECEIVER, side=sm.SERVER
        )
        assert ctx.run().error_count == 0
    assert last[-1] == 2000
