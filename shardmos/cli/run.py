"""`shardmos run`: middleboxes over captures, then a summary."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from typing import Annotated, Any

import typer

from shardmos.cli.common import (
    Checksums,
    Files,
    Filter,
    Includes,
    Key,
    Memory,
    Mos,
    Read,
    Settings,
    Workers,
    check_includes,
    configuration,
    hint_checksums,
    sources,
)
from shardmos.errors import ShardmosError
from shardmos.run import RunResult, execute, warn
from shardmos.workers.binding import end_on_interrupt
from shardmos.workers.load import load


def run(
    context: typer.Context,
    files: Files = None,
    read: Read = None,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "-m", "--module", metavar="MODULE[:key=value]...", help="A .py file, a .c file or a built-in name; repeat."
        ),
    ] = None,
    mos: Mos = False,
    includes: Includes = None,
    workers: Workers = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Print what modules emit and log, a JSON object a line.")
    ] = False,
    write: Annotated[
        str | None,
        typer.Option("--write", metavar="FILE", help="A pcap file for what passes, as dropped, edited and injected."),
    ] = None,
    checksums: Checksums = "verify",
    filter: Filter = None,
    key: Key = "5tuple",
    memory: Memory = None,
    settings: Settings = None,
) -> None:
    """Run middleboxes over captures, then show what they and the engine counted."""
    program = None
    check_includes(mos, includes)
    if mos:
        from shardmos.mos import split_files

        program, files = split_files(files or [])
    paths = sources(read, files)
    options = configuration(key, checksums, memory, settings)
    loaded = [load(spec) for spec in modules or ()]
    names = [spec.split(":")[0] for spec in modules or ()]
    if program:
        from shardmos.mos import load_mos, program_name

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the program may end itself
        loaded.append(load_mos(program, includes or (), context.obj))
        names.append(program_name(program[0]))
    begin = time.monotonic()
    end_on_interrupt()
    try:
        result = execute(
            paths,
            loaded,
            workers=workers,
            filter=filter,
            on_event=_print_event if events else None,
            write=write,
            **options,
        )
    except SystemExit as error:
        raise ShardmosError(f"a middlebox ended the run: SystemExit: {error}") from None
    seconds = time.monotonic() - begin
    if as_json:
        print(json.dumps(_report(result, seconds), default=_text))
    else:
        # Standard output is the program's own.
        with contextlib.redirect_stdout(sys.stderr if program else sys.stdout):
            _show(result, seconds, names)
    sys.stdout.flush()
    warn(result)
    hint_checksums(result.counters, checksums)


def _report(result: RunResult, seconds: float) -> dict[str, Any]:
    counters = result.counters
    return {
        "packets": counters.get("packets", 0),
        "bytes": counters.get("bytes", 0),
        "flows": counters.get("flows_made", 0),
        "seconds": round(seconds, 6),
        "counters": counters,
        "modules": result.modules,
        "summaries": result.summaries,
        "errors": result.errors,
        "error_count": result.error_count,
    }


def _show(result: RunResult, seconds: float, names: list[str]) -> None:
    from shardmos.cli.table import columns

    counters = result.counters
    print(
        f"{counters.get('packets', 0):,} packets, {counters.get('bytes', 0):,} bytes, "
        f"{counters.get('flows_made', 0):,} flows in {seconds:.2f} s"
    )
    rows = [(name, value) for name, value in counters.items() if value and not name.endswith("_now")]
    if rows:
        print()
        print(columns(("counter", "value"), rows))
    if result.modules:
        print()
        header = ("module", "version", "calls", "errors", "drops", "resets", "emitted")
        print(columns(header, [[_cell(module, name) for name in header] for module in result.modules]))
    own = [(f"{m['name']}.{name}", value) for m in result.modules for name, value in m["counters"].items() if value]
    if own:
        print()
        print(columns(("counter", "value"), own))
    for name, summary in zip(names, result.summaries, strict=True):
        if not (isinstance(summary, dict) and "event_calls" in summary):
            print(f"\n{name}: {json.dumps(summary, default=_text, indent=2)}")


def _cell(module: dict[str, Any], name: str) -> Any:
    if name == "module":
        return module["name"]
    return module["version"][:12] if name == "version" else module[name]


def _print_event(event: dict[str, Any]) -> None:
    print(json.dumps(event, default=_text, ensure_ascii=False))


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
