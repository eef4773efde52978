"""run(): middleboxes over a capture, in this process or in several."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardmos.errors import ModuleError, UsageError
from shardmos.middlebox import Middlebox, _merged
from shardmos.workers.capture import check_workers, drive, make_config, source_paths
from shardmos.workers.load import CModule, blamed, load

if TYPE_CHECKING:
    from shardmos.workers.host import Host
    from shardmos.workers.shard import Shard

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Module = Middlebox | CModule
EventCallback = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class RunResult:
    """What a run over a capture gave."""

    summaries: list[Any] = field(default_factory=list)
    """One for each middlebox, in the order given; a C module's is its line of the stats."""
    counters: dict[str, int] = field(default_factory=dict)
    modules: list[dict[str, Any]] = field(default_factory=list)
    """Stats of each module: calls, errors, cycles, ..."""
    errors: list[str] = field(default_factory=list)
    """Tracebacks of the first handlers that raised."""
    error_count: int = 0


def run(
    source: Source,
    *middleboxes: Middlebox | type[Middlebox] | str,
    workers: int = 1,
    filter: str | None = None,
    on_event: EventCallback | None = None,
    write: str | os.PathLike[str] | None = None,
    **config: Any,
) -> Any:
    """Runs middleboxes over a capture and returns the summary of the one, or a list of several's.

    A middlebox is an instance, a class, or a module as on the command line ("quota.py:limit=5", "count.c"). With
    `workers` above 1 each process has its own instance and `Middlebox.merge` joins the summaries. `on_event` gets what
    the middleboxes emit and log, as dicts. `write` names a pcap file for what passes: without what was dropped, with
    what was edited and injected (one worker). Further keywords are the fields of `ShardConfig`.

    A handler that raises does not end the run; the first error is shown as a warning. Raises ShardmosError.
    """
    if not middleboxes:
        raise UsageError("run() wants at least one middlebox; flows() lists the flows of a capture")
    result = execute(
        source,
        [_module(each) for each in middleboxes],
        workers=workers,
        filter=filter,
        on_event=on_event,
        write=write,
        **config,
    )
    warn(result)
    return result.summaries[0] if len(middleboxes) == 1 else result.summaries


def warn(result: RunResult) -> None:
    """Shows the first handler's error on standard error, and how many there were."""
    if result.error_count:
        times = "once" if result.error_count == 1 else f"{result.error_count} times"
        first = result.errors[0].rstrip() if result.errors else ""
        print(f"warning: handlers raised {times}; the first error:\n{first}", file=sys.stderr)


def execute(
    source: Source,
    modules: list[Module],
    *,
    workers: int = 1,
    filter: str | None = None,
    on_event: EventCallback | None = None,
    write: str | os.PathLike[str] | None = None,
    **config: Any,
) -> RunResult:
    """run() with all that was counted."""
    paths = source_paths(source)
    names = [_name(module) for module in modules]
    for name in names:
        if names.count(name) > 1:
            raise ModuleError(f"module {name} is given twice; set `name` in one of the classes")
    on_events = _unpacker(on_event, {type(each).name for each in modules if isinstance(each, Middlebox)})
    if check_workers(workers) > 1:
        if write is not None:
            raise UsageError("packets are written by one worker, in their order: leave -w out")
        return _in_pool(paths, workers, modules, filter, on_events, config)
    return _alone(paths, modules, filter, on_events, write, config)


class Session:
    """Modules in one shard."""

    def __init__(self, shard: Shard, modules: list[Module]) -> None:
        from shardmos.workers.host import attach

        self._shard = shard
        self._hosts: list[Host | str] = []
        try:
            for module in modules:
                if isinstance(module, CModule):
                    box = module.prepare(shard)
                    shard.commit(box)
                    self._hosts.append(box.name)
                else:
                    with blamed(module):
                        self._hosts.append(attach(shard, module))
        except BaseException:
            self.release()
            raise

    def result(self) -> dict[str, Any]:
        """Plain data: a worker sends it as msgpack."""
        stats = self._shard.stats()
        by_name = {module["name"]: module for module in stats.modules}
        hosts = [host for host in self._hosts if not isinstance(host, str)]
        return {
            "summaries": [by_name.get(host) if isinstance(host, str) else _summary(host) for host in self._hosts],
            "modules": stats.modules,
            "errors": [text for host in hosts for text in host.kept_errors],
            "error_count": sum(host.errors for host in hosts),
        }

    def release(self) -> None:
        """Lets the middleboxes run elsewhere."""
        for host in self._hosts:
            if not isinstance(host, str):
                host.release()


