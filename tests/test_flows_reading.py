"""flows(): what a capture holds, whole, in order, with any number of workers, nothing left when one leaves early."""

from __future__ import annotations

import gc
import gzip
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from traffic import ACK, CLIENT, FIN, PSH, SERVER, SYN, conversation, conversations, tcp_frame, write_pcap

from shardmos import Flow, ShardmosError, flows
from shardmos.errors import UsageError

REQUEST, RESPONSE = b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nhello"


def rows(*args: object, **kwargs: object) -> Counter[str]:
    return Counter(flow.to_json() for flow in flows(*args, **kwargs))  # type: ignore[arg-type]


def children() -> list[psutil.Process]:
    return psutil.Process().children()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pcap(tmp_path_factory.mktemp("many") / "many.pcap", conversations(3000))


def test_one_connection(capture: Path) -> None:
    (flow,) = flows(capture)
    assert isinstance(flow, Flow)
    assert (flow.proto, flow.client_endpoint, flow.server_endpoint) == ("tcp", "10.0.0.1:40000", "10.0.0.2:80")
    assert flow.payload_bytes == flow.stream_bytes == (len(REQUEST), len(RESPONSE))
    assert flow.wire_bytes == (5 * 54 + len(REQUEST), 3 * 54 + len(RESPONSE))
    assert (flow.conn_state, flow.midstream, flow.end_reason) == ("SF", False, "fin")
    assert flow.duration == pytest.approx(0.007)
    assert flow.sha256 is None and flow.ranges is None


def test_hashes_are_of_what_each_end_sent(capture: Path) -> None:
    (flow,) = flows(capture, hash="sha256")
    sent = [hashlib.sha256(data).hexdigest() for data in (REQUEST, RESPONSE)]
    assert flow.sha256 == tuple(sent)
    assert flow.ranges == ([(0, len(REQUEST), sent[0])], [(0, len(RESPONSE), sent[1])])


def test_a_loss_cuts_the_stream_into_ranges(tmp_path: Path) -> None:
    a, b = b"A" * 100, b"B" * 50
    frames = [
        tcp_frame(CLIENT, SERVER, 1000, 0, SYN),
        tcp_frame(SERVER, CLIENT, 9000, 1001, SYN | ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK),
        tcp_frame(CLIENT, SERVER, 1001, 9001, ACK | PSH, a),
        # 30 bytes from 1101 on are lost before the capture; the server has them
        tcp_frame(CLIENT, SERVER, 1131, 9001, ACK | PSH, b),
        tcp_frame(SERVER, CLIENT, 9001, 1181, ACK),
        tcp_frame(CLIENT, SERVER, 1181, 9001, ACK | FIN),
        tcp_frame(SERVER, CLIENT, 9001, 1182, ACK | FIN),
        tcp_frame(CLIENT, SERVER, 1182, 9002, ACK),
    ]
    (flow,) = flows(write_pcap(tmp_path / "loss.pcap", frames), hash="sha256")
    assert flow.sha256 == (hashlib.sha256(a + b).hexdigest(), None)
    assert flow.ranges == (
        [(0, 100, hashlib.sha256(a).hexdigest()), (130, 50, hashlib.sha256(b).hexdigest())],
        None,
    )
    assert flow.missing_bytes == (30, 0)


def test_sources(capture: Path, tmp_path: Path) -> None:
    expected = rows(capture)
    packed = tmp_path / "one.pcap.gz"
    packed.write_bytes(gzip.compress(capture.read_bytes()))
    assert rows(str(capture)) == rows([capture]) == rows(os.fsencode(capture)) == rows(packed) == expected
    other = write_pcap(tmp_path / "later.pcap", conversation(client=("10.9.9.9", 1)), start=1_600_000_000.0)
    assert [flow.client for flow in flows([capture, other])] == ["10.9.9.9", "10.0.0.1"]  # in time order


def test_filter_and_key(tmp_path: Path) -> None:
    frames = conversation() + conversation(server=("10.0.0.3", 443))
    path = write_pcap(tmp_path / "two.pcap", frames)
    assert [flow.server_port for flow in flows(path, filter="tcp port 443")] == [443]
    assert sum(1 for _ in flows(path, filter="udp")) == 0
    tagged = [frame[:12] + b"\x81\x00\x00" + bytes([tag]) + frame[12:] for tag in (5, 6) for frame in conversation()]
    path = write_pcap(tmp_path / "vlans.pcap", tagged)
    assert sorted(flow.vlan for flow in flows(path, key="vlan")) == [[5], [6]]


@pytest.mark.parametrize("hash", [None, "sha256"])
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_give_the_same_rows(many: Path, workers: int, hash: str | None) -> None:
    expected = rows(many, hash=hash)
    assert sum(expected.values()) == 3000
    assert rows(many, workers=workers, hash=hash) == expected
    assert children() == []


