"""`shardmos push`, `ls`, `rm`, `rollback`: the modules of a running coordinator."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer

from shardmos.cli.common import Includes, Mos, check_includes
from shardmos.cli.table import print_whole
from shardmos.errors import UsageError

MAX_SHOWN = 40

Name = Annotated[str, typer.Option("--name", metavar="COORDINATOR", help="Which coordinator.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
Module = Annotated[str, typer.Argument(metavar="NAME", help="The module.", show_default=False)]


def push(
    context: typer.Context,
    modules: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="A .py, .c or .so file, or a built-in's name; with --mos the sources of a program.",
            show_default=False,
        ),
    ],
    as_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Another name for a Python module.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A parameter; @FILE: what the file holds; repeat.", show_default=False
        ),
    ] = None,
    mos: Mos = False,
    includes: Includes = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Put a middlebox, or a new version of one, into the running workers."""
    from shardmos.workers.load import parameter

    check_includes(mos, includes)
    params = {}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {setting!r}: give KEY=VALUE")
        params[key] = parameter(key, value)
    if len(modules) > 1 and not mos:
        raise UsageError("one module at a time; several files are the sources of one with --mos")
    from shardmos.client import PUSH_TIMEOUT, Client, RemoteError, push_arguments

    with Client(name) as client:
        arguments = _mos_program(modules, includes, context.obj) if mos else push_arguments(modules[0], as_name, params)
        try:
            result = client.call("push", arguments, PUSH_TIMEOUT)
        except RemoteError as error:
            _show_details(error.details)
            raise
    _show(result, as_json, "pushed")


def _mos_program(files: list[str], includes: list[str] | None, arguments: list[str]) -> dict[str, Any]:
    """The arguments of a push of a mOS program, which is compiled here: its sources are where its author works."""
    from shardmos.mos import load_mos, program_name, split_files

    sources, others = split_files(files)
    if others:
        raise UsageError(f"{others[0]}: --mos takes C sources")
    program = load_mos(sources, includes or (), arguments)
    return {"file": program_name(sources[0]) + ".so", "content": program.code, "params": program.params}


def ls(name: Name = "default", as_json: Json = False) -> None:
    """List the active modules."""
    from shardmos.client import Client

    with Client(name) as client:
        modules = client.ls()
    if as_json:
        typer.echo(json.dumps(modules, indent=2))
        return
    if not modules:
        typer.echo("no modules (push one with: shardmos push FILE)")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("module", "kind", "version", "parameters"):
        table.add_column(column)
    for column in ("earlier", "calls", "errors", "flows", "active for"):
        table.add_column(column, justify="right")
    for each in modules:
        params = " ".join(f"{key}={_short(value)}" for key, value in each["params"].items())
        table.add_row(
            each["name"], each["kind"], each["version"][:12], escape(params), str(len(each["earlier"])),
            f"{each['calls']:,}", f"{each['errors']:,}", f"{each['flows_now']:,}",
            f"{time.time() - each['since']:.0f} s",
        )  # fmt: skip
    print_whole(table)


def _short(value: str) -> str:
    """A parameter's value in a line: some are whole files."""
    words = " ".join(value.split())
    return words if len(words) <= MAX_SHOWN else words[: MAX_SHOWN - 1] + "…"


def rm(module: Module, name: Name = "default", as_json: Json = False) -> None:
    """Take a module out of the running workers."""
    from shardmos.client import Client

    with Client(name) as client:
        _show(client.rm(module), as_json, "removed")


def rollback(module: Module, name: Name = "default", as_json: Json = False) -> None:
    """Put a module's earlier version back."""
    from shardmos.client import Client

    with Client(name) as client:
        _show(client.rollback(module), as_json, "rolled back to")


def _show(result: dict[str, Any], as_json: bool, what: str) -> None:
    typer.echo(json.dumps(result, indent=2) if as_json else describe(result, what))


def describe(result: dict[str, Any], what: str) -> str:
    """One line on what a change did."""
    version = result["version"][:12]
    if result.get("unchanged"):
        return f"{result['name']} {version} is active already; nothing was changed"
    line = f"{result['name']}: {what} {version}"
    if result.get("replaced") == result["version"]:
        line += " with other parameters"
    elif result.get("replaced"):
        line += f" in place of {result['replaced'][:12]}"
    line += f" on {result['workers']} worker{'' if result['workers'] == 1 else 's'}"
    if "prepare_seconds" in result:
        line += f"; prepared in {result['prepare_seconds'] * 1e3:.1f} ms"
    if result["pause_ns"]:
        line += f", longest pause {max(result['pause_ns']) / 1e3:.0f} us"
    return line


def _show_details(details: str) -> None:
    if details:
        print(details, file=sys.stderr)
