"""A worker process: one shard, its packet loop, and its line to the coordinator.

    python -m shardmos.workers.worker FD

FD is a memfd with the worker's specification (msgpack, see `Supervisor`). The packet loop is this process's main
thread: it runs the shard in short turns, looks at the control socket between them, and never waits for anything but
packets.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgpack
import zmq

from shardmos.control.affinity import pin
from shardmos.control.protocol import array_length, pack, unpack
from shardmos.control.rights import find_user
from shardmos.errors import ShardmosError
from shardmos.workers import confine
from shardmos.workers.modules import Prepared, prepare
from shardmos.workers.shard import Run, Shard
from shardmos.workers.shard_config import ShardConfig

TURN_SECONDS = 0.004
FLUSH_SECONDS = 0.05
BEAT_SECONDS = 0.5
REPORT_LIMIT = 100_000
BATCH_HWM = 256
FINI_SECONDS = 3
RINGS_READY = b"rings"
MAX_FDS = 64  # of one port
FAILED_EXIT = 3  # it could not begin, and said why
_CONNECT_SECONDS = 10.0
_SWITCH_SECONDS = 0.0005  # how long a PREPARE thread may keep the GIL from the packet loop


class Orphaned(Exception):
    """The coordinator is gone."""


class Worker:
    """The state of this process. Everything but `_prepare_aside` runs in the main thread."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._index: int = spec["config"]["worker"]
        self._liveness: int = spec["liveness_fd"]
        self._line = socket.socket(fileno=self._liveness)
        self._rest: list[int] = spec["rest_cores"]
        self._live = bool(spec["live"])
        self._sleeps = self._live and not spec["busy_poll"]
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._shard: Shard | None = None
        self._active: dict[str, Prepared] = {}
        self._ready: dict[int, Prepared] = {}  # prepared, by push; waiting for COMMIT or ABORT
        self._retired: list[Prepared] = []
        self._ending: list[threading.Thread] = []  # in fini()
        self._results: queue.SimpleQueue[tuple[int, int, Prepared | None, str]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._state = "starting"
        self._stopping = False
        self._sent = {"batches_sent": 0, "batches_lost": 0, "batch_events_lost": 0, "pushes": 0}
        self._last_flush = self._last_beat = 0.0

    def _connect(self) -> None:
        """Waits for both connections: a confined process can make none."""
        self._context = context = zmq.Context()
        for core in self._rest:  # ZeroMQ's thread stays off the packet core
            context.set(zmq.THREAD_AFFINITY_CPU_ADD, core)
        self._control = context.socket(zmq.DEALER)
        self._control.set(zmq.IDENTITY, self._spec["identity"])
        self._control.set(zmq.LINGER, 200)
        self._control.set(zmq.IMMEDIATE, 1)  # writable only when connected
        self._control.connect(self._spec["control"])
        self._control_fd: int = self._control.get(zmq.FD)  # type: ignore[assignment]
        self._batches = context.socket(zmq.PUSH)
        self._batches.set(zmq.SNDHWM, BATCH_HWM)
        self._batches.set(zmq.LINGER, 500)
        self._batches.set(zmq.IMMEDIATE, 1)
        self._batches.connect(self._spec["batches"])
        for each in (self._control, self._batches):
            if not each.poll(int(_CONNECT_SECONDS * 1000), zmq.POLLOUT):
                raise Orphaned

    # ---- the loop ----

    def main(self) -> int:
        """Until the coordinator says stop, or is gone."""
        security = self._spec["security"]
        try:
            user = find_user(security["user"])
            self._open()
            confine.drop_capabilities(user)
            self._connect()
            if user is not None:
                confine.become(user, self._spec["parent"])
            unfiltered = confine.filter_calls(security["seccomp"])
        except (ShardmosError, MemoryError) as error:
            if self._context is None:
                self._connect()
            self._tell("failed", {"message": str(error) or "out of memory; give a smaller --memory"})
            self._close(1000)
            return FAILED_EXIT
        self._tell("ready", {"pid": os.getpid(), "unfiltered": unfiltered})
        pin([self._spec["core"]])
        while not self._stopping:
            seconds, port_fd = self._turn() if self._state == "running" else (None, -1)
            self._poll(seconds, port_fd)
        self._finish("stopped")
        self._tell("bye", dict(self._sent))
        self._close(500)
        return 0

    def _open(self) -> None:
        port = self._spec["port"]
        self._shard = shard = Shard(ShardConfig(**self._spec["config"]))
        if self._spec["filter"]:
            shard.set_filter(self._spec["filter"])
        if self._spec["live"]:
            for live in self._spec["live"]:
                open_live(shard, live, self._spec["resumed"])
            if self._spec["handover"]:
                shard.set_handover(self._spec["handover"])
        elif port["ring_fd"] is not None:
            shard.open_ring(port["ring_fd"])
        else:
            shard.open_captures(port["files"], loop=port["loop"], rate=port["rate"], as_recorded=port["as_recorded"])

    def _turn(self) -> tuple[float | None, int]:
        """Runs the shard for a little: how long its port has nothing then (None: unknown), and its descriptor or -1."""
        assert self._shard is not None
        if self._sleeps:
            wake = (self._control_fd, self._liveness, self._wake)
            result = self._shard.run(TURN_SECONDS, FLUSH_SECONDS, wake)
        else:
            result = self._shard.run(TURN_SECONDS)
        now = time.monotonic()
        if result & (Run.EVENTS | Run.RECORDS) or now - self._last_flush > FLUSH_SECONDS:
            self._flush(now)
        if self._retired:
            self._free_retired()
        if result & (Run.END | Run.FAILED):
            failure = self._shard.error if result & Run.FAILED else ""
            self._finish("capture_end")
            self._state = "ended"
            self._tell("ended", {"message": failure, **self._sent})
            return None, -1
        if not result & Run.IDLE or self._live:
            return 0.0, -1
        seconds = self._shard.wait_seconds()
        return FLUSH_SECONDS if seconds is None else min(seconds, FLUSH_SECONDS), self._shard.fileno()

    def _poll(self, seconds: float | None, port_fd: int = -1) -> None:
        """Handles what waits on the control side, waiting at most so long for it or for the port."""
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        poller.register(self._liveness, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        if port_fd >= 0:
            poller.register(port_fd, zmq.POLLIN)
        # Rounded up: less than a millisecond would not be waited at all.
        ready = dict(poller.poll(math.ceil((BEAT_SECONDS if seconds is None else seconds) * 1000)))
        if self._liveness in ready:
            self._take_ports()
        if self._wake in ready:
            os.eventfd_read(self._wake)
            self._take_prepared()
        if self._control in ready:
            self._commands()
        now = time.monotonic()
        if now - self._last_beat > BEAT_SECONDS:
            self._last_beat = now
            self._tell("beat", dict(self._sent))

    def _take_ports(self) -> None:
        """An interface went and came back: its port's new descriptors. The end of the line: the coordinator is gone."""
        data, fds, _, _ = socket.recv_fds(self._line, 65536, MAX_FDS)
        if not data:
            raise Orphaned
        assert self._shard is not None
        message = unpack(data)
        place, spec = message["place"], message["spec"]
        spec["fds"] = fds
        try:
            replace_live(self._shard, place, spec)
        except ShardmosError as error:
            self._tell("port-failed", {"message": str(error)})
            return
        for fd in self._spec["live"][place]["fds"]:
            os.close(fd)
        self._spec["live"][place] = spec

    # ---- commands of the coordinator ----

    def _commands(self) -> None:
        handlers: dict[str, Callable[[int, dict[str, Any]], None]] = {
            "start": self._start,
            "prepare": self._begin_prepare,
            "commit": self._commit,
            "abort": self._abort,
            "remove": self._remove,
            "publish": self._publish,
            "stop": self._stop,
        }
        while True:
            try:
                message = unpack(self._control.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            id, args = message["id"], message["args"]
            try:
                handlers[message["op"]](id, args)
            except ShardmosError as error:
                self._refuse(id, str(error))

    def _start(self, id: int, args: dict[str, Any]) -> None:
        """The desired state: modules in their order, and what to publish. Packets are read from here on.

        A worker whose modules rest is told so first, without them, and has them later.
        """
        assert self._shard is not None
        self._shard.set_publish(args["publish"])
        refused = []
        for module in args["modules"]:
            try:
                prepared = prepare(self._shard, module)
                self._shard.commit(prepared.box)
                self._active[prepared.box.name] = prepared
            except ShardmosError as error:
                refused.append(str(error))
        self._shard.set_closed(args["closed"])
        self._state = "running"
        self._answer(id, {"refused": refused})

    def _begin_prepare(self, id: int, args: dict[str, Any]) -> None:
        threading.Thread(target=self._prepare_aside, args=(id, args), name="prepare", daemon=True).start()

    def _prepare_aside(self, id: int, args: dict[str, Any]) -> None:
        pin(self._rest)
        prepared, reason = None, ""
        try:
            assert self._shard is not None
            prepared = prepare(self._shard, args)
        except ShardmosError as error:
            reason = str(error)
        except MemoryError:
            reason = "out of memory"
        except BaseException as error:  # no answer would be taken for a hanging worker
            reason = f"{type(error).__name__}: {error}"
        self._results.put((id, args["push"], prepared, reason))
        os.eventfd_write(self._wake, 1)

    def _take_prepared(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                id, push, prepared, reason = self._results.get_nowait()
                if prepared is None:
                    self._refuse(id, reason)
                else:
                    self._ready[push] = prepared
                    self._answer(id, {"name": prepared.box.name})

    def _commit(self, id: int, args: dict[str, Any]) -> None:
        assert self._shard is not None
        prepared = self._ready.pop(args["push"], None)
        if prepared is None:
            raise ShardmosError("nothing was prepared for this push")
        began = time.perf_counter_ns()
        self._shard.commit(prepared.box)
        old = self._active.get(prepared.box.name)
        if old is not None:
            prepared.take_over(old)
        pause = time.perf_counter_ns() - began
        self._active[prepared.box.name] = prepared
        if old is not None:
            self._retired.append(old)
        self._sent["pushes"] += 1
        self._answer(id, {"pause_ns": pause})

    def _abort(self, id: int, args: dict[str, Any]) -> None:
        prepared = self._ready.pop(args["push"], None)
        if prepared is not None:
            prepared.free()
        self._answer(id, {})

    def _remove(self, id: int, args: dict[str, Any]) -> None:
        assert self._shard is not None
        began = time.perf_counter_ns()
        self._shard.remove(args["name"])
        pause = time.perf_counter_ns() - began
        self._retired.append(self._active.pop(args["name"]))
        self._answer(id, {"pause_ns": pause})

    def _publish(self, id: int, args: dict[str, Any]) -> None:
        assert self._shard is not None
        self._shard.set_publish(args["publish"])
        self._answer(id, {})

    def _stop(self, id: int, args: dict[str, Any]) -> None:
        self._stopping = True
        self._answer(id, {})

    def _free_retired(self) -> None:
        waiting = []
        for old in self._retired:
            if not old.box.idle:
                waiting.append(old)
            elif old.host is None:  # its fini() may take its time, and the packets do not wait for it
                self._ending.append(threading.Thread(target=old.free, name="fini", daemon=True))
                self._ending[-1].start()
            else:
                old.free()
        self._retired = waiting
        self._ending = [each for each in self._ending if each.is_alive()]

    # ---- what goes to the coordinator ----

    def _finish(self, reason: str) -> None:
        """Ends the flows that are open; their records and events are sent."""
        if self._shard is None or self._state in ("starting", "ended"):
            return
        while not self._shard.finish(reason, REPORT_LIMIT if reason == "stopped" else 0) & Run.END:
            self._flush(time.monotonic(), wait=True)
        self._flush(time.monotonic(), wait=True)

    def _flush(self, now: float, wait: bool = False) -> None:
        """Sends what was published. A batch that the coordinator has no room for is dropped, and counted."""
        assert self._shard is not None
        self._last_flush = now
        if events := self._shard.take_events():
            self._send(b"events", events, array_length(events), wait)
        if records := self._shard.take_records():
            from shardmos.workers.binding import RECORD_SIZE

            self._send(b"flows", records, len(records) // RECORD_SIZE, wait)

    def _send(self, kind: bytes, payload: bytes, events: int, wait: bool) -> None:
        self._batches.set(zmq.SNDTIMEO, 300 if wait else 0)
        try:
            self._batches.send_multipart([kind, str(self._index).encode(), payload])
            self._sent["batches_sent"] += 1
        except zmq.Again:
            self._sent["batches_lost"] += 1
            self._sent["batch_events_lost"] += events

    def _answer(self, id: int, result: dict[str, Any]) -> None:
        self._say({"id": id, "ok": result})

    def _refuse(self, id: int, reason: str) -> None:
        self._say({"id": id, "error": reason[:4096]})

    def _tell(self, state: str, args: dict[str, Any]) -> None:
        self._say({"state": state, "args": args})

    def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(zmq.Again):  # only when the coordinator hangs; its requests have time limits
            self._control.send(pack(message), zmq.NOBLOCK)

    def _close(self, linger_ms: int) -> None:
        self._control.close(linger=linger_ms)
        self._batches.close(linger=linger_ms)
        if self._context is not None:
            self._context.term()
        for each in self._ending:
            each.join(FINI_SECONDS)
        if self._shard is not None:
            self._shard.close()


def open_live(shard: Shard, spec: dict[str, Any], resumed: bool) -> None:
    """Adds a live port by the driver of its specification (shardmos.control.ports)."""
    if spec["driver"] == "af_xdp":
        shard.add_xsk_port(spec)  # its memory says what was done before
    elif spec["driver"] == "away":
        shard.set_away(spec)
    else:
        shard.add_packet_port(spec, resumed)


def replace_live(shard: Shard, place: int, spec: dict[str, Any]) -> None:
    """The same for a port that was opened again."""
    if spec["driver"] == "af_xdp":
        shard.replace_xsk_port(place, spec)
    elif spec["driver"] == "away":
        shard.set_away(spec, place)
    else:
        shard.replace_packet_port(place, spec)


class Dealing:
    """The process that reads what cannot be mapped, and deals it to the workers' rings."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec

    def main(self) -> int:
        """Until the captures end. What goes wrong is one line on standard error, and the exit code 1."""
        from shardmos.workers.dealer import Dealer

        port = self._spec["port"]
        pin(self._spec["rest_cores"])
        try:
            with Dealer(
                port["files"], port["ring_fds"], self._spec["owner_seed"], loop=port["loop"], rate=port["rate"],
                as_recorded=port["as_recorded"],
            ) as dealer:  # fmt: skip
                confine.drop_capabilities(None)
                confine.filter_calls(self._spec["security"]["seccomp"])
                os.write(self._spec["liveness_fd"], RINGS_READY)
                while True:
                    result = dealer.run(0.1)
                    if result & Run.FAILED:
                        raise ShardmosError(dealer.error)
                    if result & Run.END:
                        return 0
                    if select.select([self._spec["liveness_fd"]], [], [], 0)[0]:
                        raise Orphaned
        except ShardmosError as error:
            os.write(self._spec["liveness_fd"], str(error).encode("utf-8", "replace")[:4096])
            return 1


def read_spec(fd: int) -> dict[str, Any]:
    """What the supervisor wrote for this process."""
    with open(fd, "rb") as file:
        file.seek(0)
        spec: dict[str, Any] = msgpack.unpackb(file.read())
    return spec


def wait_for_orders(spare: dict[str, Any]) -> dict[str, Any]:
    """A spare process learns which worker it is; it keeps of what it inherited what that worker needs."""
    import shardmos.workers.host  # noqa: F401  what else a worker imports with its first Python module

    with socket.socket(fileno=os.dup(spare["liveness_fd"])) as line:
        line.setblocking(True)
        size = line.recv(4, socket.MSG_WAITALL)
        if len(size) < 4:  # it is not needed any more
            os._exit(0)
        order = line.recv(struct.unpack("=I", size)[0], socket.MSG_WAITALL)
    spec: dict[str, Any] = msgpack.unpackb(order)
    for fd in set(spare["fds"]) - set(spec["fds"]):
        os.close(fd)
    spec["liveness_fd"] = spare["liveness_fd"]
    return spec


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator is told too, and stops its workers
    spec = read_spec(int(sys.argv[1]))
    confine.die_with(spec["parent"])
    sys.setswitchinterval(_SWITCH_SECONDS)
    if spec["role"] == "spare":
        spec = wait_for_orders(spec)
    process: Worker | Dealing = Dealing(spec) if spec["role"] == "dealer" else Worker(spec)
    code = 1
    try:
        code = process.main()
        sys.stderr.flush()
    except Orphaned:
        pass
    finally:
        if sys.exc_info()[0] is not None:
            import traceback

            traceback.print_exc()
        os._exit(code)  # a PREPARE thread may hang; nothing is left to clean up


if __name__ == "__main__":
    main()