@pytest.mark.parametrize("kind", ["gzip", "fifo"])
def test_workers_on_what_cannot_be_mapped(many: Path, tmp_path: Path, kind: str) -> None:
    expected = rows(many)
    if kind == "gzip":
        path = tmp_path / "many.pcap.gz"
        path.write_bytes(gzip.compress(many.read_bytes(), 1))
        assert rows(path, workers=2) == expected
    else:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        writer = subprocess.Popen(["sh", "-c", 'cat "$0" > "$1"', str(many), str(path)])
        assert rows(path, workers=2) == expected
        assert writer.wait(10) == 0
    assert children() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_leaving_early_frees_everything(many: Path, workers: int) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before, threads = descriptors(), threading.active_count()
    for _ in flows(many, workers=workers, hash="sha256"):
        break  # the generator is collected here
    gc.collect()
    reading = flows(many, workers=workers)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    never_begun = flows(many, workers=workers)
    del never_begun
    assert (descriptors(), threading.active_count(), children()) == (before, threads, [])


def test_two_readers_at_once(many: Path) -> None:
    both = list(zip(flows(many), flows(many), strict=True))
    assert len(both) == 3000


def test_a_kept_flow_outlives_its_capture(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "gone.pcap", conversation())
    (flow,) = flows(path)
    path.unlink()
    gc.collect()
    assert flow.client == "10.0.0.1" and flow.to_dict()["history"] == flow.history


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cut_capture_gives_its_flows_first(many: Path, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(many.read_bytes()[:-20])
    got = []
    with pytest.raises(ShardmosError, match=r"cut\.pcap") as error:
        for flow in flows(path, workers=workers):
            got.append(flow)
    assert len(got) == 3000
    assert "\n" not in str(error.value)


def test_a_worker_that_dies_is_an_error(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    path = write_pcap(tmp_path / "long.pcap", conversations(400), step=1)
    writer = subprocess.Popen(["sh", "-c", '(cat "$0"; exec sleep 60) > "$1"', str(path), str(fifo)])
    try:
        reading = flows(fifo, workers=2, timeout_closed=1)
        next(reading)
        victim = max((child for child in children() if child.pid != writer.pid), key=lambda child: child.pid)
        victim.kill()
        with pytest.raises(ShardmosError, match="SIGKILL"):
            for _ in reading:
                pass
    finally:
        writer.kill()
        writer.wait()
    assert children() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hash": "md5"}, "md5"),
        ({"key": "mac"}, "5tuple, vlan"),
        ({"checksums": "maybe"}, "verify, ignore"),
        ({"workers": 0}, "whole number"),
        ({"workers": 10_000}, "more than make sense"),
        ({"memory": "much"}, "no size"),
        ({"speed": 1}, "no option 'speed'"),
        ({"filter": "tcp prot 80"}, "filter"),
        ({"overlap_policy": "random"}, "overlap_policy"),
    ],
)
def test_wrong_options_are_one_line(capture: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ShardmosError) as error:
        list(flows(capture, **options))  # type: ignore[arg-type]
    assert message in str(error.value) and "\n" not in str(error.value)


def test_no_source_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        flows([])
    with pytest.raises(UsageError):
        flows(5)  # type: ignore[arg-type]


def test_a_reader_in_a_thread(many: Path) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(sum(1 for _ in flows(many))))
    thread.start()
    thread.join(20)
    assert found == [3000]


def test_the_first_flow_comes_before_the_input_ends(many: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    # The writer waits after what it has; flows of a second and more ago are given out all the same.
    script = (
        "import sys, time; out = open(sys.argv[2], 'wb'); "
        "out.write(open(sys.argv[1], 'rb').read()); out.flush(); time.sleep(20)"
    )
    path = write_pcap(tmp_path / "long.pcap", conversations(400), step=0.1)
    writer = subprocess.Popen([sys.executable, "-c", script, str(path), str(fifo)])
    try:
        begin = time.monotonic()
        reading = flows(fifo, timeout_closed=1)
        assert next(reading).client.startswith("10.1.")
        assert time.monotonic() - begin < 10
        reading.close()  # type: ignore[attr-defined]
    finally:
        writer.kill()
        writer.wait()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_thread_that_began_a_reading_may_end_before_it(tmp_path: Path, workers: int) -> None:
    """Linux ends a process with the thread that forked it, which for a worker is too early."""
    reading = flows(write_pcap(tmp_path / "many.pcap", conversations(3000)), workers=workers)
    first: list[Flow] = []
    thread = threading.Thread(target=lambda: first.append(next(reading)))
    thread.start()
    thread.join()
    assert len(first) + sum(1 for _ in reading) == 3000
    assert [each.name for each in threading.enumerate() if each.name.startswith("shardmos")] == []
    assert children() == []
