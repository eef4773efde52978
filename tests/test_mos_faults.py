"""The defects that were found in mOS (NSDI 2017), one test each: what a right engine does in their place.

Numbers are those of the list that shardmos was founded with; those of the programming model are in
test_mos_faults_api.py. What is expected follows from the RFCs, or from what was sent.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from flow_script import capture, parse
from flow_trace import Trace, check, run
from traffic import ACK, FIN, SYN, checksum, conversation, conversations, ip_frame, tcp_frame, write_pcap

import shardmos as sm
from shardmos.config import load
from shardmos.errors import ShardmosError
from shardmos.events import Event, anomaly_name
from shardmos.run import execute

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)
OPEN = "> S 0(0)\n< S. 0(0) ack 1\n> . 1(0) ack 1\n"


def play(text: str, directory: Path) -> Trace:
    return run(parse(text + "\n= flows 1"), directory)


def received(trace: Trace, side: int, flow: int = 0) -> bytes:
    """What one side got of the flow, in order; gaps left out."""
    handle = trace.flows[flow].handle
    return b"".join(c.data for c in trace.calls if c.event == Event.NEW_DATA and c.side == side and c.flow == handle)


def raised(trace: Trace) -> list[str]:
    return [anomaly_name(call.detail) for call in trace.calls if call.event == Event.ANOMALY]


def letters(offset: int, length: int) -> bytes:
    """What the script language puts into a client's segment that says nothing else."""
    return bytes(ord("a") + (offset + n) % 26 for n in range(length))


@pytest.mark.parametrize("options", ["fe00", "0500", "0201fe00", "01fd0000"])
def test_fault_01_an_option_of_length_zero_does_not_hang(options: str, tmp_path: Path) -> None:
    """RFC 9293 3.1: a length below 2 is malformed; the options end there, the SYN is a SYN."""
    trace = play(f"> S 0(0) <hex {options}>\n< S. 0(0) ack 1\n> . 1(0) ack 1\n> . 1(3) ack 1", tmp_path)
    assert trace.flows[0].tcp_state == ("ESTABLISHED", "ESTABLISHED")
    assert received(trace, 1) == b"abc"
    assert "tcp_invalid_optlen" in raised(trace)


@pytest.mark.parametrize("claimed", [29, 60, 1501, 65535])
def test_fault_02_a_total_length_beyond_the_frame_is_not_believed(claimed: int, tmp_path: Path) -> None:
    """A datagram of 28 bytes in a frame of 42 says it is longer: named, nothing read or counted beyond the frame."""
    frame = ip_frame(CLIENT[0], SERVER[0], 17, struct.pack("!HHHH", 40000, 53, claimed - 20, 0))
    header = frame[14:16] + struct.pack("!H", claimed) + frame[18:24] + bytes(2) + frame[26:34]
    frame = frame[:14] + header[:10] + struct.pack("!H", checksum(header)) + header[12:] + frame[34:]
    result = execute(write_pcap(tmp_path / "a.pcap", [frame]), [])
    assert result.counters["packets"] == 1
    assert result.counters["anomaly.ipv4_trunc_pkt"] == 1
    assert result.counters["flow_bytes_udp"] <= len(frame) - 14


def test_fault_04_a_table_without_room_is_counted_not_followed_into(tmp_path: Path) -> None:
    """An odd number of flows fits, more come, each with both ends: every packet has its place, and memory its owner."""
    talks = [conversation(client=(f"10.2.0.{n}", 4000)) for n in range(50)]
    frames = [talk[step] for step in range(len(talks[0])) for talk in talks]
    for room in (1, 3, 7):
        counters = execute(write_pcap(tmp_path / "a.pcap", frames), [], max_flows=room).counters
        placed = sum(counters[name] for name in counters if name.startswith(("packets_", "drop_")))
        assert counters["packets"] == len(frames) == placed - counters["drop_verdict"] - counters["drop_reset_flow"]
        ends = sum(counters[name] for name in counters if name.startswith("end_") and name != "end_unreported")
        assert counters["flows_made"] == ends + counters["flows_now"]
        assert counters["flows_now"] <= room


