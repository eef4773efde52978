"""A Python middlebox: declared as a class, checked when it is declared and made, called at its events."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path
from typing import Any

import pytest
from traffic import ACK, CLIENT, FIN, PSH, SERVER, SYN, conversation, conversations, tcp_frame, write_pcap

import shardmos as sm
from shardmos.errors import ModuleError, ShardmosError
from shardmos.middlebox import Gap, PlainState
from shardmos.run import RunResult, execute

REQUEST, RESPONSE = b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nhello"


class Recorder(sm.Middlebox):
    """Notes every event with what came along."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.log_of: list[Any] = []

    def summary(self) -> Any:
        return self.log_of


# ---- declaring ----


def test_parameters_are_typed_by_their_defaults() -> None:
    class Typed(sm.Middlebox):
        count = sm.param(3, help="how many")
        share = sm.param(0.5)
        word = sm.param("x")
        loud = sm.param(False)

    assert (Typed().count, Typed().share, Typed().word, Typed().loud) == (3, 0.5, "x", False)
    box = Typed(count=4, share=1, loud=True)
    assert (box.count, box.share, box.loud) == (4, 1.0, True)
    assert Typed().count == 3
    read = Typed.from_text({"count": "0x10", "share": "2", "word": "5", "loud": "yes"})
    assert (read.count, read.share, read.word, read.loud) == (16, 2.0, "5", True)  # type: ignore[attr-defined]
    assert Typed.parameters["count"].help == "how many"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"limt": 5}, "no parameter 'limt'; it has limit, rate"),
        ({"limit": "5"}, "parameter limit is of type int, not '5'"),
        ({"limit": True}, "type int"),
        ({"limit": 5.0}, "type int"),
        ({"rate": float("nan")}, "type float"),
    ],
)
def test_wrong_parameters_are_one_line(params: dict[str, Any], message: str) -> None:
    class Limited(sm.Middlebox):
        limit = sm.param(1)
        rate = sm.param(1.0)

    with pytest.raises(ModuleError) as error:
        Limited(**params)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_parameters_and_handlers_are_inherited() -> None:
    class Base(Recorder):
        limit = sm.param(1)

        @sm.on(sm.CONN_START)
        def started(self, flow: Any) -> None:
            self.log_of.append("base")

    class Child(Base):
        other = sm.param(2)

        @sm.on(sm.CONN_START)
        def started(self, flow: Any) -> None:
            self.log_of.append("child")

    assert list(Child.parameters) == ["limit", "other"]
    assert [handler.method for handler in Child.handlers] == ["started"]