def _summary(host: Host) -> Any:
    with blamed(host.middlebox):
        return host.middlebox.summary()


def _alone(
    paths: list[str],
    modules: list[Module],
    filter: str | None,
    on_events: Callable[[bytes], None] | None,
    write: str | os.PathLike[str] | None,
    config: dict[str, Any],
) -> RunResult:
    from shardmos.workers.pool import PUBLISH
    from shardmos.workers.shard import Shard

    with Shard(make_config(config, publish=PUBLISH if on_events else frozenset())) as shard:
        session = Session(shard, modules)
        try:
            if filter is not None:
                shard.set_filter(filter)
            shard.open_captures(paths)
            if write is not None:
                if os.path.exists(write) and any(path != "-" and os.path.samefile(path, write) for path in paths):
                    raise UsageError(f"{os.fspath(write)!r} is the capture that is read; name another file")
                shard.write(write)
            for _ in drive(shard, on_events):
                pass
            shard.write_end()
            return RunResult(counters=shard.stats().counters, **session.result())
        finally:
            session.release()


def _in_pool(
    paths: list[str],
    workers: int,
    modules: list[Module],
    filter: str | None,
    on_events: Callable[[bytes], None] | None,
    config: dict[str, Any],
) -> RunResult:
    from shardmos.workers.pool import Pool

    tried = [each for each in modules if not (isinstance(each, CModule) and each.program)]
    pool = Pool(
        paths,
        workers,
        config,
        filter=filter,
        setup=lambda shard: Session(shard, modules),
        check=lambda shard: Session(shard, tried),
        records=False,
        on_events=on_events,
    )
    try:
        for _ in pool.batches():
            pass
    except KeyboardInterrupt:
        if any(isinstance(each, CModule) for each in modules):
            pool.interrupt()
        raise
    finally:
        pool.close()
    results = [result for result in pool.results if result is not None]
    summaries = []
    for index, module in enumerate(modules):
        each = [result["summaries"][index] for result in results]
        if isinstance(module, CModule):
            summaries.append(_add_modules(each)[0])
            continue
        with blamed(module):
            summaries.append(type(module).merge(each))
    return RunResult(
        summaries=summaries,
        counters=pool.counters,
        modules=_add_modules([module for result in results for module in result["modules"]]),
        errors=[text for result in results for text in result["errors"]],
        error_count=sum(result["error_count"] for result in results),
    )


def _add_modules(modules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stats of each module, summed over workers."""
    total: dict[str, dict[str, Any]] = {}
    for module in modules:
        name = module["name"]
        if name not in total:
            total[name] = dict(module)
            continue
        have = total[name]
        calls = [a + b for a, b in zip(have["event_calls"], module["event_calls"], strict=True)]
        have.update(_merged(have, module), event_calls=calls, commit_ns=max(have["commit_ns"], module["commit_ns"]))
    return list(total.values())


def _module(given: Any) -> Module:
    if isinstance(given, str):
        return load(given)
    if isinstance(given, type) and issubclass(given, Middlebox):
        return given()
    if isinstance(given, Middlebox | CModule):
        return given
    raise UsageError(
        f"{given!r} is no middlebox; give an instance of a subclass of shardmos.Middlebox, or a module's name"
    )


def _name(module: Module) -> str:
    return os.path.splitext(os.path.basename(module.path))[0] if isinstance(module, CModule) else type(module).name


def _unpacker(on_event: EventCallback | None, python: set[str]) -> Callable[[bytes], None] | None:
    if on_event is None:
        return None
    import msgpack

    from shardmos.workers.emitted import decode_data

    def unpack(events: bytes) -> None:
        for event in msgpack.unpackb(events, strict_map_key=False):
            if event["topic"].startswith("module."):
                event["data"] = decode_data(event["data"], event["topic"].split(".")[1] in python)
            on_event(event)

    return unpack