def test_fault_05_an_old_active_flow_does_not_keep_idle_ones(tmp_path: Path) -> None:
    """One connection speaks all the time; 50 that came after it fell silent and end by their own timeout."""
    frames = [tcp_frame(CLIENT, SERVER, 1000, 0, SYN), tcp_frame(SERVER, CLIENT, 9000, 1001, SYN | ACK)]
    for n in range(200):
        frames += [tcp_frame((f"10.3.0.{n}", 4000), SERVER, 1, 0, SYN)] if n < 50 else []
        frames += [tcp_frame(CLIENT, SERVER, 1001 + n, 9001, ACK, b"x")]
    path = write_pcap(tmp_path / "a.pcap", frames, step=1.0)
    flows = list(sm.flows(path, timeout_syn=10, timeout_established=10))
    assert sorted(str(flow.end_reason) for flow in flows) == ["capture_end"] + ["idle"] * 50
    (last,) = (flow for flow in flows if flow.end_reason == "capture_end")
    assert last.stream_bytes == (200, 0)


@pytest.mark.parametrize("number", [100, 40_000, 200_000, 3_000_000_000])
def test_fault_06_a_reset_with_any_number_does_not_end_the_watch(number: int, tmp_path: Path) -> None:
    """RFC 5961 3.2: only the next expected number is obeyed."""
    trace = play(f"{OPEN}> . 1(5) ack 1\n> R {number}(0)\n< R {number}(0)\n> . 6(5) ack 1", tmp_path)
    assert received(trace, 1) == letters(0, 10)
    assert trace.flows[0].end_reason == "capture_end"
    assert not [call for call in trace.calls if call.event == Event.ORPHAN]


def test_fault_07_a_segment_that_fails_validation_is_not_processed(tmp_path: Path) -> None:
    """RFC 7323 5.3 (PAWS) and RFC 9293 3.4 (window): not only named, refused. The true one then has its place."""
    opening = (
        "> S 0(0) <TS val 1000 ecr 0>\n< S. 0(0) ack 1 <TS val 2000 ecr 1000>\n> . 1(0) ack 1 <TS val 1001 ecr 2000>\n"
    )
    old = '> . 1(4) ack 1 <TS val 10 ecr 2000> "EVIL"\n'
    far = '> . 900001(4) ack 1 <TS val 1002 ecr 2000> "EVIL"\n'
    true = '> . 1(4) ack 1 <TS val 1003 ecr 2000> "good"\n'
    trace = play(opening + old + far + true, tmp_path)
    assert received(trace, 1) == b"good"
    assert {"pkt_invalid_timestamp", "est_packet_out_of_window"} <= set(raised(trace))
    assert trace.flows[0].stream_bytes == (4, 0)


def test_fault_08_a_hole_larger_than_the_buffer_does_not_end_the_stream(tmp_path: Path) -> None:
    """More lies in flight behind a hole than may be buffered: a GAP, then everything that follows."""
    behind = "".join(f"> . {101 + 100 * n}(100) ack 1\n" for n in range(30))
    trace = play(f"option flow_buffer 1000\n{OPEN}{behind}< . 1(0) ack 3101\n> . 3101(50) ack 1", tmp_path)
    assert [(c.offset, c.length) for c in trace.calls if c.event == Event.GAP] == [(0, 100)]
    assert received(trace, 1) == letters(100, 3050)


def test_fault_09_a_half_closed_receiver_still_gets_its_answer(tmp_path: Path) -> None:
    """RFC 9293 3.6: a close is "I have no more data to send". The client closes after its request."""
    text = f'{OPEN}> F. 1(4) ack 1 "req?"\n< . 1(0) ack 6\n< . 1(6) ack 6 "answer"\n> . 6(0) ack 7\n< F. 7(0) ack 6'
    trace = play(text, tmp_path)
    assert received(trace, 0) == b"answer"
    assert received(trace, 1) == b"req?"


@pytest.mark.parametrize("policy", ["first", "last", "linux", "windows", "solaris"])
def test_fault_10_an_overlap_moves_only_what_it_covers(policy: str, tmp_path: Path) -> None:
    """Ten bytes of other content over 2,000 that wait: 1,990 are as they were, ten are one of the two."""
    segments = "> . 101(2000) ack 1 x*2000\n> . 601(10) ack 1 Y*10\n> . 1(100) ack 1 z*100"
    data = received(play(f"option overlap_policy {policy}\n{OPEN}{segments}", tmp_path), 1)
    assert data[:600] == b"z" * 100 + b"x" * 500
    assert data[600:610] in (b"x" * 10, b"Y" * 10)
    assert data[610:] == b"x" * 1490
    assert policy not in ("first", "last") or data[600:610] == (b"x" if policy == "first" else b"Y") * 10


