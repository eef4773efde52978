"""One shard of the engine as a Python object: a thin, checked face of shardmos/engine.h.

A shard belongs to the thread that runs it. Only `load_c`, `create_python_box`, `interrupt` and a prepared box's `free`
may be called from another one, and only until `close`.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from shardmos.workers.binding import ERROR_SIZE, RECORD_SIZE, escaped, ffi, lib, live_handles
from shardmos.workers.checked import (
    CallError,
    CData,
    ShardError,
    Texts,
    alive,
    check,
    choice,
    encode,
    nanoseconds,
    replay_options,
    text_of,
)
from shardmos.workers.segments import StatsSnapshot, read_stats
from shardmos.workers.shard_config import ShardConfig, native_config, publish_bits

_REASONS = {"capture_end": lib.SMOS_END_CAPTURE, "stopped": lib.SMOS_END_STOPPED}
_TABLE = lib.smos_shard_api()
_engine = lib.smos_shard_engine


class Run(enum.IntFlag):
    """Why `Shard.run` or `Shard.finish` came back."""

    TIME = lib.SMOS_RUN_TIME
    IDLE = lib.SMOS_RUN_IDLE
    RECORDS = lib.SMOS_RUN_RECORDS
    EVENTS = lib.SMOS_RUN_EVENTS
    END = lib.SMOS_RUN_END
    FAILED = lib.SMOS_RUN_FAILED
    INTERRUPTED = lib.SMOS_RUN_INTERRUPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxManifest:
    """What a Python middlebox asks for: registrations are (event, hook, side) by the numbers of shardmos.h."""

    name: str
    filter: str = ""
    state_size: int = 0
    registrations: Sequence[tuple[int, int, int]] = ()
    fail_closed: bool = False


class Box:
    """A module in the engine, prepared or active. Made by `Shard.load_c` and `Shard.create_python_box`."""

    def __init__(self, shard: Shard, pointer: CData, version: str) -> None:
        self._shard = shard
        self._pointer: CData | None = pointer
        self.name: str = ffi.string(lib.smos_box_name(pointer)).decode()
        self.version = version
        self.active = False

    @property
    def idle(self) -> bool:
        """Nothing of it runs or will; a replaced or removed box may be freed then."""
        return self._pointer is None or bool(lib.smos_box_idle(self._pointer))

    def free(self) -> None:
        """Frees a box that was prepared and not committed, or that was replaced or removed. Twice is once."""
        if self.active:
            raise ShardError(f"module {self.name} is active; remove it first")
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._shard._forget(pointer)
            lib.smos_box_free(pointer)

    def count_error(self) -> None:
        """Counts a handler's failure against the module."""
        if self._pointer is not None:
            lib.smos_box_count_error(self._pointer)

    def _held(self) -> CData:
        if self._pointer is None:
            raise ShardError(f"module {self.name} was freed")
        return self._pointer

    def __repr__(self) -> str:
        state = "freed" if self._pointer is None else "active" if self.active else "prepared"
        return f"<Box {self.name} {self.version} {state}>"


