"""The binding promises: the engine's results unchanged, errors as one line, nothing left behind, threads that go on."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traffic import CLIENT, SERVER, conversation, conversations, write_pcap

import shardmos
import shardmos.flow as flow_module
from shardmos import BOTH, CONN_END, NEW_DATA, PKT_IN, Event, Hook, Side
from shardmos.errors import SegmentError, ShardmosError
from shardmos.flow import Flow, split_records
from shardmos.workers.binding import RECORD_SIZE, ffi, lib, live_handles
from shardmos.workers.checked import ShardError
from shardmos.workers.dealer import Dealer
from shardmos.workers.segments import read_stats
from shardmos.workers.shard import BoxManifest, Run, Shard
from shardmos.workers.shard_config import DEFRAG_POLICIES, OVERLAP_POLICIES, ShardConfig

REQUEST, RESPONSE = b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nhello"


def drain(shard: Shard, reason: str = "capture_end") -> list[Flow]:
    """Runs a shard to its port's end and gives its flows."""
    records = []
    while not (result := shard.run(1.0)) & (Run.END | Run.FAILED):
        records += split_records(shard.take_records())
        if result & Run.IDLE:
            time.sleep(min(shard.wait_seconds() or 0.001, 0.01))
    records += split_records(shard.take_records())
    while not shard.finish(reason) & Run.END:
        records += split_records(shard.take_records())
    records += split_records(shard.take_records())
    return [Flow(record) for record in records]


def python_box(shard: Shard, name: str, dispatch: Callable[[Any], None], *events: Event, side: Side = BOTH) -> Any:
    registrations = [(int(event), int(Hook.NONE), int(side)) for event in events]
    return shard.create_python_box(BoxManifest(name=name, registrations=registrations), "1", dispatch)


# ---- results ----


def test_a_capture_becomes_flows(capture: Path) -> None:
    with Shard(ShardConfig(records=True)) as shard:
        shard.open_captures([capture])
        (flow,) = drain(shard)
    assert (flow.client, flow.client_port) == CLIENT
    assert (flow.server, flow.server_port) == SERVER
    assert flow.packets == (5, 3)
    assert flow.payload_bytes == (len(REQUEST), len(RESPONSE))
    assert flow.stream_bytes == (len(REQUEST), len(RESPONSE))
    assert flow.end_reason == "fin"
    assert flow.conn_state == "SF"


def test_records_have_the_layout_that_python_reads() -> None:
    assert ffi.sizeof("smos_flow_info_t") == RECORD_SIZE == flow_module.RECORD_SIZE
    # A byte of its own in each field: what is read back must be that field.
    info = ffi.new("smos_flow_info_t *")
    info.tuple.src, info.tuple.dst = bytes(10) + b"\xff\xff\x0a\0\0\x01", bytes(10) + b"\xff\xff\x0a\0\0\x02"
    info.tuple.sport, info.tuple.dport, info.tuple.proto, info.tuple.version = 1, 2, 6, 4
    info.flow, info.start_ns, info.end_ns = 3, 4, 5
    for number, side in enumerate(info.side):
        side.packets, side.payload_bytes, side.wire_bytes, side.stream_bytes = (10 * number + at for at in range(6, 10))
        side.missing_bytes, side.overlaps_conflicting, side.state = 10 + number, 12 + number, 4 + number
    info.conn_state, info.history = b"SF", b"ShADadFf"
    info.vlan, info.tunnel_id, info.tunnel = [7, 8], 42, 3
    info.end_reason, info.midstream, info.anomalies = 2, 1, 77
    flow = Flow(bytes(ffi.buffer(info)))
    assert (flow.handle, flow.client, flow.client_port) == (3, "10.0.0.1", 1)
    assert (flow.server, flow.server_port) == ("10.0.0.2", 2)
    assert (flow.start_ns, flow.end_ns, flow.packets, flow.payload_bytes) == (4, 5, (6, 16), (7, 17))
    assert (flow.wire_bytes, flow.stream_bytes, flow.missing_bytes) == ((8, 18), (9, 19), (10, 11))
    assert flow.overlaps_conflicting == (12, 13)
    assert flow.tcp_state == ("ESTABLISHED", "FIN_WAIT_1")
    assert (flow.conn_state, flow.history, flow.end_reason) == ("SF", "ShADadFf", "idle")
    assert (flow.midstream, flow.anomalies, flow.vlan) == (True, 77, [7, 8])
    assert flow.tunnel == {"kind": "vxlan", "id": 42}
    assert flow.to_dict()["end_reason"] == "idle"