def declare(**members: Any) -> None:
    type("Declared", (sm.Middlebox,), members)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: declare(handler=sm.on(sm.NEW_DATA)(lambda self: None)), "takes (self, flow) or (self, flow, data)"),
        (lambda: declare(handler=sm.on(sm.GAP)(lambda self, a, b, c: None)), "(self, flow, gap)"),
        (lambda: declare(name="no spaces"), "its name 'no spaces'"),
        (lambda: declare(limit=sm.param([1])), "an int, a float, a str or a bool"),  # type: ignore[type-var]
        (lambda: sm.on(99), "@on(99"),
        (lambda: sm.on(sm.PKT_IN, side=7), "side=7"),
        (lambda: sm.on(sm.NEW_DATA, hook=sm.SENDER), "has no hook"),
    ],
)
def test_a_wrong_class_is_one_line(make: Any, message: str) -> None:
    with pytest.raises(ModuleError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


# ---- events ----


def test_every_event_of_a_connection(capture: Path) -> None:
    class Events(Recorder):
        @sm.on(sm.CONN_START)
        def start(self, flow: Any, packet: Any) -> None:
            self.log_of.append(["start", flow.client_endpoint, packet.flags])

        @sm.on(sm.CONN_SETUP)
        def setup(self, flow: Any) -> None:
            self.log_of.append(["setup", flow.info.tcp_state[0]])

        @sm.on(sm.NEW_DATA)
        def data(self, flow: Any, data: memoryview) -> None:
            self.log_of.append(["data", int(flow.side), flow.offset, bytes(data)])

        @sm.on(sm.CONN_END)
        def end(self, flow: Any, reason: str) -> None:
            self.log_of.append(["end", reason, list(flow.info.packets)])

    assert sm.run(capture, Events()) == [
        ["start", "10.0.0.1:40000", "S"],
        ["setup", "ESTABLISHED"],
        ["data", sm.SERVER, 0, REQUEST],
        ["data", sm.CLIENT, 0, RESPONSE],
        ["end", "fin", [5, 3]],
    ]


def test_packets_by_hook_and_side(capture: Path) -> None:
    class Packets(Recorder):
        @sm.on(sm.PKT_IN)
        def sender(self, flow: Any, packet: Any) -> None:
            assert flow.hook == sm.SENDER and flow.side == packet.sender
            self.log_of.append("sender")

        @sm.on(sm.PKT_IN, hook=sm.RECEIVER, side=sm.SERVER)
        def server(self, flow: Any, packet: Any) -> None:
            assert flow.hook == sm.RECEIVER and flow.side == sm.SERVER and packet.sender == sm.CLIENT
            self.log_of.append("receiver")

    told = sm.run(capture, Packets())
    assert (told.count("sender"), told.count("receiver")) == (8, 5)


def test_packet_fields(capture: Path) -> None:
    class Fields(Recorder):
        @sm.on(sm.PKT_IN)
        def packet(self, flow: Any, packet: Any) -> None:
            self.log_of.append(
                (
                    packet.number,
                    packet.flags,
                    packet.seq,
                    packet.ack,
                    bytes(packet.payload),
                    packet.payload_len,
                    len(packet.frame),
                )
            )

    told = sm.run(capture, Fields())
    assert told[0] == (1, "S", 1000, 0, b"", 0, 54)
    assert told[3] == (4, "PA", 1001, 9001, REQUEST, len(REQUEST), 54 + len(REQUEST))


def test_conn_end_once_per_flow_or_once_per_side(capture: Path) -> None:
    class Ends(Recorder):
        @sm.on(sm.CONN_END)
        def whole(self, flow: Any) -> None:
            self.log_of.append("flow")

        @sm.on(sm.CONN_END, side=sm.CLIENT)
        def client(self, flow: Any) -> None:
            self.log_of.append("client")

        @sm.on(sm.CONN_END, side=sm.BOTH)
        def both(self, flow: Any) -> None:
            self.log_of.append("both")

    told = sm.run(capture, Ends())
    assert sorted(told) == ["both", "both", "client", "flow"]


def test_a_gap_is_told(tmp_path: Path) -> None:
    frames = [
        tcp_frame(CLIENT, SERVER, 1000, 0, SYN),
        tcp_frame(SERVER, CLIENT, 9000, 1001, SYN | ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK),
        tcp_frame(CLIENT, SERVER, 1031, 9001, ACK | PSH, b"late"),
        tcp_frame(SERVER, CLIENT, 9001, 1035, ACK),
        tcp_frame(CLIENT, SERVER, 1035, 9001, ACK | FIN),
    ]

    class Gaps(Recorder):
        @sm.on(sm.GAP, side=sm.SERVER)
        def gap(self, flow: Any, gap: Gap) -> None:
            self.log_of.append(("gap", gap.offset, gap.length))

        @sm.on(sm.NEW_DATA)
        def data(self, flow: Any, data: memoryview) -> None:
            self.log_of.append(("data", flow.offset, bytes(data)))

    assert sm.run(write_pcap(tmp_path / "gap.pcap", frames), Gaps()) == [("gap", 0, 30), ("data", 30, b"late")]


def test_states_are_told_with_their_names(capture: Path) -> None:
    class States(Recorder):
        @sm.on(sm.TCP_STATE_CHANGE, side=sm.CLIENT)
        def change(self, flow: Any, state: sm.TcpState) -> None:
            self.log_of.append(state.name)

    told = sm.run(capture, States())
    assert told[:2] == ["SYN_SENT", "ESTABLISHED"] and "FIN_WAIT_1" in told and "TIME_WAIT" in told


def test_the_filter_chooses_flows(tmp_path: Path) -> None:
    class Web(Recorder):
        filter = "tcp port 80"

        @sm.on(sm.CONN_START)
        def start(self, flow: Any) -> None:
            self.log_of.append(flow.server_port)

    path = write_pcap(tmp_path / "two.pcap", conversation() + conversation(server=("10.0.0.3", 443)))
    assert sm.run(path, Web()) == [80]


# ---- flows and their state ----


def test_state_is_the_flows_own_and_starts_at_zero(tmp_path: Path) -> None:
    class Count(Recorder):
        @sm.on(sm.NEW_DATA)
        def data(self, flow: Any, data: memoryview) -> None:
            flow.state.seen += len(data)

        @sm.on(sm.CONN_END)
        def end(self, flow: Any) -> None:
            self.log_of.append(flow.state.seen)

    path = write_pcap(tmp_path / "many.pcap", conversations(50))
    assert sm.run(path, Count()) == [len(REQUEST) + len(RESPONSE)] * 50


def test_a_flow_that_is_kept_tells_its_end(tmp_path: Path) -> None:
    class Keep(Recorder):
        @sm.on(sm.NEW_DATA, side=sm.SERVER)
        def data(self, flow: Any, data: memoryview) -> None:
            self.log_of.append(flow)

    flows = sm.run(write_pcap(tmp_path / "kept.pcap", conversations(5)), Keep())
    assert [(each.info.stream_bytes, each.info.end_reason) for each in flows] == [
        ((len(REQUEST), len(RESPONSE)), "fin")
    ] * 5


def test_the_state_is_there_for_an_event_over_conn_end(tmp_path: Path) -> None:
    class Late(Recorder):
        @sm.event(sm.CONN_END)
        def over(self, flow: Any) -> bool:
            return True

        @sm.on(sm.NEW_DATA)
        def data(self, flow: Any, data: memoryview) -> None:
            flow.state.seen += len(data)

        @sm.on(over)
        def end(self, flow: Any) -> None:
            self.log_of.append(flow.state.seen)

    path = write_pcap(tmp_path / "late.pcap", conversations(3))
    assert sm.run(path, Late()) == [len(REQUEST) + len(RESPONSE)] * 6  # once per side


def test_a_name_that_was_never_set_reads_as_0_in_every_state() -> None:
    class Lists(sm.State):
        def __getattr__(self, name: str) -> Any:
            return []

    first: Any = PlainState()
    second: Any = PlainState()
    for number in range(1000):  # names may come from the traffic
        assert getattr(first, f"n{number}") == 0
    assert len(vars(PlainState)) < 300
    first.n1 += 5
    assert (first.n1, second.n1, first.n999, Lists().n1) == (5, 0, 0, [])
    assert (repr(first), vars(second)) == ("State(n1=5)", {})
    assert not hasattr(first, "__len__")


def test_state_may_be_a_class_of_its_own(capture: Path) -> None:
    class Hash(Recorder):
        class State:
            def __init__(self) -> None:
                self.hash = hashlib.sha256()

        @sm.on(sm.NEW_DATA, side=sm.SERVER)
        def data(self, flow: Any, data: memoryview) -> None:
            flow.state.hash.update(data)

        @sm.on(sm.CONN_END)
        def end(self, flow: Any) -> None:
            self.log_of.append(flow.state.hash.digest())

    assert sm.run(capture, Hash()) == [hashlib.sha256(REQUEST).digest()]


def test_the_flow_object_is_one_and_its_info_stays(capture: Path) -> None:
    class Keep(sm.Middlebox):
        def __init__(self) -> None:
            super().__init__()
            self._seen: list[Any] = []

        @sm.on(sm.PKT_IN)
        def packet(self, flow: Any) -> None:
            self._seen.append(flow)

        def summary(self) -> Any:
            return self._seen

    seen = sm.run(capture, Keep())
    assert len(seen) == 8 and len({id(flow) for flow in seen}) == 1
    assert seen[0].info.packets == (5, 3) and seen[0].server_port == 80
    with pytest.raises(ShardmosError, match="only during a handler's call"):
        _ = seen[0].side


def test_data_is_no_longer_readable_after_the_call(capture: Path) -> None:
    class Keep(Recorder):
        @sm.on(sm.NEW_DATA)
        def data(self, flow: Any, data: memoryview) -> None:
            assert data.readonly
            self.log_of.append(data)

    views = sm.run(capture, Keep())
    with pytest.raises(ValueError, match="released"):
        bytes(views[0])


def test_a_kept_slice_of_data_is_reported(capture: Path) -> None:
    class Keep(sm.Middlebox):
        @sm.on(sm.NEW_DATA)
        def data(self, flow: Any, data: memoryview) -> None:
            self._kept = data[1:]

    result = execute(capture, [Keep()])
    assert result.error_count == 2 and "keep a copy, as in bytes(data)" in result.errors[0]
    gc.collect()


def test_a_kept_slice_of_a_packet_is_reported_with_the_handlers_name(capture: Path) -> None:
    class Keep(sm.Middlebox):
        @sm.on(sm.PKT_IN)
        def keep_it(self, flow: Any, packet: sm.Packet) -> None:
            self._kept = packet.frame[2:4]

    result = execute(capture, [Keep()])
    assert "Keep.keep_it kept a part of `packet` beyond its call; keep a copy" in result.errors[0]
    gc.collect()


def test_views_and_functions_of_a_packet_that_is_over(capture: Path) -> None:
    class Keep(Recorder):
        @sm.on(sm.PKT_IN)
        def keep_it(self, flow: Any, packet: sm.Packet) -> None:
            self.log_of.append((flow, packet, packet.payload))

    for flow, packet, payload in sm.run(capture, Keep()):  # those of packets without payload, too
        with pytest.raises(ValueError, match="released"):
            bytes(payload)
        with pytest.raises(ModuleError, match=r"Keep: not running; this is for on_start\(\) and handlers"):
            packet.insert(0, b"x")
        with pytest.raises(ModuleError, match="not running"):
            flow.peek(sm.CLIENT)


def test_reset_ends_the_flow(tmp_path: Path) -> None:
    class Quota(Recorder):
        limit = sm.param(1_000_000)

        @sm.on(sm.NEW_DATA, side=sm.SERVER)
        def count(self, flow: Any, data: memoryview) -> None:
            flow.state.seen += len(data)
            if flow.state.seen > self.limit:
                flow.reset()

        @sm.on(sm.CONN_END)
        def end(self, flow: Any, reason: str) -> None:
            self.log_of.append(reason)

    path = write_pcap(tmp_path / "one.pcap", conversation())
    assert sm.run(path, Quota(limit=5)) == ["rst"]
    assert sm.run(path, Quota(limit=500)) == ["fin"]


def test_drop_keeps_the_packet_from_the_receiver(tmp_path: Path) -> None:
    class Wall(Recorder):
        @sm.on(sm.PKT_IN, side=sm.CLIENT)
        def packet(self, flow: Any, packet: Any) -> None:
            if b"GET" in bytes(packet.payload):
                flow.drop()

        @sm.on(sm.NEW_DATA, side=sm.SERVER)
        def data(self, flow: Any, data: memoryview) -> None:
            self.log_of.append(bytes(data))

    assert sm.run(write_pcap(tmp_path / "one.pcap", conversation()), Wall()) == []


def test_drop_in_new_data_ends_the_packets_events_for_everybody(tmp_path: Path) -> None:
    frames = conversations(1)
    frames.insert(4, frames[3])  # the request comes again
    path = write_pcap(tmp_path / "again.pcap", frames)
    told: list[tuple[str, str, int]] = []
    with sm.Context(path) as ctx:
        for name in "ab":
            sock = ctx.socket()
            for hook in (sm.SENDER, sm.RECEIVER):

                def note(flow: sm.LiveFlow, packet: sm.Packet, at: str = f"{name} {hook.name}") -> None:
                    told.append((at, "PKT_IN", packet.number))

                sock.register(sm.PKT_IN, note, hook=hook)

            def data(flow: sm.LiveFlow, data: memoryview, name: str = name) -> None:
                assert flow.packet is not None
                told.append((name, "NEW_DATA", flow.packet.number))
                flow.drop()

            sock.register(sm.NEW_DATA, data, side=sm.SERVER)
        result = ctx.run()
    assert [each for each in told if each[2] in (4, 5)] == [
        ("a SENDER", "PKT_IN", 4), ("b SENDER", "PKT_IN", 4), ("a", "NEW_DATA", 4),
    ]  # fmt: skip
    assert result.modules[0]["drops"] == 1


def test_stop_ends_the_events_of_a_side(capture: Path) -> None:
    class Once(Recorder):
        @sm.on(sm.PKT_IN)
        def packet(self, flow: Any) -> None:
            self.log_of.append("packet")
            flow.stop()

        @sm.on(sm.CONN_END)
        def end(self, flow: Any) -> None:
            self.log_of.append("end")

    assert sm.run(capture, Once()) == ["packet", "end"]


# ---- failures ----


class Faulty(sm.Middlebox):
    @sm.on(sm.PKT_IN)
    def packet(self, flow: Any) -> None:
        raise RuntimeError("no good")


def test_a_handler_that_raises_is_counted_and_the_run_goes_on(
    capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[dict[str, Any]] = []
    result: RunResult = execute(capture, [Faulty()], on_event=events.append)
    assert result.counters["packets"] == 8
    assert result.error_count == 8 and len(result.errors) == 8
    assert result.modules[0]["errors"] == 8
    assert "RuntimeError: no good" in result.errors[0] and "test_middlebox.py" in result.errors[0]
    assert any(str(event.get("topic", "")).endswith("error") for event in events), events[:1]
    sm.run(capture, Faulty())
    assert "RuntimeError: no good" in capsys.readouterr().err


def test_interrupts_are_not_swallowed(capture: Path) -> None:
    class Stop(sm.Middlebox):
        @sm.on(sm.PKT_IN)
        def packet(self, flow: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sm.run(capture, Stop())


def test_emit_reaches_the_listener(capture: Path) -> None:
    class Speaker(sm.Middlebox):
        @sm.on(sm.CONN_END)
        def end(self, flow: Any) -> None:
            assert self.emit("done", {"client": flow.client, "bytes": list(flow.info.payload_bytes)})

    events: list[dict[str, Any]] = []
    sm.run(capture, Speaker(), on_event=events.append)
    (event,) = [event for event in events if event.get("topic") == "module.Speaker.done"]
    assert event["data"] == {"client": "10.0.0.1", "bytes": [len(REQUEST), len(RESPONSE)]}


def test_now_and_emit_outside_of_a_run() -> None:
    with pytest.raises(ModuleError, match="not running"):
        Faulty().emit("x", 1)
