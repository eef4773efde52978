"""`shardmos events`: what a running coordinator publishes, as JSON lines."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer


def events(
    topic: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC",
            help="Only topics that begin so: flow, anomaly, module.NAME, error, log, coordinator.",
            show_default=False,
        ),
    ] = "",
    name: Annotated[str, typer.Option("--name", metavar="COORDINATOR", help="Which coordinator.")] = "default",
    count: Annotated[
        int | None, typer.Option("-n", "--count", metavar="N", min=1, help="End after so many.", show_default=False)
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0, help="End after so long without one.", show_default=False),
    ] = None,
) -> None:
    """Print events as JSON lines, until Ctrl-C or the coordinator's end."""
    from shardmos.client import Client

    with Client(name) as client:
        stream = client.events(topic, timeout)
        for number, event in enumerate(stream, 1):
            print(json.dumps(event, default=_plain, ensure_ascii=False), flush=True)
            if number == count:
                break
        if stream.lost:
            print(f"warning: {stream.lost} messages were lost; this reader was too slow", file=sys.stderr)


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)