def test_the_library_and_the_package_have_one_version() -> None:
    assert ffi.string(lib.smos_version()).decode() == shardmos.__version__


def test_policies_are_named_as_in_the_headers() -> None:
    assert OVERLAP_POLICIES["first"] == 0
    assert {"last", "bsd", "linux", "old-linux", "windows", "bsd-right"} <= OVERLAP_POLICIES.keys()
    assert {"first", "last", "bsd", "linux", "windows", "solaris"} <= DEFRAG_POLICIES.keys()
    assert not any("polic" in name for name in (*OVERLAP_POLICIES, *DEFRAG_POLICIES))
    for policy in OVERLAP_POLICIES:
        Shard(ShardConfig(overlap_policy=policy)).close()


def test_without_records_none_are_collected(capture: Path) -> None:
    with Shard(ShardConfig()) as shard:
        shard.open_captures([capture])
        assert drain(shard) == []


def test_publishing_flows_collects_their_records(capture: Path) -> None:
    with Shard(ShardConfig()) as shard:
        shard.set_publish({"flows"})
        shard.open_captures([capture])
        assert len(drain(shard)) == 1
        assert shard.take_events() == b""
        with pytest.raises(ShardError, match="publish: 'all'"):
            shard.set_publish({"all"})


def test_a_filter_keeps_other_packets_out(tmp_path: Path) -> None:
    frames = conversation() + conversation(client=("10.9.9.9", 5), server=("10.0.0.2", 81))
    path = write_pcap(tmp_path / "two.pcap", frames)
    with Shard(ShardConfig(records=True)) as shard:
        shard.set_filter("tcp port 81")
        shard.open_captures([path])
        (flow,) = drain(shard)
        assert flow.client == "10.9.9.9"


def test_two_shards_split_the_flows_between_them(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "many.pcap", conversations(200))
    found: list[set[str]] = []
    for worker in range(2):
        with Shard(ShardConfig(worker=worker, workers=2, owner_seed=7, records=True)) as shard:
            shard.open_captures([path])
            found.append({flow.client for flow in drain(shard)})
    assert not found[0] & found[1]
    assert len(found[0] | found[1]) == 200
    assert min(map(len, found)) > 40


def test_a_dealer_gives_each_shard_what_it_owns(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "many.pcap", conversations(100))
    fds = [os.memfd_create(f"ring{worker}") for worker in range(2)]
    try:
        with Dealer([path], fds, owner_seed=7, ring_bytes=1 << 20) as dealer:
            while not (result := dealer.run()) & (Run.END | Run.FAILED):
                pass
            assert result & Run.END, dealer.error
        dealt: list[str] = []
        for worker, fd in enumerate(fds):
            with Shard(ShardConfig(worker=worker, workers=2, owner_seed=7, records=True)) as shard:
                shard.open_ring(fd)
                dealt += [flow.client for flow in drain(shard)]
        assert sorted(dealt) == sorted(f"10.1.0.{number}" for number in range(100))
    finally:
        for fd in fds:
            os.close(fd)


# ---- Python handlers ----


def test_a_python_box_gets_the_bytes_of_both_ends(capture: Path) -> None:
    got = {Side.CLIENT: b"", Side.SERVER: b""}

    def dispatch(call: Any) -> None:
        got[Side(call.side)] += bytes(ffi.buffer(call.data, call.length))

    with Shard(ShardConfig()) as shard:
        shard.commit(python_box(shard, "bytes", dispatch, NEW_DATA))
        shard.open_captures([capture])
        drain(shard)
        (module,) = shard.stats().modules
        assert (module["name"], module["version"], module["calls"], module["errors"]) == ("bytes", "1", 2, 0)
    assert got == {Side.SERVER: REQUEST, Side.CLIENT: RESPONSE}


def test_a_handler_that_raises_is_counted_and_the_rest_goes_on(capture: Path) -> None:
    calls = []

    def dispatch(call: Any) -> None:
        calls.append(call.event)
        raise ZeroDivisionError

    with Shard(ShardConfig(records=True)) as shard:
        shard.commit(python_box(shard, "raises", dispatch, NEW_DATA))
        shard.open_captures([capture])
        assert len(drain(shard)) == 1
        assert shard.stats().modules[0]["errors"] == len(calls) == 2


