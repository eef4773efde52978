"""A Flow shows what the engine's record holds, at the places where the C contract puts it."""

from __future__ import annotations

import copy
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmos import events
from shardmos._record import split
from shardmos.flow import RECORD_SIZE, Flow, address_text, make_flows, seconds_text, split_records
from shardmos.workers.binding import ffi, lib

KEYS = [
    "proto",
    "client",
    "client_port",
    "server",
    "server_port",
    "start",
    "end",
    "packets",
    "payload_bytes",
    "wire_bytes",
    "stream_bytes",
    "stream_span",
    "missing_bytes",
    "retransmits",
    "out_of_order",
    "overlaps_conflicting",
    "tcp_state",
    "conn_state",
    "history",
    "end_reason",
    "midstream",
    "vlan",
    "tunnel",
]  # DESIGN: the keys are a contract
PAIRS64 = ("packets", "payload_bytes", "wire_bytes", "stream_bytes", "stream_span", "missing_bytes")
PAIRS32 = (
    "retransmits", "out_of_order", "overlaps_conflicting", "zero_window_ms", "rtt_handshake_us", "rtt_min_us",
)  # fmt: skip


def record(**fields: object) -> tuple[Any, Flow]:
    info = ffi.new("smos_flow_info_t *")
    for name, value in fields.items():
        target, *path = name.split("__")[::-1]
        place = info
        for step in reversed(path):
            place = place.side[int(step[1])] if step in ("s0", "s1") else getattr(place, step)
        setattr(place, target, value)
    return info, Flow(bytes(ffi.buffer(info)))


def test_a_record_has_the_size_of_the_struct() -> None:
    assert ffi.sizeof("smos_flow_info_t") == RECORD_SIZE


@pytest.mark.parametrize("name", PAIRS64 + PAIRS32)
def test_counters_come_from_their_own_place_on_each_side(name: str) -> None:
    bits = 64 if name in PAIRS64 else 32
    _, flow = record(**{f"s0__{name}": 2**bits - 1, f"s1__{name}": 2**bits - 2})
    assert getattr(flow, name) == (2**bits - 1, 2**bits - 2)
    others = [each for each in PAIRS64 + PAIRS32 if each != name]
    assert all(getattr(flow, each) == (0, 0) for each in others)


def test_scalar_fields() -> None:
    info, _ = record(
        flow=2**63 + 5, tuple__sport=40000, tuple__dport=443, tuple__proto=6, tuple__version=4, start_ns=1,
        end_ns=2**62,
        s0__mss=1460, s1__wscale=255, s0__wscale=7, s0__state=4, s1__state=10, tunnel_id=2**32 - 1, tunnel=3,
        end_reason=1, midstream=1, anomalies=9, conn_state=b"RSTO", history=b"ShADadR",
    )  # fmt: skip
    info.vlan = [100, 200]
    ffi.memmove(info.tuple.src, bytes(10) + b"\xff\xff\x0a\x00\x00\x01", 16)
    ffi.memmove(info.tuple.dst, bytes(10) + b"\xff\xff\x0a\x00\x00\x02", 16)
    flow = Flow(bytes(ffi.buffer(info)))
    assert (flow.handle, flow.proto, flow.version) == (2**63 + 5, "tcp", 4)
    assert (flow.client_endpoint, flow.server_endpoint) == ("10.0.0.1:40000", "10.0.0.2:443")
    assert (flow.start_ns, flow.end_ns, flow.mss, flow.wscale) == (1, 2**62, (1460, 0), (7, None))
    assert flow.tcp_state == ("ESTABLISHED", "TIME_WAIT")
    assert (flow.conn_state, flow.history, flow.end_reason, flow.midstream) == ("RSTO", "ShADadR", "rst", True)
    assert (flow.vlan, flow.tunnel, flow.anomalies) == ([100, 200], {"kind": "vxlan", "id": 2**32 - 1}, 9)
    assert "10.0.0.1:40000 > 10.0.0.2:443" in repr(flow)


def test_json_has_exactly_the_keys_of_the_contract() -> None:
    _, flow = record(tuple__proto=6, end_reason=0, history=b"S", conn_state=b"S0")
    assert list(flow.to_dict()) == KEYS
    with_hash = Flow(bytes(RECORD_SIZE), (["ab", None], [[[0, 3, "ab"]], None]))
    assert list(with_hash.to_dict()) == [*KEYS, "sha256", "ranges"]
    assert with_hash.to_dict()["sha256"] == ["ab", None]
    assert with_hash.to_dict()["ranges"] == [[[0, 3, "ab"]], None]
    assert with_hash.ranges is not None and with_hash.ranges[0] is not None and with_hash.ranges[0][0].length == 3


