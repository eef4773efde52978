"""`shardmos doctor`: what the host has, what it lacks, and how to mend it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shardmos.doctor import Check

_COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}
_PURPOSES = {"captures": "Captures", "modules": "C modules", "live": "Live ports"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
) -> None:
    """Check this host: Python, libraries, compiler, capabilities, memory, interfaces; say how to mend what lacks."""
    from shardmos.doctor import examine, healthy, report

    checks = list(examine())
    if as_json:
        typer.echo(json.dumps(report(checks), indent=2))
    else:
        _show(checks)
    if not healthy(checks):
        raise typer.Exit(1)


def _show(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    for purpose, title in _PURPOSES.items():
        console.print(f"[bold]{title}[/]")
        for check in checks:
            if check.purpose == purpose:
                state = f"[{_COLORS[check.state]}]{check.state:<8}[/]"
                console.print(f"  {state} {escape(check.name)}: {escape(check.found)}")
                if check.mend:
                    console.print(f"  {'':<8} {escape(check.mend)}")