def test_what_no_handler_may_swallow_ends_the_run_and_is_raised_there(capture: Path) -> None:
    def dispatch(call: Any) -> None:
        raise KeyboardInterrupt

    with Shard(ShardConfig(records=True)) as shard:
        shard.commit(python_box(shard, "stops", dispatch, NEW_DATA))
        shard.open_captures([capture])
        with pytest.raises(KeyboardInterrupt):
            drain(shard)
        assert shard.stats().modules[0]["errors"] == 0


def test_a_signal_during_handlers_is_raised_from_run(tmp_path: Path) -> None:
    # Many short handlers: the signal arrives in a handler, between handlers, or in the engine.
    path = write_pcap(tmp_path / "many.pcap", conversations(100))

    def dispatch(call: Any) -> None:
        pass

    for attempt in range(20):
        with Shard(ShardConfig()) as shard:
            shard.commit(python_box(shard, "busy", dispatch, PKT_IN))
            shard.open_captures([path], loop=True)
            timer = threading.Timer(0.005 + attempt * 0.0017, signal.raise_signal, [signal.SIGINT])
            deadline = time.monotonic() + 10
            with pytest.raises(KeyboardInterrupt):
                timer.start()
                while time.monotonic() < deadline:
                    shard.run(0.05)
            timer.join()
            assert shard.stats().modules[0]["errors"] == 0


def test_handlers_ask_for_their_flow_and_a_stale_one_is_none(capture: Path) -> None:
    seen: list[int] = []

    with Shard(ShardConfig()) as shard:

        def dispatch(call: Any) -> None:
            info = shard.flow_info(call.flow)
            assert info is not None and len(info) == RECORD_SIZE
            assert Flow(info).server == SERVER[0]
            assert shard.now_ns() == call.time_ns
            seen.append(call.flow)

        shard.commit(python_box(shard, "asks", dispatch, NEW_DATA))
        shard.open_captures([capture])
        drain(shard)
        assert shard.stats().modules[0]["errors"] == 0
        assert len(seen) == 2
        assert (seen[0] & 0xFFFFFFFF) < shard.flow_limit
        assert shard.flow_info(seen[0]) is None
        assert shard.reset(seen[0]) is False


def test_stop_ends_a_sides_events(capture: Path) -> None:
    sides = []
    with Shard(ShardConfig()) as shard:

        def dispatch(call: Any) -> None:
            sides.append(Side(call.side))
            assert shard.stop(call.flow, int(Side.CLIENT))

        shard.commit(python_box(shard, "stops", dispatch, NEW_DATA))
        shard.open_captures([capture])
        drain(shard)
    assert sides == [Side.SERVER]


def test_a_dropped_request_never_reaches_the_server(capture: Path) -> None:
    with Shard(ShardConfig(records=True)) as shard:

        def dispatch(call: Any) -> None:
            shard.drop()

        shard.commit(python_box(shard, "drops", dispatch, NEW_DATA, side=Side.SERVER))
        shard.open_captures([capture])
        drain(shard)
        (module,) = shard.stats().modules
        assert module["drops"] >= 1
        assert module["errors"] == 0


def test_emitted_events_come_out_and_too_large_ones_are_refused(capture: Path) -> None:
    refused = []
    with Shard(ShardConfig(publish=frozenset({"modules"}))) as shard:

        def dispatch(call: Any) -> None:
            assert shard.emit("seen", b"hello")
            try:
                shard.emit("seen", bytes(65537))
            except ShardError as error:
                refused.append(str(error))

        shard.commit(python_box(shard, "emits", dispatch, CONN_END, side=Side.CLIENT))
        shard.open_captures([capture])
        events = []
        while not shard.run() & Run.END:
            events += msgpack.unpackb(shard.take_events() or b"\x90")
        while not shard.finish("capture_end") & Run.END:
            pass
        events += msgpack.unpackb(shard.take_events() or b"\x90")
    assert refused and all("65537 bytes" in text for text in refused)
    assert any(b"hello" in msgpack.packb(event) for event in events)


