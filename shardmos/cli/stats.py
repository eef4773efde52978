"""`shardmos stats`: what a running coordinator's workers counted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shardmos.cli.table import print_whole

if TYPE_CHECKING:
    from rich.console import RenderableType

_GROUPS = (
    ("packets", ("packets", "bytes", "packets_", "bytes_", "passed_", "port_", "bursts")),
    ("drops", ("drop_",)),
    ("protocols", ("flow_packets_", "flow_bytes_", "bad_checksum", "checksum_", "icmp_")),
    ("flows", ("flows_", "flow_limit_now")),
    ("ends", ("end_",)),
    ("streams", ("stream_", "missing_", "retransmits", "buffered_", "buffer_", "fragments_", "datagrams_")),
    ("events", ("event_", "events_")),
)
_MODULE_COLUMNS = ("calls", "errors", "cycles", "drops", "resets", "emitted", "flows_now")


def stats(
    name: Annotated[str, typer.Option("--name", metavar="COORDINATOR", help="Which coordinator.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show them again every second, until Ctrl-C.")] = False,
    zeros: Annotated[bool, typer.Option("--all", help="Counters that are zero, too.")] = False,
) -> None:
    """Show packets, flows, events, drops and modules, per worker and in sum."""
    from shardmos.client import Client

    with Client(name) as client:
        if not watch:
            _print(client.stats(), as_json, zeros)
            return
        if as_json:
            while True:
                typer.echo(json.dumps(client.stats()))
                time.sleep(1)
        from rich.console import Group
        from rich.live import Live

        with Live(refresh_per_second=4) as live:
            before: dict[str, Any] | None = None
            while True:
                now = client.stats()
                live.update(Group(*tables(now, zeros, before)))
                before = now
                time.sleep(1)


def _print(stats: dict[str, Any], as_json: bool, zeros: bool) -> None:
    if as_json:
        typer.echo(json.dumps(stats, indent=2))
        return
    for table in tables(stats, zeros):
        print_whole(table)


def tables(
    stats: dict[str, Any], zeros: bool = False, before: dict[str, Any] | None = None
) -> Iterator[RenderableType]:
    """The stats as tables: workers, counters by group, modules, queues. With `before`, rates besides."""
    from rich.table import Table

    workers, total = stats["workers"], stats["sum"]
    yield _workers(stats, before)
    table = Table(box=None, pad_edge=False)
    table.add_column("counter")
    for worker in workers:
        table.add_column(f"worker {worker['worker']}", justify="right")
    table.add_column("sum", justify="right", style="bold")
    for title, names in grouped(total["counters"], zeros):
        table.add_section()
        table.add_row(f"[bold]{title}[/]")
        for name in names:
            values = [worker["counters"].get(name, 0) for worker in workers]
            table.add_row(f"  {name}", *(f"{value:,}" for value in values), f"{total['counters'][name]:,}")
    yield table
    if total["modules"]:
        yield _modules(total["modules"])
        own = [(f"{m['name']}.{name}", n) for m in total["modules"] for name, n in m.get("counters", {}).items()]
        if any(n or zeros for _, n in own):
            table = Table(box=None, pad_edge=False)
            table.add_column("counters of modules")
            table.add_column("", justify="right")
            for name, n in own:
                if n or zeros:
                    table.add_row(f"  {name}", f"{n:,}")
            yield table
    queues = {**total["queues"], "restarts": total["restarts"], **stats["coordinator"]}
    table = Table(box=None, pad_edge=False)
    table.add_column("queues and coordinator")
    table.add_column("", justify="right")
    for name, value in queues.items():
        if value or zeros:
            table.add_row(f"  {name}", f"{value:,}")
    yield table


def _workers(stats: dict[str, Any], before: dict[str, Any] | None) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("worker", "state"):
        table.add_column(column)
    for column in ("pid", "core", "restarts", "memory", "CPU", "packets/s" if before else "packets"):
        table.add_column(column, justify="right")
    seconds = (stats["time"] - before["time"]) / 1e9 if before else 1.0
    for index, worker in enumerate(stats["workers"]):
        packets = worker["counters"].get("packets", 0)
        if before:
            packets = round((packets - before["workers"][index]["counters"].get("packets", 0)) / seconds)
        table.add_row(
            str(worker["worker"]), worker["state"], str(worker["pid"]), str(worker["core"]), str(worker["restarts"]),
            f"{worker.get('rss_bytes', 0) / (1 << 20):.0f} MiB", f"{worker.get('cpu_seconds', 0):.1f} s",
            f"{packets:,}",
        )  # fmt: skip
    return table


def _modules(modules: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("module")
    table.add_column("version")
    for column in (*_MODULE_COLUMNS, "cycles/call", "commit"):
        table.add_column(column, justify="right")
    for module in modules:
        table.add_row(
            module["name"], module["version"][:12], *(f"{module[column]:,}" for column in _MODULE_COLUMNS),
            f"{module['cycles'] // module['calls']:,}" if module["calls"] else "",
            f"{module['commit_ns'] / 1e3:.0f} us",
        )  # fmt: skip
    return table


def grouped(counters: dict[str, int], zeros: bool) -> Iterator[tuple[str, list[str]]]:
    """Counters by group, in the segment's order; those of no group come last."""
    left = [name for name, value in counters.items() if value or zeros]
    for title, beginnings in _GROUPS:
        names = [name for name in left if any(_belongs(name, each) for each in beginnings)]
        left = [name for name in left if name not in names]
        if names:
            yield title, names
    if left:
        yield "anomalies and others", left


def _belongs(name: str, beginning: str) -> bool:
    return name == beginning or (beginning[-1] == "_" and name.startswith(beginning))
