"""The desired state of modules, and how a change of it reaches the workers: PREPARE on all, then COMMIT on all.

A refusal by any worker leaves everything as it was. A worker that dies meanwhile is brought to the desired state when
it is started again, so it can hold nothing up.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shardmos.control.artefact import Artefact, content_version, kind_of
from shardmos.control.compile import Compilers, compile_c
from shardmos.control.slot import Slot
from shardmos.control.supervisor import Supervisor, WorkerGone
from shardmos.errors import ModuleError, ShardmosError

MAX_MODULES = 64  # SMOS_MAX_MODULES
KEPT_VERSIONS = 8
COMMIT_SECONDS = 5.0


@dataclass(slots=True)
class Module:
    """A module that is active, and the versions before it, the newest last."""

    current: Artefact
    earlier: deque[Artefact] = field(default_factory=lambda: deque(maxlen=KEPT_VERSIONS))


class Rollout:
    """One change at a time. `modules` is the desired state, in the chain's order."""

    def __init__(self, supervisor: Supervisor, prepare_seconds: float) -> None:
        self._supervisor = supervisor
        self._prepare_seconds = prepare_seconds
        self._lock = asyncio.Lock()
        self._pushes = itertools.count(1)
        self.modules: dict[str, Module] = {}
        self.compilers = Compilers()

    async def bring_up(self, slot: Slot, publish: list[str]) -> list[str]:
        """Gives a new or rested worker the desired state; returns what it refused. Its packets begin here."""
        if slot.rests:  # without modules no change of them concerns it, and its port waits for nobody's
            if not self.modules:  # whatever it died of, nothing is there that would judge its packets
                slot.rests = "open"
            return await self._begin(slot, [], publish, slot.rests)
        async with self._lock:
            modules = [module.current.to_worker() for module in self.modules.values()]
            return await self._begin(slot, modules, publish, "")

    async def _begin(self, slot: Slot, modules: list[dict[str, Any]], publish: list[str], rests: str) -> list[str]:
        args = {"modules": modules, "publish": publish, "closed": rests == "closed"}
        answer = await self._supervisor.ask(slot, "start", args, self._prepare_seconds)
        if slot.state in ("ready", "resting"):  # before the lock is given up: the next push must reach it
            slot.state = "resting" if rests else "running"
        return list(answer["refused"])

    async def push(self, file: str, content: bytes, params: dict[str, str], rename: str | None) -> dict[str, Any]:
        """Puts a module, or a new version of one, in place on all workers."""
        kind = kind_of(file, content)
        async with self._lock:
            version = content_version(content)
            for name, module in self.modules.items():
                same = (version, tuple(sorted(params.items())), rename) == module.current.identity
                if same and module.current.file == file:
                    return {"name": name, "version": version, "unchanged": True}
            code = await asyncio.to_thread(compile_c, content, file, self.compilers) if kind == "c" else content
            return await self._roll_out(Artefact(file, kind, version, code, params, rename))

    async def rollback(self, name: str) -> dict[str, Any]:
        """Puts the version before the current one in its place."""
        async with self._lock:
            module = self._module(name)
            if not module.earlier:
                raise ModuleError(f"module {name}: no earlier version is kept")
            result = await self._roll_out(module.earlier[-1], back=True)
            return {**result, "earlier": len(module.earlier)}

    async def remove(self, name: str) -> dict[str, Any]:
        """Takes a module out on all workers."""
        async with self._lock:
            module = self._module(name)
            slots = [slot for slot in self._supervisor.slots if slot.alive]  # where there is none, it is in none
            del self.modules[name]
            answers = await self._on_all(slots, "remove", {"name": name}, COMMIT_SECONDS)
            self._end_the_diverged(slots, answers)
            self._supervisor.end_rests()
            pauses = [answer["pause_ns"] for answer in answers if isinstance(answer, dict)]
            return {"name": name, "version": module.current.version, "pause_ns": pauses, "workers": len(pauses)}

    def _module(self, name: str) -> Module:
        if name not in self.modules:
            there = f"there are {', '.join(self.modules)}" if self.modules else "there is none"
            raise ModuleError(f"no module {name}; {there}")
        return self.modules[name]

    # ---- two phases ----

    async def _roll_out(self, artefact: Artefact, back: bool = False) -> dict[str, Any]:
        slots, push = self._slots(), next(self._pushes)
        loop = asyncio.get_running_loop()
        began = loop.time()
        answers = await self._on_all(slots, "prepare", {"push": push, **artefact.to_worker()}, self._prepare_seconds)
        prepared = loop.time()
        try:
            name = self._agreed_name(slots, answers, artefact)
        except ShardmosError:
            await self._on_all(slots, "abort", {"push": push}, COMMIT_SECONDS)
            raise
        replaced = self._record(name, artefact, back)
        resting = [slot for slot in slots if slot.state == "resting"]
        slots = [slot for slot in slots if slot not in resting]
        await self._on_all(resting, "abort", {"push": push}, COMMIT_SECONDS)  # they begin with what is desired now
        self._supervisor.end_rests()
        answers = await self._on_all(slots, "commit", {"push": push}, COMMIT_SECONDS)
        self._end_the_diverged(slots, answers)
        pauses = [answer["pause_ns"] for answer in answers if isinstance(answer, dict)]
        return {
            "name": name,
            "version": artefact.version,
            "kind": artefact.kind,
            "replaced": replaced,
            "unchanged": False,
            "workers": len(pauses) + len(resting),
            "prepare_seconds": prepared - began,
            "commit_seconds": loop.time() - prepared,
            "pause_ns": pauses,
        }

    def _agreed_name(self, slots: list[Slot], answers: list[Any], artefact: Artefact) -> str:
        for slot, answer in zip(slots, answers, strict=True):
            if isinstance(answer, WorkerGone):
                if slot.answers:  # it hangs in the module's own code, which no thread can be stopped in
                    self._supervisor.kill(slot)
                raise ModuleError(f"module {artefact.file}: {answer}; nothing was changed")
            if isinstance(answer, BaseException):
                raise answer if isinstance(answer, ShardmosError) else ModuleError(f"module {artefact.file}: {answer}")
        names = {answer["name"] for answer in answers}
        if len(names) != 1:
            raise ModuleError(f"module {artefact.file}: its name differs between workers ({', '.join(sorted(names))})")
        name = str(names.pop())
        if name not in self.modules and len(self.modules) >= MAX_MODULES:
            raise ModuleError(f"module {name}: at most {MAX_MODULES} modules can be active; remove one first")
        return name

    def _record(self, name: str, artefact: Artefact, back: bool) -> str | None:
        module = self.modules.get(name)
        if module is None:
            self.modules[name] = Module(artefact)
            return None
        replaced = module.current
        if back:
            module.earlier.pop()
        else:
            module.earlier.append(replaced)
        module.current = artefact
        return replaced.version

    def _end_the_diverged(self, slots: list[Slot], answers: list[Any]) -> None:
        """A worker that could not do what all agreed on starts anew, from the desired state."""
        for slot, answer in zip(slots, answers, strict=True):
            if isinstance(answer, BaseException) and slot.alive:
                self._supervisor.kill(slot)

    def _slots(self) -> list[Slot]:
        slots = [slot for slot in self._supervisor.slots if slot.answers]
        if not slots:
            raise ShardmosError("no worker runs just now; try again in a moment")
        return slots

    async def _on_all(self, slots: Iterable[Slot], op: str, args: dict[str, Any], seconds: float) -> list[Any]:
        asked = [self._supervisor.ask(slot, op, args, seconds) for slot in slots]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    # ---- looking ----

    def listing(self) -> list[dict[str, Any]]:
        """The modules as `ls` shows them."""
        return [
            {
                "name": name,
                "file": module.current.file,
                "kind": module.current.kind,
                "version": module.current.version,
                "params": module.current.params,
                "since": module.current.since,
                "earlier": [artefact.version for artefact in module.earlier],
            }
            for name, module in self.modules.items()
        ]