def test_verdicts_outside_of_a_packet_are_errors(capture: Path) -> None:
    with Shard(ShardConfig()) as shard:
        with pytest.raises(ShardError, match="outside of a packet"):
            shard.drop()
        assert shard.reset(12345) is False
        assert shard.flow_info(0) is None


def test_a_running_shard_refuses_to_run_or_close(capture: Path) -> None:
    raised = []
    with Shard(ShardConfig()) as shard:

        def dispatch(call: Any) -> None:
            for function in (shard.run, shard.close, lambda: shard.finish("stopped")):
                try:
                    function()
                except ShardError as error:
                    raised.append(str(error))

        shard.commit(python_box(shard, "reenters", dispatch, NEW_DATA, side=Side.SERVER))
        shard.open_captures([capture])
        drain(shard)
    assert len(raised) == 3
    assert all("is running" in text for text in raised)


# ---- modules come and go ----


def test_a_new_version_takes_the_place_of_the_old(capture: Path) -> None:
    before = dict(live_handles)
    calls = {"1": 0, "2": 0}

    def counting(version: str) -> Callable[[Any], None]:
        def dispatch(call: Any) -> None:
            calls[version] += 1

        return dispatch

    with Shard(ShardConfig()) as shard:
        registrations = [(int(PKT_IN), 0, 2)]
        manifest = BoxManifest(name="counts", registrations=registrations)
        first = shard.create_python_box(manifest, "1", counting("1"))
        assert shard.commit(first) is None
        second = shard.create_python_box(manifest, "2", counting("2"))
        old = shard.commit(second)
        assert old is first and not first.active and second.active
        shard.open_captures([capture])
        drain(shard)
        assert old.idle
        old.free()
        old.free()
        with pytest.raises(ShardError, match="was freed"):
            shard.commit(old)
        with pytest.raises(ShardError, match="remove it first"):
            second.free()
        removed = shard.remove("counts")
        assert removed is second
        with pytest.raises(ShardError, match="no module 'counts' is active"):
            shard.remove("counts")
        assert shard.stats().modules == []
    assert calls["1"] == 0 and calls["2"] > 0
    assert live_handles == before


def test_what_was_prepared_and_what_is_active_is_freed_with_the_shard() -> None:
    before = dict(live_handles)
    shard = Shard(ShardConfig())
    shard.commit(python_box(shard, "active", lambda call: None, PKT_IN))
    python_box(shard, "prepared", lambda call: None, PKT_IN)
    assert len(live_handles) == len(before) + 2
    shard.close()
    shard.close()
    assert live_handles == before


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (BoxManifest(name="bad name!", registrations=[(0, 0, 2)]), "name"),
        (BoxManifest(name="a" * 64, registrations=[(0, 0, 2)]), "name"),
        (BoxManifest(name="filter", filter="tcp prt 80", registrations=[(0, 0, 2)]), "filter"),
        (BoxManifest(name="state", state_size=1 << 20, registrations=[(0, 0, 2)]), "state"),
        (BoxManifest(name="event", registrations=[(200, 0, 2)]), "event"),
        (BoxManifest(name="side", registrations=[(0, 0, 9)]), "side"),
    ],
)
def test_a_bad_manifest_is_refused_with_its_reason(manifest: BoxManifest, reason: str) -> None:
    before = dict(live_handles)
    with Shard(ShardConfig()) as shard, pytest.raises(ShardError, match=reason) as raised:
        shard.create_python_box(manifest, "1", lambda call: None)
    assert "\n" not in str(raised.value)
    assert live_handles == before


C_MODULE = """
#include "shardmos/shardmos.h"
static const smos_api_t *api;
static smos_engine_t *engine;
static int init(smos_engine_t *e, const smos_api_t *a, void **self, char *error, size_t size) {
    (void)self, (void)error, (void)size;
    engine = e, api = a;
    return 0;
}
static void end(void *self, const smos_call_t *call) {
    (void)self, (void)call;
    api->emit(engine, "end", "bye", 3);
}
static const smos_registration_t handlers[] = {
    {.event = SMOS_CONN_END, .side = SMOS_CLIENT, .handler = end}, {.event = SMOS_EVENT_COUNT}};
static const smos_param_t params[] = {{"limit", "int", "5", "not used"}, {0}};
SMOS_MODULE = {SMOS_MODULE_HEADER, .name = "native", .params = params, .registrations = handlers, .init = init};
"""


