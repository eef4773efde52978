"""Starts workers, watches them, starts them again when they die, and stops them. Also carries requests to them.

A worker gets everything by inheritance: its three memory segments, one end of a socket pair whose EOF tells it that the
coordinator is gone, and a memfd with its specification. The segments stay with the coordinator when a worker dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import zmq
import zmq.asyncio

from shardmos.config import Settings
from shardmos.control.affinity import Plan
from shardmos.control.handover import Handover
from shardmos.control.ports import Ports
from shardmos.control.protocol import MAX_TRANSPORT, ProtocolError, bind_private, pack, unpack
from shardmos.control.rights import find_user
from shardmos.control.slot import Slot, Spare
from shardmos.control.stats import WorkerStats, read_breadcrumb
from shardmos.errors import ShardmosError

STOP_SECONDS = 1.2
_BATCH_HWM = 64
_RINGS_SECONDS = 15.0
_BARE_PAUSE = 0.2
_FAILED_EXIT = 3  # of shardmos.workers.worker; that module needs the native library, this one does not

log = logging.getLogger("shardmos")


class WorkerGone(ShardmosError):
    """The worker died, or did not answer in time."""


class Supervisor:
    """The workers of a coordinator. `on_ready` brings a new one to the desired state; `on_event` tells what is."""

    def __init__(
        self,
        context: zmq.asyncio.Context,
        sockets: dict[str, str],
        settings: Settings,
        plan: Plan,
        mappable: bool,
        on_ready: Callable[[Slot], Awaitable[None]],
        on_event: Callable[..., None],
    ) -> None:
        self._sockets, self._settings, self._plan = sockets, settings, plan
        self._on_ready, self._on_event = on_ready, on_event
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._generations = itertools.count(1)
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._owner_seed = secrets.randbits(32)
        self._hash_key = secrets.token_bytes(32)
        find_user(settings["security"]["user"])  # said here, and once
        self._dealer: subprocess.Popen[bytes] | None = None
        self._dealer_line: socket.socket | None = None
        self._spare: Spare | None = None
        self.changed = asyncio.Event()
        self.malformed = 0
        self.failure = ""
        self.control = context.socket(zmq.ROUTER)
        self.control.set(zmq.ROUTER_MANDATORY, 1)
        self.control.set(zmq.LINGER, 0)
        self.control.set(zmq.MAXMSGSIZE, MAX_TRANSPORT)
        bind_private(self.control, sockets["control"])
        self.batches = context.socket(zmq.PULL)
        self.batches.set(zmq.RCVHWM, _BATCH_HWM)
        self.batches.set(zmq.MAXMSGSIZE, MAX_TRANSPORT)
        bind_private(self.batches, sockets["batches"])
        port = settings["port"]
        workers = len(plan.workers) if settings.live else 1
        self._handover = Handover(workers, port["handover"], scattered=port["fanout"] != "owner")
        self.slots = [self._make_slot(index, mappable) for index in range(len(plan.workers))]
        self.ports = Ports(settings, len(plan.workers), self._owner_seed)  # last: nobody closes them if another fails

    def _make_slot(self, index: int, mappable: bool) -> Slot:
        fds = {
            name: os.memfd_create(f"shardmos-{name}-{index}", os.MFD_CLOEXEC)
            for name in ("stats", "state", "breadcrumb")
        }
        ring = None if mappable else os.memfd_create(f"shardmos-ring-{index}", os.MFD_CLOEXEC)
        return Slot(index, self._plan.workers[index], fds, WorkerStats(fds["stats"]), ring)

    # ---- starting ----

    async def start(self) -> None:
        """Starts all processes; they report to `serve_control`. ShardmosError where the captures cannot be read."""
        if self.slots[0].ring_fd is not None:
            self._start_dealer()
            await self._until_rings()
        for slot in self.slots:
            self._start(slot)

    def _start(self, slot: Slot) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        replay, options = self._settings["replay"], self._settings.shard_options()
        slot.identity = f"worker-{slot.index}-{next(self._generations)}".encode()
        slot.state, slot.liveness, slot.message = "starting", ours, ""
        spec = {
            "role": "worker",
            "parent": os.getpid(),
            "security": dict(self._settings["security"]),
            "identity": slot.identity,
            "control": f"ipc://{self._sockets['control']}",
            "batches": f"ipc://{self._sockets['batches']}",
            "liveness_fd": theirs.fileno(),
            "core": slot.core,
            "rest_cores": list(self._plan.rest),
            "filter": self._settings["worker"]["filter"],
            "port": {**self._port(replay), "ring_fd": slot.ring_fd},
            "live": self.ports.spec(slot.index),
            "handover": self._handover.spec(slot.index),
            "resumed": slot.process is not None,
            "busy_poll": self._settings["port"]["busy_poll"],
            "config": {
                **options,
                "worker": slot.index,
                "workers": len(self.slots),
                "owner_seed": self._owner_seed,
                "hash_key": self._hash_key,
                **{f"{name}_fd": fd for name, fd in slot.fds.items()},
            },
        }
        inherited = self._inherited(slot)
        process = self._take_spare(slot, spec, inherited) if slot.restarts else None
        if process is None:
            process = self._spawn(spec, theirs, inherited)
            self._watch(process, lambda process: self._died(slot, process))
        else:
            theirs.close()
        slot.process = process

    # ---- a spare process: on a live port a worker that dies is replaced before the rings are full ----

    def prepare_spare(self) -> None:
        """Starts a process that has everything a worker of any slot inherits, and waits to be told which it is."""
        wanted = self._settings.live and self._settings["coordinator"]["spare"]
        if not wanted or self._spare is not None or self._stopping:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        every = {fd for slot in self.slots for fd in self._inherited(slot)}
        spec = {"role": "spare", "parent": os.getpid(), "liveness_fd": theirs.fileno(), "fds": sorted(every)}
        process = self._spawn({**spec, "port": {"files": []}}, theirs, sorted(every))
        spare = Spare(process, ours)
        self._spare = spare
        self._watch(process, lambda process: self._spare_died(spare, process))

    @property
    def has_spare(self) -> bool:
        """A process waits to replace a worker."""
        return self._spare is not None

    def _take_spare(self, slot: Slot, spec: dict[str, Any], inherited: list[int]) -> subprocess.Popen[bytes] | None:
        spare, self._spare = self._spare, None
        if spare is None or spare.process.returncode is not None:
            return None
        order = pack({**spec, "liveness_fd": None, "fds": inherited})
        try:
            spare.line.sendall(struct.pack("=I", len(order)) + order)
        except OSError:
            spare.line.close()
            return None
        assert slot.liveness is not None
        slot.liveness.close()
        slot.liveness, spare.slot = spare.line, slot
        return spare.process

    def _spare_died(self, spare: Spare, process: subprocess.Popen[bytes]) -> None:
        if spare.slot is not None:
            self._died(spare.slot, process)
        elif self._spare is spare:
            spare.line.close()
            self._spare = None

    def drop_spare(self) -> None:
        """What it inherited is no longer what workers use."""
        if self._spare is not None:
            self._spare.line.close()  # it ends at the end of its line
            self._spare = None

    def reopen_ports(self) -> None:
        """Ports whose interface went and came back are opened again, and given to the workers."""
        for place in self.ports.reopen():
            self.drop_spare()
            for slot in self.slots:
                spec = self.ports.spec(slot.index)[place]
                if slot.liveness is None:
                    continue
                with contextlib.suppress(OSError):
                    socket.send_fds(slot.liveness, [pack({"place": place, "spec": spec})], spec["fds"])
        self.prepare_spare()

    def _inherited(self, slot: Slot) -> list[int]:
        return [
            *slot.fds.values(), *([slot.ring_fd] if slot.ring_fd is not None else []),
            *self.ports.fds(slot.index), *self._handover.fds(slot.index),
        ]  # fmt: skip

    @staticmethod
    def _port(replay: Any) -> dict[str, Any]:
        return {key: replay[key] for key in ("files", "loop", "rate", "as_recorded")}

    def _start_dealer(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        rings = [slot.ring_fd for slot in self.slots if slot.ring_fd is not None]
        spec = {
            "role": "dealer",
            "parent": os.getpid(),
            "security": dict(self._settings["security"]),
            "liveness_fd": theirs.fileno(),
            "rest_cores": list(self._plan.rest),
            "owner_seed": self._owner_seed,
            "port": {**self._port(self._settings["replay"]), "ring_fds": rings},
        }
        self._dealer_line = ours
        self._dealer = self._spawn(spec, theirs, rings)
        self._watch(self._dealer, self._dealer_ended)

    async def _until_rings(self) -> None:
        """The rings are laid out by the process that fills them; workers open them after that."""
        assert self._dealer_line is not None
        self._dealer_line.setblocking(False)
        try:
            said = await asyncio.wait_for(self._loop.sock_recv(self._dealer_line, 4096), _RINGS_SECONDS)
        except (TimeoutError, OSError):
            said = b""
        if said != b"rings":
            raise ShardmosError(said.decode("utf-8", "replace") or "the reader of the captures did not start")

    def _spawn(self, spec: dict[str, Any], line: socket.socket, inherited: list[int]) -> subprocess.Popen[bytes]:
        spec_fd = os.memfd_create("shardmos-spec", os.MFD_CLOEXEC)
        try:
            os.write(spec_fd, pack(spec))
            # exec, not fork: no ZeroMQ thread or lock of ours is inherited. A process group of its own: Ctrl-C at the
            # terminal is the coordinator's to handle.
            return subprocess.Popen(
                [sys.executable, "-m", "shardmos.workers.worker", str(spec_fd)],
                stdin=None if "-" in spec["port"]["files"] else subprocess.DEVNULL,
                stdout=sys.stderr,
                pass_fds=[spec_fd, line.fileno(), *inherited],
                process_group=0,
            )
        finally:
            os.close(spec_fd)
            line.close()

    def _watch(self, process: subprocess.Popen[bytes], ended: Callable[[subprocess.Popen[bytes]], None]) -> None:
        fd = os.pidfd_open(process.pid)

        def readable() -> None:
            self._loop.remove_reader(fd)
            os.close(fd)
            process.wait()
            ended(process)
            self.changed.set()

        self._loop.add_reader(fd, readable)

    # ---- dying ----

    def _died(self, slot: Slot, process: subprocess.Popen[bytes]) -> None:
        if process.returncode == _FAILED_EXIT and slot.state == "starting" and not self._stopping:
            self._loop.call_later(0.05, self._died, slot, process)  # its reason is still on the way
            return
        before, slot.state = slot.state, "dead"
        if slot.liveness is not None:
            slot.liveness.close()
            slot.liveness = None
        for future in slot.pending.values():
            if not future.done():
                future.set_exception(WorkerGone(f"worker {slot.index} died"))
        slot.pending.clear()
        if self._stopping:
            return
        if before == "failed":  # it said why
            self.failure = self.failure or slot.message
            self.changed.set()
            return
        crumb = read_breadcrumb(slot.fds["breadcrumb"])
        slot.stats.retire()
        slot.sent_before, slot.sent = slot.queues(), {}
        how = describe_exit(process.returncode)
        inside = f" in module {crumb['module']}" if crumb and crumb["module"] else ""
        log.error("worker %d (process %d) died%s: %s", slot.index, process.pid, inside, how)
        self._on_event("worker-died", worker=slot.index, pid=process.pid, reason=how, breadcrumb=crumb)
        self._spawn_task(self._restart(slot))

    async def _restart(self, slot: Slot) -> None:
        pause, bare = slot.pause(), bool(slot.rests)
        slot.rests, slot.rest = self._while_resting() if pause else "", pause
        if not slot.rests:
            await asyncio.sleep(pause)
        elif bare:  # it died without modules too: a live port is served all the same, but no core is spent on starts
            await asyncio.sleep(min(pause, _BARE_PAUSE))
        if self._stopping:
            return
        slot.restarts += 1
        self._start(slot)
        assert slot.process is not None
        self._on_event("worker-restarted", worker=slot.index, pid=slot.process.pid, restarts=slot.restarts)

    def _while_resting(self) -> str:
        """What becomes of packets while modules rest; nothing: the port waits."""
        if not self._settings.live:
            return ""
        return str(self._settings["port"]["fail"]) if self._settings["port"]["pair"] else "open"

    def end_rests(self) -> None:
        """The modules are others now."""
        for slot in self.slots:
            slot.awake.set()

    def _dealer_ended(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode and not self._stopping:
            assert self._dealer_line is not None
            with contextlib.suppress(OSError):
                self.failure = self._dealer_line.recv(4096).decode("utf-8", "replace")
            self.failure = self.failure or f"the reader of the captures died: {describe_exit(process.returncode)}"

    # ---- talking ----

    async def serve_control(self) -> None:
        """Takes what workers say, for ever."""
        while True:
            frames = await self.control.recv_multipart()
            try:
                identity, data = frames
                slot = next(slot for slot in self.slots if slot.identity == identity)
                message = unpack(data)
                if "state" in message:
                    self._heard(slot, message["state"], message["args"])
                else:
                    self._answered(slot, message)
            except (ProtocolError, StopIteration, ValueError, KeyError, TypeError, AttributeError):
                self.malformed += 1

    def _heard(self, slot: Slot, state: str, args: dict[str, Any]) -> None:
        if state in ("beat", "bye", "ended"):
            slot.sent = {str(key): int(value) for key, value in args.items() if key != "message"}
        if state == "ready":
            slot.state = "ready"
            if args["unfiltered"] and not slot.restarts:
                log.warning("worker %d: %s", slot.index, args["unfiltered"])
            self._spawn_task(self._bring_up(slot))
        elif state == "failed":
            slot.state, slot.message = "failed", str(args["message"])
        elif state == "ended":
            slot.state, slot.message = "ended", str(args["message"])
            if slot.message:
                log.error("worker %d: the port failed: %s", slot.index, slot.message)
            self._on_event("worker-ended", worker=slot.index, message=slot.message)
        self.changed.set()

    async def _bring_up(self, slot: Slot) -> None:
        process = slot.process
        assert process is not None
        try:
            await self._on_ready(slot)
            if slot.state == "resting":
                await self._rest(slot)
            if slot.process is not process:
                return
            if slot.alive:
                self._on_event("worker-started", worker=slot.index, pid=process.pid, core=slot.core)
            if all(each.answers for each in self.slots):
                self.prepare_spare()
        except ShardmosError as error:
            if not self._stopping and slot.process is process:  # else it died of it, and there is another by now
                log.error("worker %d did not start: %s", slot.index, error)
                self.kill(slot)
        self.changed.set()

    async def _rest(self, slot: Slot) -> None:
        """The worker runs without the modules that it died in again and again, before it is given them once more."""
        process, pair = slot.process, bool(self._settings["port"]["pair"])
        assert process is not None
        said = "dropped" if slot.rests == "closed" else "passed on" if pair else "followed"
        log.warning("worker %d runs without modules for %.2g s; its packets are %s", slot.index, slot.rest, said)
        self._on_event("worker-rests", worker=slot.index, pid=process.pid, port=slot.rests, seconds=slot.rest)
        self.prepare_spare()
        self.changed.set()
        slot.awake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(slot.awake.wait(), slot.rest)
        if slot.process is process and slot.state == "resting":
            slot.rests = ""
            await self._on_ready(slot)

    def _answered(self, slot: Slot, message: dict[str, Any]) -> None:
        future = slot.pending.pop(message["id"], None)
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(ShardmosError(str(message["error"])))
        else:
            future.set_result(dict(message["ok"]))

    async def ask(self, slot: Slot, op: str, args: dict[str, Any], seconds: float) -> dict[str, Any]:
        """A worker's answer. ShardmosError with its reason; WorkerGone where none comes."""
        id = next(self._ids)
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        slot.pending[id] = future
        try:
            await self.control.send_multipart([slot.identity, pack({"id": id, "op": op, "args": args})])
            return await asyncio.wait_for(future, seconds)
        except TimeoutError:
            raise WorkerGone(f"worker {slot.index} did not answer {op} within {seconds:g} seconds") from None
        except zmq.ZMQError:
            raise WorkerGone(f"worker {slot.index} cannot be reached") from None
        finally:
            slot.pending.pop(id, None)

    def kill(self, slot: Slot) -> None:
        """Ends a worker that hangs; it is started again as any that dies."""
        if slot.process is not None and slot.process.poll() is None:
            slot.process.send_signal(signal.SIGKILL)

    # ---- stopping ----

    async def stop(self) -> None:
        """Lets workers finish their flows; those that do not return in time are killed."""
        self._stopping = True
        deadline = self._loop.time() + STOP_SECONDS
        processes = [slot.process for slot in self.slots if slot.process is not None]
        if self._dealer is not None:
            self._dealer.kill()
            processes.append(self._dealer)
        for slot in self.slots:
            if slot.process is not None and slot.process.returncode is None:
                try:
                    await self.control.send_multipart([slot.identity, pack({"id": 0, "op": "stop", "args": {}})])
                except zmq.ZMQError:  # it has not come so far
                    slot.process.kill()
        while any(process.returncode is None for process in processes) and self._loop.time() < deadline:
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), max(deadline - self._loop.time(), 0.01))
        for process in processes:
            if process.returncode is None:
                process.kill()
        for process in processes:
            if process.returncode is None:
                process.wait()

    def close(self) -> None:
        """Everything that is left: descriptors, sockets, tasks."""
        for task in self._tasks:
            task.cancel()
        for slot in self.slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.kill()
                slot.process.wait()
            if slot.liveness is not None:
                slot.liveness.close()
            for fd in (*slot.fds.values(), *([slot.ring_fd] if slot.ring_fd is not None else [])):
                os.close(fd)
        if self._dealer_line is not None:
            self._dealer_line.close()
        self.drop_spare()
        self.ports.close()
        self._handover.close()
        self.control.close()
        self.batches.close()

    def _spawn_task(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def describe_exit(code: int | None) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit code {code}"
