"""Runs a flow script through a shard with a recording middlebox, and compares what happened with the script."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flow_script import CLIENT, SERVER, SIDES, Expectation, Script, capture, pattern, quoted

from shardmos.events import Event, Hook, Side, anomaly_name, end_reason_text, limit_text, state_text
from shardmos.flow import Flow, split_records
from shardmos.workers.binding import ffi
from shardmos.workers.shard import BoxManifest, Run, Shard
from shardmos.workers.shard_config import ShardConfig

NAMES = ("client", "server")
# Kinds of events that a script must list, where they happen.
EXACT = ("GAP", "ANOMALY", "ERROR", "REXMIT", "SETUP", "ORPHAN")
_INTEGERS = (
    "flow_buffer",
    "flow_segments",
    "depth",
    "gap_bytes",
    "gap_segments",
    "compare_bytes",
    "max_flows",
    "buffer_bytes",
)


@dataclass(frozen=True)
class Happened:
    """One call of the recorder: `packet` is the segment's number from 1, 0 where no packet caused it."""

    packet: int
    event: Event
    hook: int
    side: int
    flow: int
    offset: int
    length: int
    detail: int
    data: bytes


@dataclass
class Trace:
    calls: list[Happened] = field(default_factory=list)
    states: dict[int, tuple[str, ...]] = field(default_factory=dict)  # after packet number, by the events STATE_CHANGE
    flows: list[Flow] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)


def config(script: Script) -> ShardConfig:
    """The script's options as a shard's configuration; numbers where the field wants them."""
    values: dict[str, Any] = {}
    for name, text in script.options.items():
        seconds = name.startswith("timeout_") or name in ("gap_seconds", "max_jump")
        values[name] = float(text) if seconds else int(text) if name in _INTEGERS else text
    return ShardConfig(records=True, **values)


def run(script: Script, directory: Path) -> Trace:
    """Writes the script's capture into `directory` and reads it back through one shard."""
    path = directory / f"{script.name}.pcap"
    path.write_bytes(capture(script))
    trace = Trace()
    states: dict[int, list[str]] = defaultdict(lambda: ["CLOSED", "CLOSED"])
    with Shard(config(script)) as shard:

        def record(call: Any) -> None:
            event = Event(call.event)
            number = int(call.packet.number) if call.packet != ffi.NULL else 0
            data = bytes(ffi.buffer(call.data, call.length)) if event == Event.NEW_DATA else b""
            trace.calls.append(
                Happened(
                    number, event, call.hook, call.side, int(call.flow), call.offset, call.length, call.detail, data
                )
            )
            if event == Event.STATE_CHANGE:
                states[int(call.flow)][call.side] = state_text(call.detail)
            if number and event != Event.ORPHAN:
                trace.states[number] = tuple(states[int(call.flow)])

        registrations = [
            (int(event), int(Hook.BOTH if event == Event.PKT_IN else Hook.NONE), int(Side.BOTH)) for event in Event
        ]
        box = shard.create_python_box(BoxManifest(name="recorder", registrations=registrations), "1", record)
        shard.commit(box)
        shard.open_captures([path])
        records = bytearray()
        done = Run(0)
        while not done & (Run.END | Run.FAILED):
            done = shard.run()
            records += shard.take_records()
        assert not done & Run.FAILED, shard.error
        done = Run(0)
        while not done & Run.END:
            done = shard.finish("capture_end")
            records += shard.take_records()
        trace.counters = dict(shard.stats().counters)
        errors = [module["errors"] for module in shard.stats().modules if module["name"] == "recorder"]
        assert errors == [0], "the recorder itself failed"
    trace.flows = sorted((Flow(record) for record in split_records(bytes(records))), key=lambda flow: flow.start_ns)
    return trace


def check(script: Script, trace: Trace) -> list[str]:
    """What differs from the script, a line each; empty if all is as expected."""
    return [*_steps(script, trace), *_finals(script, trace), *_rules(trace)]


# ---- after each segment ----


def _steps(script: Script, trace: Trace) -> Iterator[str]:
    expected: dict[int, list[Expectation]] = {}
    for expectation in script.expectations:
        expected.setdefault(expectation.packet, []).append(expectation)
    for number in range(1, len(script.segments) + 1):
        calls = [call for call in trace.calls if call.packet == number]
        listed: list[str] = []
        for expectation in expected.get(number, []):
            where = f"{script.name}.flow:{expectation.line} (segment {number})"
            words = expectation.words
            if words[0] in SIDES:
                yield from _states(where, words, trace.states.get(number, ("no flow", "no flow")))
            elif words[:2] == ["NO", "DATA"]:
                got = [call.data for call in calls if call.event == Event.NEW_DATA]
                if got:
                    yield f"{where}: delivered {got!r}, expected nothing"
            elif words[0] == "DATA":
                yield from _data(where, words, calls)
            elif words[0] in EXACT:
                listed.append(" ".join(words))
            else:
                raise ValueError(f"{where}: unknown expectation {' '.join(words)!r}")
        happened = list(dict.fromkeys(text for call in calls if (text := _text(call))))
        if sorted(happened) != sorted(listed):
            yield f"{script.name}.flow: segment {number} raised {happened}, expected {listed}"


def _states(where: str, words: list[str], states: tuple[str, ...]) -> Iterator[str]:
    for name, state in zip(words[::2], words[1::2], strict=True):
        if states[SIDES[name]] != state:
            yield f"{where}: {name} is {states[SIDES[name]]}, expected {state}"