def build_module(compiler: str, directory: Path, source: str = C_MODULE) -> int:
    (directory / "module.c").write_text(source)
    include = Path(shardmos.__file__).parent / "include"
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O2", f"-I{include}"]
    subprocess.run([*command, "-o", directory / "module.so", directory / "module.c"], check=True)
    return os.open(directory / "module.so", os.O_RDONLY | os.O_CLOEXEC)


def test_a_c_module_runs(compiler: str, tmp_path: Path, capture: Path) -> None:
    fd = build_module(compiler, tmp_path)
    with Shard(ShardConfig(publish=frozenset({"modules"}))) as shard:
        box = shard.load_c(fd, "module.c", "v1", {"limit": "7"})
        os.close(fd)
        assert (box.name, box.version) == ("native", "v1")
        shard.commit(box)
        shard.open_captures([capture])
        drain(shard)
        (module,) = shard.stats().modules
        assert (module["name"], module["calls"], module["emitted"]) == ("native", 1, 1)


@pytest.mark.parametrize(
    ("change", "params", "reason"),
    [
        ((".name", ".abi_major = 99, .name"), {}, "ABI"),
        (("SMOS_CONN_END, .side", "77, .side"), {}, "event"),
        (("smos_module_t smos", "smos_module_t smos"), {"nonsense": "1"}, "nonsense"),
        (("smos_module_t smos", "smos_module_t smos"), {"limit": "many"}, "limit"),
        (("return 0;", "return -5;"), {}, "native|module"),
    ],
)
def test_a_bad_c_module_is_refused(
    compiler: str, tmp_path: Path, change: tuple[str, str], params: dict[str, str], reason: str
) -> None:
    source = C_MODULE.replace(*change)
    if ".abi_major" in change[1]:
        source = source.replace("SMOS_MODULE_HEADER", ".magic = SMOS_MODULE_MAGIC")
    fd = build_module(compiler, tmp_path, source)
    try:
        with Shard(ShardConfig()) as shard, pytest.raises(ShardError, match=reason) as raised:
            shard.load_c(fd, "module.c", "v1", params)
    finally:
        os.close(fd)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "module.so").write_bytes(b"\x7fELF" + bytes(100))
    fd = os.open(tmp_path / "module.so", os.O_RDONLY)
    try:
        with Shard(ShardConfig()) as shard, pytest.raises(ShardError, match=r"module\.so"):
            shard.load_c(fd, "module.so", "v1", {})
    finally:
        os.close(fd)


# ---- threads and the GIL ----


def test_other_threads_go_on_while_the_engine_runs(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "many.pcap", conversations(100))
    with Shard(ShardConfig()) as shard:
        shard.open_captures([path], loop=True)
        turns = 0
        done = threading.Event()

        def spin() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                time.sleep(0.001)

        thread = threading.Thread(target=spin)
        thread.start()
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            shard.run(0.25)
        done.set()
        thread.join()
        # Were the GIL held, a thread would get a turn only between the runs.
        assert turns > 20


def test_interrupt_from_another_thread_ends_a_run(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "many.pcap", conversations(100))
    with Shard(ShardConfig()) as shard:
        shard.open_captures([path], loop=True)
        timer = threading.Timer(0.1, shard.interrupt)
        timer.start()
        began, result = time.monotonic(), Run(0)
        while not result & Run.INTERRUPTED and time.monotonic() - began < 20:
            result = shard.run(30.0)
        timer.join()
        assert result & Run.INTERRUPTED


def test_modules_are_prepared_beside_the_running_engine(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "many.pcap", conversations(100))
    calls = 0

    def dispatch(call: Any) -> None:
        nonlocal calls
        calls += 1

    with Shard(ShardConfig()) as shard:
        shard.open_captures([path], loop=True)
        boxes: list[Any] = []
        thread = threading.Thread(target=lambda: boxes.append(python_box(shard, "late", dispatch, PKT_IN)))
        thread.start()
        for _ in range(1000):
            shard.run(0.01)
            if not thread.is_alive():
                break
        thread.join()
        shard.commit(boxes[0])
        for _ in range(100):
            shard.run(0.01)
            if calls:
                break
        assert calls > 0
        removed = shard.remove("late")
        after = calls
        shard.run(0.05)
        assert calls == after
        assert removed.idle


