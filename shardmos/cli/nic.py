"""`shardmos nic`: receive queues, symmetric hashing and interrupts of a network card."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from shardmos.errors import UsageError


def nic(
    interface: Annotated[str, typer.Argument(metavar="IFACE", help="The interface.", show_default=False)],
    queues: Annotated[
        int | None,
        typer.Option("--queues", metavar="N", help="Receive queues: as many as workers.", show_default=False),
    ] = None,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="A key under which both directions of a flow come to one queue.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="Put back what was before the first change.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The card as one JSON object.")] = False,
) -> None:
    """Show or set a network card's queues, RSS key and table, and the cores of its interrupts."""
    from shardmos.control.affinity import host_plan
    from shardmos.nic import plan
    from shardmos.nic.ethtool import Ethtool
    from shardmos.nic.irq import Irqs

    if restore and (queues is not None or symmetric):
        raise UsageError("--restore puts back what was; leave --queues and --symmetric out")
    card, irqs = Ethtool(interface), Irqs()
    now = plan.look(card, irqs)
    if queues is None and not symmetric and not restore:
        typer.echo(json.dumps(plan.shown(card, now), indent=2) if as_json else "\n".join(plan.describe(card, now)))
        return
    if restore:
        wanted = plan.recall(interface)
    else:
        count, most = (now.channels.queues, now.channels.most) if now.channels is not None else (1, 1)
        cores = host_plan(min(queues or count, most)).workers  # of too many queues `decide` tells
        wanted = plan.decide(card, now, queues, symmetric, cores, irqs.of(interface))
    changes = plan.changes(now, wanted)
    if dry_run:
        done = changes
    else:
        if not restore and changes:
            plan.remember(interface, now)
        done = plan.apply(card, irqs, now, wanted)
        if restore:
            plan.forget(interface)
    after = now if dry_run else plan.look(card, irqs)
    if as_json:
        typer.echo(json.dumps({"done": done, "dry_run": dry_run, **plan.shown(card, after)}, indent=2))
        return
    for line in done or ["nothing to do: it is so already"]:
        typer.echo(f"would set {line}" if dry_run and done else line)
