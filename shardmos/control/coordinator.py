"""The coordinator: the parent process. Holds the desired state, and answers clients; the packets are elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any

import psutil
import zmq
import zmq.asyncio

from shardmos.config import Settings
from shardmos.control import affinity, protocol
from shardmos.control.compile import CompileError
from shardmos.control.events import Publisher
from shardmos.control.lock import NameLock
from shardmos.control.protocol import ProtocolError
from shardmos.control.rollout import Rollout
from shardmos.control.slot import Slot
from shardmos.control.stats import add_counters, sum_modules
from shardmos.control.supervisor import Supervisor
from shardmos.errors import ModuleError, ShardmosError

MAX_AT_WORK = 64  # commands being worked on; more wait in ZeroMQ's bounded queue
_DRAIN_SECONDS = 0.15
_PORTS_SECONDS = 0.5

log = logging.getLogger("shardmos")


class Coordinator:
    """`run` until stopped. Raises ShardmosError where it cannot begin."""

    def __init__(self, settings: Settings, mappable: bool) -> None:
        self._settings = settings
        self._mappable = mappable
        self.name: str = settings["coordinator"]["name"]
        self._began = time.time()
        self._stop = asyncio.Event()
        self._at_work: set[asyncio.Task[None]] = set()
        self._failure = ""
        self._was_up = False
        self.counters = {
            "commands": 0, "commands_malformed": 0, "commands_refused": 0, "replies_lost": 0,
            "pushes": 0, "pushes_refused": 0,
        }  # fmt: skip

    async def run(self) -> None:
        """Takes the name, starts the workers, serves until a signal or the stop command, ends everything."""
        paths = protocol.socket_paths(protocol.runtime_dir(), self.name)
        os.umask(0o077)
        lock = NameLock(paths["lock"], self.name)
        context = zmq.asyncio.Context()
        try:
            for kind in ("commands", "events", "control", "batches"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(paths[kind])  # of one that was killed: the lock says that nobody uses it
            await self._serve(context, paths)
        finally:
            context.destroy(linger=200)
            for kind in ("commands", "events", "control", "batches"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(paths[kind])
            lock.release()
        if self._failure:
            raise ShardmosError(self._failure)

    async def _serve(self, context: zmq.asyncio.Context, paths: dict[str, str]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                loop.add_signal_handler(number, self._stop.set)
        plan = affinity.host_plan(self._settings["coordinator"]["workers"])
        for core in plan.rest:
            context.set(zmq.THREAD_AFFINITY_CPU_ADD, core)
        self.publisher = Publisher(context, paths["events"])
        self.supervisor = supervisor = Supervisor(
            context, paths, self._settings, plan, self._mappable, self._bring_up, self._happened
        )
        self.rollout = Rollout(supervisor, self._settings["coordinator"]["prepare_seconds"])
        tasks: list[asyncio.Task[Any]] = []
        commands: zmq.asyncio.Socket | None = None
        try:
            await supervisor.start()
            affinity.pin(plan.rest)  # after the start: workers inherit where they may run
            tasks += [
                loop.create_task(supervisor.serve_control()),
                loop.create_task(self._take_batches()),
                loop.create_task(self._take_subscriptions()),
            ]
            await self._until_up()
            if not self._stop.is_set():
                commands = self._bind_commands(context, paths["commands"])
                tasks.append(loop.create_task(self._take_commands(commands)))
                self._was_up = True
                log.info(
                    "coordinator %s is up: %d workers on cores %s", self.name, len(plan.workers), list(plan.workers)
                )
                tasks.append(loop.create_task(self._watch_end()))
                tasks.append(loop.create_task(self._watch_ports()))
                await self._until_stopped(tasks)
        finally:
            self._happened("stopping")
            self.rollout.compilers.end()
            if commands is not None:
                await self._finish_work()
            await supervisor.stop()
            await asyncio.sleep(_DRAIN_SECONDS if supervisor.slots[0].process else 0)  # the last batches
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if commands is not None:
                commands.close(linger=200)
            self.publisher.close()
            supervisor.close()
            if self._was_up:
                log.info("coordinator %s has stopped", self.name)

    async def _until_up(self) -> None:
        """All workers run, or the first failure is raised."""
        supervisor = self.supervisor
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            while not all(slot.alive for slot in supervisor.slots) and not self._stop.is_set():
                if supervisor.failure:
                    raise ShardmosError(supervisor.failure)
                if any(slot.restarts for slot in supervisor.slots):
                    raise ShardmosError("a worker died while it started; see the log above")
                supervisor.changed.clear()
                change = asyncio.ensure_future(supervisor.changed.wait())
                await asyncio.wait({stop, change}, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
        finally:
            stop.cancel()

    async def _until_stopped(self, tasks: list[asyncio.Task[Any]]) -> None:
        stop = asyncio.ensure_future(self._stop.wait())
        done, _ = await asyncio.wait({stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task in done:
            if task is not stop and not task.cancelled() and (error := task.exception()):
                raise error

    async def _watch_end(self) -> None:
        """With --exit: stops when the replay has ended. Never returns by itself."""
        supervisor = self.supervisor
        while True:
            supervisor.changed.clear()
            if supervisor.failure:
                self._failure = supervisor.failure
                self._stop.set()
            elif all(slot.state == "ended" for slot in supervisor.slots) and self._settings["replay"]["exit"]:
                self._failure = next((slot.message for slot in supervisor.slots if slot.message), "")
                self._stop.set()
            await supervisor.changed.wait()

    async def _watch_ports(self) -> None:
        """Interfaces that go and come back. Never returns by itself."""
        while True:
            await asyncio.sleep(_PORTS_SECONDS)
            if self.supervisor.ports.ports:
                self.supervisor.ports.look()
                self.supervisor.reopen_ports()

    # ---- workers ----

    async def _bring_up(self, slot: Slot) -> None:
        for reason in await self.rollout.bring_up(slot, self.publisher.wanted()):
            log.error("worker %d: %s", slot.index, reason)
            self._happened("module-refused", worker=slot.index, reason=reason)

    def _happened(self, what: str, **fields: Any) -> None:
        self.publisher.publish("coordinator", event=what, **fields)

    async def _take_batches(self) -> None:
        while True:
            frames = await self.supervisor.batches.recv_multipart()
            self.publisher.take_batch(frames)
            await asyncio.sleep(0)  # a batch that waits is received without a pause: commands have their turn

    async def _take_subscriptions(self) -> None:
        while True:
            if await self.publisher.take_subscription():
                wanted = {"publish": self.publisher.wanted()}
                slots = [slot for slot in self.supervisor.slots if slot.answers]
                asked = [self.supervisor.ask(slot, "publish", wanted, 5.0) for slot in slots]
                await asyncio.gather(*asked, return_exceptions=True)

    # ---- clients ----

    def _bind_commands(self, context: zmq.asyncio.Context, path: str) -> zmq.asyncio.Socket:
        router = context.socket(zmq.ROUTER)
        router.set(zmq.ROUTER_MANDATORY, 1)
        router.set(zmq.MAXMSGSIZE, protocol.MAX_TRANSPORT)
        router.set(zmq.RCVHWM, MAX_AT_WORK)
        protocol.bind_private(router, path)
        return router

    async def _take_commands(self, router: zmq.asyncio.Socket) -> None:
        while True:
            frames = await router.recv_multipart()
            task = asyncio.create_task(self._command(router, frames))
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)
            while len(self._at_work) >= MAX_AT_WORK:
                await asyncio.wait(self._at_work, return_when=asyncio.FIRST_COMPLETED)

    async def _command(self, router: zmq.asyncio.Socket, frames: list[bytes]) -> None:
        self.counters["commands"] += 1
        id: int | str | None = None
        try:
            if len(frames) != 2:
                raise ProtocolError("malformed", f"a command is one frame; {len(frames) - 1} came")
            id, op, args = protocol.decode_request(frames[1])
            answer = protocol.reply(id, await self._do(op, args))
        except ProtocolError as error:
            self.counters["commands_malformed"] += 1
            answer = protocol.error_reply(error.id if id is None else id, error.code, str(error))
        except CompileError as error:
            answer = self._refusal(id, "compile", error, error.details)
        except ModuleError as error:
            answer = self._refusal(id, "module", error)
        except ShardmosError as error:
            answer = self._refusal(id, "refused", error)
        except Exception as error:
            log.exception("a command failed")
            answer = self._refusal(id, "internal", f"{type(error).__name__}: {error}")
        try:
            await router.send_multipart([frames[0], answer], zmq.NOBLOCK)
        except zmq.ZMQError:  # it has gone, or does not read
            self.counters["replies_lost"] += 1

    def _refusal(self, id: int | str | None, code: str, error: object, details: str = "") -> bytes:
        self.counters["commands_refused"] += 1
        return protocol.error_reply(id, code, " ".join(str(error).split()), details)

    async def _do(self, op: str, args: dict[str, Any]) -> Any:
        if op == "push":
            return await self._change(
                "pushed",
                self.rollout.push(args["file"], args["content"], args.get("params") or {}, args.get("name")),
            )
        if op == "rollback":
            return await self._change("rolled-back", self.rollout.rollback(args["name"]))
        if op == "rm":
            return await self._change("removed", self.rollout.remove(args["name"]))
        if op == "stop":
            asyncio.get_running_loop().call_soon(self._stop.set)
            return {}
        looks = {
            "ping": self.ping,
            "status": self.status,
            "stats": self.stats,
            "flows-count": self.flows_count,
            "ls": self.ls,
        }
        return looks[op]()

    async def _change(self, what: str, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        self.counters["pushes"] += 1
        try:
            result = await work
        except ShardmosError as error:
            self.counters["pushes_refused"] += 1
            self._happened("refused", reason=str(error))
            raise
        modules = self.rollout.modules.items()
        self.publisher.python_modules = {name for name, module in modules if module.current.kind == "python"}
        if not result.get("unchanged"):
            log.info("module %s %s (%s)", result["name"], what, result["version"][:12])
            self._happened(what, module=result["name"], version=result["version"], pause_ns=result["pause_ns"])
        return result

    async def _finish_work(self) -> None:
        if self._at_work:
            await asyncio.wait(self._at_work, timeout=0.2)

    # ---- looking ----

    def ping(self) -> dict[str, Any]:
        return {"name": self.name, "pid": os.getpid()}

    def status(self) -> dict[str, Any]:
        from importlib.metadata import PackageNotFoundError, version

        try:
            release = version("shardmos")
        except PackageNotFoundError:
            release = ""
        return {
            "name": self.name,
            "pid": os.getpid(),
            "version": release,
            "since": self._began,
            "port": dict(self._settings["replay"]),
            "ports": self.supervisor.ports.status(),
            "spare": self.supervisor.has_spare,
            "subscriptions": sorted(self.publisher.subscriptions),
            "workers": [self._worker_status(slot) for slot in self.supervisor.slots],
        }

    def _worker_status(self, slot: Slot) -> dict[str, Any]:
        return {
            "worker": slot.index,
            "pid": slot.process.pid if slot.process is not None else 0,
            "core": slot.core,
            "state": slot.state,
            "restarts": slot.restarts,
            "message": slot.message,
            "rights": asdict(rights) if (rights := slot.rights()) else {},
        }

    def stats(self) -> dict[str, Any]:
        """Everything that is counted: per worker and in sum, the queues, and the coordinator's own."""
        workers: list[dict[str, Any]] = []
        total: dict[str, int] = {}
        queues: dict[str, int] = {}
        for slot in self.supervisor.slots:
            snapshot = slot.stats.read()
            add_counters(total, snapshot.counters)
            add_counters(queues, slot.queues())
            workers.append(
                {
                    **self._worker_status(slot),
                    **_process_figures(slot),
                    "heartbeat": snapshot.heartbeat,
                    "counters": snapshot.counters,
                    "modules": snapshot.modules,
                    "queues": slot.queues(),
                }
            )
        ports = self.supervisor.ports.ledger(total)
        for worker in workers if ports else ():
            lost = self.supervisor.ports.dropped(worker["worker"])
            worker["counters"]["port_lost"] = worker["counters"].get("port_lost", 0) + lost
            total["port_lost"] = total.get("port_lost", 0) + lost
        return {
            "name": self.name,
            "time": time.time_ns(),
            "workers": workers,
            "ports": ports,
            "sum": {
                "counters": total,
                "modules": sum_modules(worker["modules"] for worker in workers),
                "queues": queues,
                "restarts": sum(slot.restarts for slot in self.supervisor.slots),
            },
            "coordinator": {
                **self.counters,
                "worker_messages_malformed": self.supervisor.malformed,
                **{f"events_{key}": value for key, value in self.publisher.counters.items()},
            },
        }

    def flows_count(self) -> dict[str, Any]:
        """Flows alive, per worker and in all."""
        each = [slot.stats.read().counters.get("flows_now", 0) for slot in self.supervisor.slots]
        return {"workers": each, "sum": sum(each)}

    def ls(self) -> list[dict[str, Any]]:
        """The modules with what they did."""
        counted = {
            module["name"]: module
            for module in sum_modules(slot.stats.read().modules for slot in self.supervisor.slots)
        }
        listing = self.rollout.listing()
        for module in listing:
            figures = counted.get(module["name"], {})
            module.update({key: figures.get(key, 0) for key in ("calls", "errors", "cycles", "flows_now")})
        return listing


def _process_figures(slot: Slot) -> dict[str, Any]:
    if slot.process is None or slot.process.returncode is not None:
        return {}
    try:
        process = psutil.Process(slot.process.pid)
        times = process.cpu_times()
        return {"rss_bytes": process.memory_info().rss, "cpu_seconds": times.user + times.system}
    except psutil.Error:
        return {}


def run(settings: Settings, mappable: bool) -> None:
    """Runs a coordinator in this process until it is stopped."""
    logging.basicConfig(
        level=settings["coordinator"]["log_level"].upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )

    async def main() -> None:
        await Coordinator(settings, mappable).run()

    asyncio.run(main())