def _data(where: str, words: list[str], calls: list[Happened]) -> Iterator[str]:
    side, offset = SIDES[words[1]], int(words[2])
    data = _piece(words[3], 1 - side, offset)
    got = [call for call in calls if call.event == Event.NEW_DATA and call.side == side]
    text = b"".join(call.data for call in got)
    if not got or got[0].offset != offset or text != data:
        yield f"{where}: {NAMES[side]} got {[(call.offset, call.data) for call in got]}, expected {data!r} at {offset}"


def _text(call: Happened) -> str:
    """An event of the kinds that must be listed, as a script writes it; "" for the others."""
    if call.event == Event.GAP:
        return f"GAP {NAMES[call.side]} {call.offset} {call.length}"
    if call.event == Event.ANOMALY:
        return f"ANOMALY {anomaly_name(call.detail)}"
    if call.event == Event.ERROR:
        return f"ERROR {limit_text(call.detail)}"
    return {Event.REXMIT: "REXMIT", Event.CONN_SETUP: "SETUP", Event.ORPHAN: "ORPHAN"}.get(call.event, "")


# ---- at the end ----


def _piece(word: str, sender: int, offset: int) -> bytes:
    if word.startswith('"'):
        return quoted(word)
    if word[1:2] == "*":
        return word[:1].encode() * int(word[2:])
    length = re.fullmatch(r"\((\d+)\)", word)
    if not length:
        raise ValueError(f'{word!r}: bytes are written "text", X*5 or (length)')
    return pattern(sender, offset, int(length[1]))


def _stream(trace: Trace, flow: int, sender: int) -> list[bytes | int]:
    """What was delivered of a sender's stream: bytes, and the lengths of gaps between."""
    pieces: list[bytes | int] = []
    for call in trace.calls:
        if call.flow != flow or call.side != 1 - sender:
            continue
        if call.event == Event.GAP:
            pieces.append(call.length)
        elif call.event == Event.NEW_DATA:
            last = pieces[-1] if pieces else None
            if isinstance(last, bytes):
                pieces[-1] = last + call.data
            else:
                pieces.append(call.data)
    return pieces


def _finals(script: Script, trace: Trace) -> Iterator[str]:
    for expectation in script.finals:
        where, (key, *values) = f"{script.name}.flow:{expectation.line}", expectation.words
        if key == "flows":
            if len(trace.flows) != int(values[0]):
                yield f"{where}: {len(trace.flows)} flows, expected {values[0]}"
            continue
        if expectation.flow >= len(trace.flows):
            yield f"{where}: there is no flow {expectation.flow + 1}"
            continue
        flow = trace.flows[expectation.flow]
        if key == "bytes":
            sender = SIDES[values[0]]
            wanted = list(_wanted(values[1:], sender))
            got = _stream(trace, flow.handle, sender)
            if got != wanted:
                yield f"{where}: {values[0]}'s bytes are {got}, expected {wanted}"
        else:
            value = getattr(flow, key)
            texts = [_value(item) for item in value] if isinstance(value, tuple) else [_value(value)]
            if texts != values:
                yield f"{where}: {key} is {' '.join(texts)}, expected {' '.join(values)}"


def _wanted(words: list[str], sender: int) -> Iterator[bytes | int]:
    """The pieces of `= bytes`: neighbouring bytes joined, gaps as lengths; `none` is no piece."""
    offset, held = 0, b""
    words = [] if words == ["none"] else list(words)
    while words:
        word = words.pop(0)
        if word == "gap":
            if held:
                yield held
            held, length = b"", int(words.pop(0))
            yield length
        else:
            data = _piece(word, sender, offset)
            held, length = held + data, len(data)
        offset += length
    if held:
        yield held


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


# ---- always ----


def _rules(trace: Trace) -> Iterator[str]:
    """What holds for every flow, whatever the script says."""
    for index, flow in enumerate(trace.flows, 1):
        calls = [call for call in trace.calls if call.flow == flow.handle]
        starts = [(call.hook, call.side) for call in calls if call.event == Event.CONN_START]
        if not starts or len(set(starts)) != len(starts):
            yield f"flow {index}: CONN_START was raised as {starts}"
        ends = sorted((call.side, end_reason_text(call.detail)) for call in calls if call.event == Event.CONN_END)
        if ends != [(CLIENT, flow.end_reason), (SERVER, flow.end_reason)]:
            yield f"flow {index}: CONN_END was raised as {ends}, the flow ended by {flow.end_reason}"
        last = {call.side: state_text(call.detail) for call in calls if call.event == Event.STATE_CHANGE}
        if flow.proto == "tcp" and flow.tcp_state != (last.get(CLIENT, "CLOSED"), last.get(SERVER, "CLOSED")):
            yield f"flow {index}: its states are {flow.tcp_state}, the last STATE_CHANGE said {last}"
        for sender in (CLIENT, SERVER):
            reached = delivered = 0
            for call in calls:
                if call.side == 1 - sender and call.event in (Event.NEW_DATA, Event.GAP):
                    if call.offset != reached:
                        yield f"flow {index}: {NAMES[sender]}'s stream goes on at {call.offset}, expected {reached}"
                    reached = call.offset + call.length
                    delivered += len(call.data)
            if delivered != flow.stream_bytes[sender]:
                yield f"flow {index}: {NAMES[sender]}'s stream_bytes is {flow.stream_bytes[sender]}, {delivered} came"