# ---- errors ----


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"memory": 1000}, "memory"),
        ({"max_flows": -1}, "max_flows"),
        ({"max_flows": 2**64}, "max_flows"),
        ({"flow_segments": 2**40}, "flow_segments"),
        ({"depth": 1.5}, "depth"),
        ({"overlap_policy": "newest"}, "overlap_policy: 'newest'; choose one of first, last"),
        ({"key": "mac"}, "key: 'mac'; choose one of 5tuple, vlan"),
        ({"checksums": "maybe"}, "checksums"),
        ({"publish": frozenset({"everything"})}, "publish"),
        ({"timeout_udp": -1.0}, "timeout_udp"),
        ({"timeout_udp": float("nan")}, "timeout_udp"),
        ({"hash_key": b"short"}, "hash_key: 5 bytes; give 32"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ShardError, match=reason) as raised:
        Shard(ShardConfig(**settings))
    assert "\n" not in str(raised.value)


def test_bad_captures_and_filters_are_one_line_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "text.pcap").write_text("this is no capture, and longer than a file header would be")
    (tmp_path / "empty.pcap").touch()
    with Shard(ShardConfig()) as shard:
        for name in ("missing.pcap", "text.pcap", "empty.pcap", "."):
            with pytest.raises(ShardError) as raised:
                shard.open_captures([tmp_path / name])
            assert "\n" not in str(raised.value)
            assert str(tmp_path) in str(raised.value)
        with pytest.raises(ShardError, match="filter"):
            shard.set_filter("tcp prt 80")
        with pytest.raises(ShardError, match="reader"):
            shard.open_captures([tmp_path / "text.pcap"], reader="tcpdump")
        with pytest.raises(ShardError, match="list"):
            shard.open_captures("one.pcap")
        with pytest.raises(ShardError, match="NUL"):
            shard.open_captures(["a\0b"])
        with pytest.raises(ShardError, match="reason"):
            shard.finish("tired")


def test_a_closed_shard_says_so(capture: Path) -> None:
    shard = Shard(ShardConfig())
    shard.close()
    for function in (shard.run, shard.take_records, shard.stats, lambda: shard.open_captures([capture])):
        with pytest.raises(ShardError, match="closed"):
            function()
    shard.interrupt()


def test_errors_are_shardmos_errors_of_one_line() -> None:
    assert issubclass(ShardError, ShardmosError)
    assert str(ShardmosError("first\n  second\tthird")) == "first second third"


# ---- the stats segment ----


def test_the_stats_segment_is_read_from_outside(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "many.pcap", conversations(10))
    fd = os.memfd_create("stats")
    try:
        with Shard(ShardConfig(stats_fd=fd)) as shard:
            shard.open_captures([path])
            shard.commit(python_box(shard, "watched", lambda call: None, PKT_IN))
            drain(shard)
            own = shard.stats()
            with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as segment:
                outside = read_stats(segment)
        assert outside.consistent
        assert outside.counters == own.counters
        assert outside.modules == own.modules
        assert len(own.modules[0]["event_calls"]) == 16
        assert sum(own.modules[0]["event_calls"]) == own.modules[0]["calls"] > 0
    finally:
        os.close(fd)


def test_memory_that_is_no_segment_is_refused() -> None:
    for memory in (b"", bytes(10), bytes(4096), b"SMOSSTAT" + bytes(4096)):
        with pytest.raises(SegmentError):
            read_stats(memory)


@given(st.binary(min_size=56, max_size=400), st.integers(0, 600))
def test_any_bytes_are_a_segment_or_refused(data: bytes, size: int) -> None:
    segment = b"SMOSSTAT" + (2).to_bytes(4, "little") + size.to_bytes(4, "little") + data
    try:
        snapshot = read_stats(segment, patience=0)
    except SegmentError:
        return
    assert all(isinstance(value, int) for value in snapshot.counters.values())


def test_a_segment_that_its_writer_left_torn_is_marked(capture: Path) -> None:
    fd = os.memfd_create("stats")
    try:
        Shard(ShardConfig(stats_fd=fd)).close()
        segment = bytearray(os.pread(fd, os.fstat(fd).st_size, 0))
    finally:
        os.close(fd)
    assert read_stats(segment).consistent
    segment[16] |= 1
    assert not read_stats(segment, patience=0).consistent