class Shard:
    """A shard: open a port, `run` it until END, `finish` it, taking records and events between. A context manager."""

    def __init__(self, config: ShardConfig) -> None:
        self._pointer: CData | None = None
        self._boxes: dict[int, Box] = {}
        self._pending: BaseException | None = None
        self._lent = False
        self._running = False
        native = native_config(config)
        error = ffi.new("char[]", ERROR_SIZE)
        pointer = lib.smos_shard_create(native, error)
        if pointer == ffi.NULL:
            raise ShardError(text_of(error))
        self._pointer = pointer
        self.flow_limit: int = lib.smos_shard_flow_limit(pointer)
        # The bracket's argument is where the C side keeps the GIL's state; it lives as long as the shard.
        self._gil = ffi.new("smos_py_gil_t *")
        lib.smos_py_use_gil(pointer, self._gil)

    # ---- ports ----

    def open_captures(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        loop: bool = False,
        rate: float = 0.0,
        as_recorded: bool = False,
        reader: str = "auto",
    ) -> None:
        """Captures as one sequence in time order; "-" is standard input."""
        texts, options = replay_options(paths, loop, rate, as_recorded, reader)
        error = ffi.new("char[]", ERROR_SIZE)
        check(lib.smos_shard_open_captures(self._open(), texts.array, len(paths), options, error), error)

    def open_ring(self, fd: int) -> None:
        """The hand-over ring in the memory of `fd` (see Dealer)."""
        error = ffi.new("char[]", ERROR_SIZE)
        check(lib.smos_shard_open_ring(self._open(), fd, error), error)

    def add_packet_port(self, spec: Mapping[str, Any], resumed: bool = False) -> None:
        """A live port over packet sockets (a spec of shardmos.control.af_packet).

        `resumed`: another process used its rings before.
        """
        error = ffi.new("char[]", ERROR_SIZE)
        check(lib.smos_shard_add_packet_port(self._open(), _packet_port(spec, resumed), error), error)

    def replace_packet_port(self, place: int, spec: Mapping[str, Any]) -> None:
        """The port that was added as number `place` goes on with other sockets. Between runs."""
        error = ffi.new("char[]", ERROR_SIZE)
        check(lib.smos_shard_replace_packet_port(self._open(), place, _packet_port(spec, False), error), error)

    def add_xsk_port(self, spec: Mapping[str, Any]) -> None:
        """A live port over AF_XDP sockets (a spec of shardmos.control.af_xdp)."""
        error = ffi.new("char[]", ERROR_SIZE)
        check(lib.smos_shard_add_xsk_port(self._open(), _xsk_port(spec), error), error)

    def replace_xsk_port(self, place: int, spec: Mapping[str, Any]) -> None:
        """As `replace_packet_port`."""
        error = ffi.new("char[]", ERROR_SIZE)
        check(lib.smos_shard_replace_xsk_port(self._open(), place, _xsk_port(spec), error), error)

    def set_away(self, spec: Mapping[str, Any], place: int = -1) -> None:
        """A port whose interface is gone: one more, or in the place of the port that was added as number `place`."""
        error = ffi.new("char[]", ERROR_SIZE)
        check(lib.smos_shard_set_away(self._open(), place, len(spec["names"]), error), error)

    def set_handover(self, spec: Mapping[str, Any]) -> None:
        """Rings from and to the other workers (a spec of shardmos.control.handover); after the ports were added."""
        error = ffi.new("char[]", ERROR_SIZE)
        ways = (spec["from"], spec["to"], spec["bells"], int(spec["scattered"]))
        check(lib.smos_shard_set_handover(self._open(), *ways, error), error)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes what passes, edited and injected packets included, into a pcap file. Once captures are open."""
        error = ffi.new("char[]", ERROR_SIZE)
        check(lib.smos_shard_write(self._open(), os.fsencode(path), error), error)

    def write_end(self) -> None:
        """After the end: what was to be written is in its file. ShardError if not; nothing where nothing is written."""
        error = ffi.new("char[]", ERROR_SIZE)
        check(lib.smos_shard_write_end(self._open(), error), error)

    def set_filter(self, text: str) -> None:
        """Only packets that match go to the flows (pcap syntax over the innermost IP packet)."""
        error = ffi.new("char[]", ERROR_SIZE)
        check(lib.smos_shard_set_filter(self._open(), encode(text, "filter"), error), error)

    # ---- running ----

    def run(self, max_seconds: float = 0.1, idle_seconds: float = 0.0, wake: Sequence[int] = ()) -> Run:
        """Runs without the GIL until something needs the caller, at most for `max_seconds`.

        With `idle_seconds` it sleeps so long where nothing is to be received, until the port is ready or one of the
        descriptors `wake` is readable. An exception that no handler may swallow (KeyboardInterrupt, SystemExit) ends
        the run and is raised here.
        """
        pointer = self._open()
        limit, idle = nanoseconds(max_seconds, "max_seconds"), nanoseconds(idle_seconds, "idle_seconds")
        if self._running:
            raise ShardError("the shard is running already: run() was called from a handler or another thread")
        self._running = True
        try:
            if idle:
                result = lib.smos_shard_run_waiting(pointer, limit, idle, wake, len(wake))
            else:
                result = lib.smos_shard_run(pointer, limit)
        finally:
            self._running = False
        return self._result(result)

    def finish(self, reason: str, report_limit: int = 0) -> Run:
        """Ends open flows, a bounded number a call, until END is in the result; `reason` as in flow records.

        Beyond `report_limit` flows end without record or event and are counted; 0 is no limit.
        """
        pointer = self._open()
        number = choice(reason, _REASONS, "reason")
        if self._running:
            raise ShardError("the shard is running: finish() was called from a handler or another thread")
        self._running = True
        try:
            result = lib.smos_shard_finish(pointer, number, report_limit)
        finally:
            self._running = False
        return self._result(result)

    def _result(self, bits: int) -> Run:
        pending, self._pending = self._pending, None
        if pending is None and escaped:
            pending = escaped.pop()
        if pending is not None:
            raise pending
        return Run(bits)

    def wait_seconds(self) -> float | None:
        """After IDLE: how long to sleep; None: until `fileno` is readable."""
        nanoseconds = lib.smos_shard_wait_ns(self._open())
        return None if nanoseconds < 0 else nanoseconds / 1e9

    def fileno(self) -> int:
        """The port's descriptor to poll, -1 if it has none."""
        return int(lib.smos_shard_fd(self._open()))

    def interrupt(self) -> None:
        """Makes a running `run` return soon. From any thread."""
        pointer = self._pointer
        if pointer is not None:
            lib.smos_shard_interrupt(pointer)

    @property
    def error(self) -> str:
        """What the port failed with, "" if it did not."""
        return text_of(lib.smos_shard_error(self._open()))

    # ---- what it made ----

    def take_records(self) -> bytes:
        """Records of ended flows, an array of `smos_flow_info_t`: a multiple of RECORD_SIZE bytes."""
        records = ffi.new("const smos_flow_info_t **")
        count = lib.smos_shard_take_records(self._open(), records)
        return bytes(ffi.buffer(records[0], count * RECORD_SIZE)) if count else b""

    def take_events(self) -> bytes:
        """Published events as a msgpack array, b"" if there are none."""
        events = ffi.new("const uint8_t **")
        size = lib.smos_shard_take_events(self._open(), events)
        return bytes(ffi.buffer(events[0], size)) if size else b""

    def set_publish(self, names: Iterable[str]) -> None:
        """Which kinds of events go to the queue: "flows", "anomalies", "modules", "log"."""
        lib.smos_shard_set_publish(self._open(), publish_bits(names))

    def set_closed(self, closed: bool) -> None:
        """Whether every packet is dropped, and counted as drop_resting, before any flow sees it."""
        lib.smos_shard_set_closed(self._open(), int(closed))

    def stats(self) -> StatsSnapshot:
        """What the shard counted, from its own segment."""
        header = lib.smos_shard_stats(self._open())
        return read_stats(memoryview(ffi.buffer(header, header.bytes)))

    # ---- modules ----

    def load_c(self, fd: int, path: str, version: str, params: Mapping[str, str]) -> Box:
        """PREPARE a C module from the shared object in `fd`; `path` is for messages. From any thread."""
        texts = Texts([f"{key}={value}" for key, value in params.items()], "parameter")
        error = ffi.new("char[]", ERROR_SIZE)
        pointer = lib.smos_box_load(
            self._open(), fd, encode(path, "path"), encode(version, "version"), texts.array, len(params), error
        )
        return self._box(pointer, version, error)

    def create_python_box(self, manifest: BoxManifest, version: str, dispatch: Callable[[CData], None]) -> Box:
        """PREPARE a module whose handlers are one Python callable. From any thread.

        `dispatch` gets the `const smos_call_t *` of each event, valid during the call. What it raises never reaches
        the engine: an Exception is counted against the module, anything else ends the run that called it.
        """
        shard_pointer = self._open()
        boxes: list[Box] = []

        def guarded(call: CData) -> None:
            try:
                dispatch(call)
            except Exception:
                boxes[0].count_error()
            except BaseException as error:
                self.end_run_with(error)

        name, filter_text = encode(manifest.name, "module name"), encode(manifest.filter, "filter")
        keep = [ffi.new("char[]", name), ffi.new("char[]", filter_text)]
        registrations = ffi.new("smos_registration_t[]", len(manifest.registrations) + 1)
        for entry, (event, hook, side) in zip(registrations, manifest.registrations, strict=False):
            entry.event, entry.hook, entry.side, entry.handler = event, hook, side, lib.smos_py_dispatch
        registrations[len(manifest.registrations)].event = lib.SMOS_EVENT_COUNT
        native = ffi.new("smos_module_t *")
        native.magic, native.abi_major, native.abi_minor = (
            lib.SMOS_MODULE_MAGIC,
            lib.SMOS_ABI_MAJOR,
            lib.SMOS_ABI_MINOR,
        )
        native.name, native.filter = keep
        native.state_size, native.fail_closed = manifest.state_size, int(manifest.fail_closed)
        native.registrations = registrations

        handle = ffi.new_handle(guarded)
        key = int(ffi.cast("uintptr_t", handle))
        live_handles[key] = handle
        error = ffi.new("char[]", ERROR_SIZE)
        pointer = lib.smos_box_create(
            shard_pointer, native, encode(version, "version"), handle, lib.smos_py_release, error
        )
        if pointer == ffi.NULL:
            live_handles.pop(key, None)
        boxes.append(self._box(pointer, version, error))
        return boxes[0]

    def commit(self, box: Box) -> Box | None:
        """COMMIT between runs: the box joins the chain, or replaces the active one of its name, which is returned."""
        pointer, old = self._open(), ffi.new("smos_box_t **")
        result = lib.smos_shard_commit(pointer, box._held(), old)
        if result == -errno.ENOSPC:
            raise ShardError(f"module {box.name}: at most {lib.SMOS_MAX_MODULES} modules can be active")
        if result < 0:
            raise ShardError(f"module {box.name} cannot be committed: {os.strerror(-result)}")
        box.active = True
        return self._retired(old[0])

    def remove(self, name: str) -> Box:
        """Takes the active module of that name out of the chain, between runs; its per-flow state is gone."""
        old = ffi.new("smos_box_t **")
        result = lib.smos_shard_remove(self._open(), encode(name, "module name"), old)
        if result == -errno.ENOENT:
            raise ShardError(f"no module {name!r} is active")
        if result < 0:
            raise ShardError(f"module {name} cannot be removed: {os.strerror(-result)}")
        removed = self._retired(old[0])
        assert removed is not None
        return removed

    def _box(self, pointer: CData, version: str, error: CData) -> Box:
        if pointer == ffi.NULL:
            raise ShardError(text_of(error))
        box = Box(self, pointer, version)
        self._boxes[int(ffi.cast("uintptr_t", pointer))] = box
        return box

    def _retired(self, pointer: CData) -> Box | None:
        if pointer == ffi.NULL:
            return None
        box = self._boxes[int(ffi.cast("uintptr_t", pointer))]
        box.active = False
        return box

    def _forget(self, pointer: CData) -> None:
        self._boxes.pop(int(ffi.cast("uintptr_t", pointer)), None)

    def call_as(self, box: Box, function: str, *args: Any) -> tuple[int, str]:
        """Calls a function of `smos_api_t` as the box: in its handlers, between runs, or before its commit.

        Its result, and for a negative one what the engine says about it.
        """
        shard = self._open()
        before = lib.smos_shard_use(shard, box._held())
        try:
            result = int(getattr(_TABLE, function)(_engine(shard), *args))
            words = text_of(_TABLE.last_error(_engine(shard))) if result < 0 else ""
        finally:
            lib.smos_shard_use(shard, before)
        return result, words

    def end_run_with(self, error: BaseException) -> None:
        """From a handler: the run that called it ends and raises `error`."""
        self._pending = self._pending or error
        self.interrupt()

    def keep_memory(self) -> None:
        """Somebody holds memory of a packet beyond its call: what packets lie in stays mapped after `close`."""
        self._lent = True

    # ---- for handlers, during their call ----

    def flow_info(self, flow: int) -> bytes | None:
        """The flow as it is now, the bytes of a `smos_flow_info_t`; None if it has ended."""
        info = ffi.new("smos_flow_info_t *")
        result = lib.smos_py_flow_info(self._open(), flow, info)
        if result < 0:
            return None
        return bytes(ffi.buffer(info, RECORD_SIZE))

    def drop(self) -> None:
        """Drops the current packet. ModuleError outside of one."""
        if lib.smos_py_drop(self._open()) < 0:
            raise CallError("drop() outside of a packet: no packet caused this event")

    def reset(self, flow: int) -> bool:
        """Ends the flow with RSTs (inline) and drops what follows of it. False if it had ended."""
        return alive(lib.smos_py_reset(self._open(), flow), "reset")

    def stop(self, flow: int, side: int) -> bool:
        """The running module gets no more events of that side of the flow. False if it had ended."""
        return alive(lib.smos_py_stop(self._open(), flow, side), "stop")

    def emit(self, topic: str, data: bytes) -> bool:
        """Publishes an event of the running module. False if the queue was full (counted)."""
        result = lib.smos_py_emit(self._open(), encode(topic, "topic", CallError), ffi.from_buffer(data), len(data))
        if result == -errno.ENOBUFS:
            return False
        if result == -errno.EMSGSIZE:
            raise CallError(
                f"emit(): {len(data)} bytes on topic {topic!r}; at most 65536 can be sent, on a topic of at most 64"
            )
        if result < 0:
            raise CallError(f"emit() on topic {topic!r}: {os.strerror(-result)}")
        return True

    def log(self, level: int, text: str) -> None:
        """A line of log; never blocks, lines above the rate limit are counted and dropped."""
        if not isinstance(text, str):
            raise CallError(f"log(): {text!r} is no text")
        if not isinstance(level, int):
            raise CallError(f"log(): level {level!r}; 0 is debug, 1 info, 2 warning, 3 error")
        data = text.encode("utf-8", "replace").replace(b"\0", b" ")
        lib.smos_py_log(self._open(), min(max(level, 0), 3), data)

    def flow_count(self) -> int:
        """Flows alive."""
        return int(_TABLE.flow_count(_engine(self._open())))

    def now_ns(self) -> int:
        """Packet time in nanoseconds since the epoch."""
        return int(lib.smos_py_now_ns(self._open()))

    # ---- the end ----

    def close(self) -> None:
        """Frees everything: ports, flows, modules. Twice is once."""
        if self._pointer is None:
            return
        if self._running:
            raise ShardError("the shard is running: close() was called from a handler or another thread")
        for box in [box for box in self._boxes.values() if not box.active]:
            box.free()
        pointer, self._pointer = self._pointer, None
        if not self._lent:
            lib.smos_shard_destroy(pointer)
        for box in self._boxes.values():  # the shard freed its active ones
            box.active, box._pointer = False, None
        self._boxes.clear()

    def _open(self) -> CData:
        if self._pointer is None:
            raise ShardError("the shard is closed: its run is over")
        return self._pointer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self, suppress: Any = contextlib.suppress) -> None:  # at exit the module's own names are gone
        with suppress(Exception):
            self.close()