def test_fault_11_a_segment_from_before_the_head_gives_its_new_bytes(tmp_path: Path) -> None:
    """RFC 9293 3.10.7.4: segments may be trimmed to the window. Both in order and before a hole."""
    trace = play(f"{OPEN}> . 1(100) ack 1\n> . 51(150) ack 1\n> . 301(100) ack 1\n> . 151(150) ack 1", tmp_path)
    assert received(trace, 1) == letters(0, 400)


def test_fault_17_there_may_be_more_workers_than_processors(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "a.pcap", conversations(60))
    alone = sorted(flow.to_json() for flow in sm.flows(path))
    assert sorted(flow.to_json() for flow in sm.flows(path, workers=2 * (os.cpu_count() or 1) + 1)) == alone


@pytest.mark.parametrize(
    "text",
    [
        f'[worker]\nports = ["{"x" * 100_000}"]\n',
        f"{'y' * 100_000} = 1\n",
        "".join(f"[table{n}]\nkey = 1\n" for n in range(2_000)),
        "[" * 50_000,
    ],
    ids=["long value", "long key", "many tables", "deep nesting"],
)
def test_fault_18_no_configuration_is_too_long_for_one_line_of_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "shardmos.toml"
    path.write_text(text)
    with pytest.raises(ShardmosError) as error:
        load(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [2, 3, 5, 6, 7])
def test_fault_19_both_ends_of_a_flow_meet_for_any_number_of_workers(workers: int, tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "a.pcap", conversations(40))
    flows = list(sm.flows(path, workers=workers))
    assert len(flows) == 40
    assert all(flow.packets == (5, 3) and flow.conn_state == "SF" for flow in flows)


def test_fault_21_no_packet_is_dropped_uncounted(tmp_path: Path) -> None:
    """5,000 packets in one instant, far more than a burst holds."""
    frames = [tcp_frame((f"10.4.{n >> 8}.{n & 255}", 4000), SERVER, 1, 0, SYN) for n in range(5000)]
    counters = execute(write_pcap(tmp_path / "a.pcap", frames, step=0.0), []).counters
    assert counters["packets"] == counters["packets_flow"] == 5000
    assert not any(value for name, value in counters.items() if name.startswith("drop_"))


def test_fault_23_tuples_that_collide_in_a_plain_hash_do_not_fill_one_place(tmp_path: Path) -> None:
    """Addresses and ports chosen so that their sum and exclusive or are all the same: every flow is kept, none is
    taken for another, and no bound of a bucket's turns one away."""
    frames = []
    for n in range(2000):
        client, server = (f"10.5.{n >> 8}.{n & 255}", 4000 + n), (f"10.5.{255 - (n >> 8)}.{255 - (n & 255)}", 9000 - n)
        frames += [tcp_frame(client, server, n, 0, SYN), tcp_frame(server, client, n, n + 1, SYN | ACK)]
    result = execute(write_pcap(tmp_path / "a.pcap", frames), [], max_flows=2048)
    assert result.counters["flows_made"] == 2000
    assert result.counters["drop_no_memory"] == result.counters["end_evicted"] == 0


def test_fault_26_a_syn_sent_again_starts_nothing_again(tmp_path: Path) -> None:
    trace = play("> S 0(0)\n+1 > S 0(0)\n+2 > S 0(0)\n< S. 0(0) ack 1\n> . 1(0) ack 1", tmp_path)
    starts = [call.packet for call in trace.calls if call.event == Event.CONN_START]
    assert starts == [1]
    assert {call.packet for call in trace.calls if call.event == Event.REXMIT} == {2, 3}


def test_fault_28_flows_in_time_wait_end_by_their_own_linger_among_thousands(tmp_path: Path) -> None:
    """3,000 connections were closed, their peers' last ACK is in TIME-WAIT; each ends 120 s after its last packet."""
    frames = [f for n in range(3000) for f in conversation(client=(f"10.6.{n >> 8}.{n & 255}", 4000))]
    frames += [tcp_frame(CLIENT, SERVER, 1 + n, 1, ACK, b"x") for n in range(2000)]
    ended: list[tuple[str, int]] = []

    class Ends(sm.Middlebox):
        @sm.on(sm.CONN_END)
        def end(self, flow: sm.LiveFlow, reason: str) -> None:
            ended.append((reason, flow.time_ns - flow.info.end_ns))

    path = write_pcap(tmp_path / "a.pcap", frames, step=0.1)
    sm.run(path, Ends())
    closed = [waited for reason, waited in ended if reason == "fin"]
    assert len(closed) == 3000
    slack = 2 + 2 * 64 * 0.1  # the hand comes by every slot in two seconds, between bursts of 64 packets
    assert all(120 * 10**9 < waited <= (120 + slack) * 10**9 for waited in closed)