@given(st.binary(min_size=RECORD_SIZE, max_size=RECORD_SIZE))
def test_any_bytes_give_a_row(data: bytes) -> None:
    # Letters are ASCII by the contract; everything else may be anything.
    data = data[:232] + b"SF\0" + bytes(5) + b"ShADad\0" + bytes(33) + data[280:]
    flow = Flow(data)
    row = json.loads(flow.to_json())
    for key in KEYS:
        value = getattr(flow, key)
        assert row[key] == (list(value) if isinstance(value, tuple) else value), key
    assert repr(flow)


def test_names_are_the_librarys() -> None:
    api = lib.smos_shard_api()
    for state in events.TcpState:
        assert ffi.string(api.state_name(int(state))).decode().replace("-", "_").upper() == state.name
    for event in events.Event:
        assert getattr(lib, f"SMOS_{event.name.removeprefix('TCP_')}") == event
    for prefix, enum in (("END", events.EndReason), ("ERR", events.Limit)):
        for member in enum:
            name = "CAPTURE" if member is events.EndReason.CAPTURE_END else member.name
            assert getattr(lib, f"SMOS_{prefix}_{name}") == member
    assert len(set(events.anomaly_names())) == lib.smos_anomaly_count() > 0


def test_addresses_as_text() -> None:
    assert address_text(bytes(10) + b"\xff\xff\x01\x02\x03\x04", 4) == "1.2.3.4"
    assert address_text(b"\x20\x01\x0d\xb8" + bytes(11) + b"\1", 6) == "2001:db8::1"


@given(st.integers(-(2**63), 2**63 - 1))
def test_seconds_lose_nothing(nanoseconds: int) -> None:
    whole, _, rest = seconds_text(nanoseconds).partition(".")
    assert len(rest) == 9
    assert abs(int(whole)) * 10**9 + int(rest) == abs(nanoseconds)
    assert whole.startswith("-") == (nanoseconds < 0)


def test_records_of_a_batch_do_not_keep_the_batch() -> None:
    batch = struct.pack("=Q", 1) + bytes(RECORD_SIZE - 8) + struct.pack("=Q", 2) + bytes(RECORD_SIZE - 8)
    records = split_records(batch)
    assert [Flow(each).handle for each in records] == [1, 2]
    assert all(len(each) == RECORD_SIZE for each in records)


@given(st.lists(st.binary(min_size=RECORD_SIZE, max_size=RECORD_SIZE), max_size=4))
def test_a_batch_gives_the_flows_of_its_records(records: list[bytes]) -> None:
    made = make_flows(b"".join(records))
    assert len(made) == len(records)
    assert list(made) == [made[i] for i in range(len(records))] == [Flow(each) for each in records]
    for flow, data in zip(made, records, strict=True):
        assert flow.client == address_text(data[8:24], data[45])
        assert flow.server == address_text(data[24:40], data[45])


def test_what_is_no_record_is_refused() -> None:
    for data in (b"", bytes(RECORD_SIZE - 1), bytes(RECORD_SIZE + 1)):
        with pytest.raises(ValueError, match="296 bytes"):
            Flow(data)
    with pytest.raises(ValueError, match="297 bytes"):
        make_flows(bytes(RECORD_SIZE + 1))
    with pytest.raises(TypeError, match="FlowRecord"):
        split(int, bytes(RECORD_SIZE))  # type: ignore[type-var]
    for at in (-2, 1):
        with pytest.raises(IndexError):
            make_flows(bytes(RECORD_SIZE))[at]


def test_a_flow_can_be_copied_and_pickled_but_not_changed() -> None:
    flow = Flow(bytes(range(256)) + bytes(RECORD_SIZE - 256), (["ab", None], [[[0, 3, "ab"]], None]))
    for other in (copy.copy(flow), copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert (other, other.sha256, hash(other)) == (flow, ("ab", None), hash(flow))
    with pytest.raises(AttributeError):
        flow.client = "10.0.0.1"  # type: ignore[misc, unused-ignore]


def test_rows_are_those_of_the_command(capture: Path) -> None:
    from shardmos import flows

    (flow,) = flows(capture)
    assert (flow.client, flow.client_port, flow.server, flow.server_port) == ("10.0.0.1", 40000, "10.0.0.2", 80)
    assert flow.packets == (5, 3)
    assert flow.to_dict()["start"] == "1700000000.000000000"