def _packet_port(spec: Mapping[str, Any], resumed: bool) -> CData:
    native = ffi.new("smos_packet_port_t *")
    native.fd[0], native.fd[1] = [*spec["fds"], -1][:2]
    native.block_bytes, native.blocks, native.frame_bytes = spec["block_bytes"], spec["blocks"], spec["frame_bytes"]
    native.mtu, native.linktype = spec["mtu"], spec["linktype"]
    native.resumed, native.fail_open = int(resumed), int(spec["fail_open"])
    for place, name in enumerate(spec["names"]):
        ffi.memmove(native.name[place], name.encode()[:15], len(name.encode()[:15]))
    return native


def _xsk_port(spec: Mapping[str, Any]) -> CData:
    native = ffi.new("smos_xsk_port_t *")
    native.memory_fd, *sockets = spec["fds"]
    for place, fd in enumerate(sockets):
        native.fd[place] = fd
    native.sockets[0], native.sockets[1] = [*spec["sockets"], 0][:2]
    native.frames, native.frame_bytes, native.ring = spec["frames"], spec["frame_bytes"], spec["ring"]
    native.mtu = spec["mtu"]
    native.fail_open, native.busy_poll = int(spec["fail_open"]), int(spec["busy_poll"])
    for place, name in enumerate(spec["names"]):
        ffi.memmove(native.name[place], name.encode()[:15], len(name.encode()[:15]))
    return native