def test_fault_29_what_a_full_table_refused_is_not_lost_for_later(tmp_path: Path) -> None:
    """Ten times the room, again and again: afterwards as many flows fit as before."""
    frames = []
    for turn in range(10):
        frames += [tcp_frame((f"10.7.{turn}.{n}", 4000), SERVER, 1, 0, SYN) for n in range(250)]
    frames += [f for n in range(20) for f in conversation(client=(f"10.8.0.{n}", 4000))]
    told: list[tuple[int, int]] = []

    class Watch(sm.Middlebox):
        @sm.on(sm.CONN_END)
        def end(self, flow: sm.LiveFlow) -> None:
            if flow.client.startswith("10.8."):
                told.append(flow.info.stream_bytes)

    result = execute(write_pcap(tmp_path / "a.pcap", frames), [Watch()], max_flows=25)
    assert told == [(18, 24)] * 20
    assert result.counters["flows_made"] == 2520


# ---- Retina and Iris ----


def test_retina_a_a_fin_with_payload_ends_the_connection(tmp_path: Path) -> None:
    """RFC 9293 3.4: the FIN comes after the segment's last byte."""
    text = f"{OPEN}> F. 1(100) ack 1\n< . 1(0) ack 102\n< F. 1(50) ack 102\n> . 102(0) ack 52"
    flow = play(text, tmp_path).flows[0]
    assert (flow.end_reason, flow.conn_state, flow.stream_bytes) == ("fin", "SF", (100, 50))
    script = parse(
        f"{OPEN}* SETUP\n> F. 1(100) ack 1\n< . 1(0) ack 51\n* client FIN_WAIT_1 server CLOSE_WAIT\n= flows 1"
    )
    assert check(script, run(script, tmp_path)) == []


def test_retina_b_an_ack_is_no_syn_ack(tmp_path: Path) -> None:
    trace = play("> S 0(0)\n< . 1(0) ack 1\n> . 1(5) ack 1", tmp_path)
    assert not [call for call in trace.calls if call.event == Event.CONN_SETUP]
    script = parse("> S 0(0)\n< . 1(0) ack 1\n* client SYN_SENT server SYN_RECEIVED\n= flows 1")
    assert check(script, run(script, tmp_path)) == []


def test_retina_c_a_connection_that_nobody_reads_ends_with_its_fins(tmp_path: Path) -> None:
    """No handler wants bytes, so nothing is reassembled; the flow is over all the same."""
    ends: list[str] = []

    class Ends(sm.Middlebox):
        @sm.on(sm.CONN_END)
        def end(self, flow: sm.LiveFlow, reason: str) -> None:
            ends.append(reason)

    result = execute(write_pcap(tmp_path / "a.pcap", conversations(20)), [Ends()])
    assert ends == ["fin"] * 20
    assert result.counters["stream_bytes"] == 0


def test_retina_d_every_buffered_segment_that_became_old_is_let_go(tmp_path: Path) -> None:
    """Ten segments wait, then one brings all their bytes: nothing is delivered twice or stays."""
    waiting = "".join(f"> . {11 + 20 * n}(10) ack 1\n" for n in range(10))
    trace = play(f"{OPEN}{waiting}> . 1(300) ack 1\n< . 1(0) ack 301\n> . 301(5) ack 1", tmp_path)
    assert received(trace, 1) == letters(0, 305)
    assert trace.counters["buffered_bytes_now"] == 0
    assert not [call for call in trace.calls if call.event == Event.GAP]


def test_the_captures_of_these_tests_are_what_they_say(tmp_path: Path) -> None:
    """The script language gives whole frames: a FIN is a FIN (its own tests: test_flow_scripts.py)."""
    data = capture(parse("> F. 1(0) ack 1\n= flows 1"))
    assert data[24 + 16 + 20 + 13] == FIN | ACK
