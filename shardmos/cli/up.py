"""`shardmos up`: a coordinator in the foreground."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shardmos.errors import UsageError

Replay = Annotated[
    list[str] | None,
    typer.Option(
        "--replay", "-r", metavar="FILE", help="A capture as the port; repeat to merge several.", show_default=False
    ),
]


def up(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE", help="More captures to replay.", show_default=False)
    ] = None,
    replay: Replay = None,
    loop: Annotated[bool, typer.Option("--loop", help="Start again at the captures' end.")] = False,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="PPS", help="Packets per second.", show_default=False)
    ] = None,
    as_recorded: Annotated[bool, typer.Option("--as-recorded", help="At the pace of the timestamps.")] = False,
    exit: Annotated[bool, typer.Option("--exit", help="End when the replay has ended.")] = False,
    workers: Annotated[
        int | None,
        typer.Option("-w", "--workers", metavar="N", help="Worker processes, one per core.", show_default="1"),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="Bound of each worker, as in 256MiB.", show_default="1GiB"),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="How clients find it.", show_default="default")
    ] = None,
    config: Annotated[
        str | None, typer.Option("-c", "--config", metavar="FILE", help="A shardmos.toml.", show_default=False)
    ] = None,
    filter: Annotated[
        str | None,
        typer.Option(
            "--filter", "-f", metavar="BPF", help="Only packets that match (pcap syntax).", show_default=False
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="5tuple|vlan", help="What makes a flow.", show_default="5tuple")
    ] = None,
    checksums: Annotated[
        str | None,
        typer.Option(
            "--checksums",
            metavar="verify|ignore",
            help="ignore: for captures of offloaded traffic.",
            show_default="verify",
        ),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.", show_default="info"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Any key of shardmos.toml; repeat.", show_default=False
        ),
    ] = None,
    interface: Annotated[
        list[str] | None,
        typer.Option(
            "-i", "--interface", metavar="IFACE", help="A live interface to listen on; repeat.", show_default=False
        ),
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option("--pair", metavar="A B", help="Two interfaces to sit between, inline.", show_default=False),
    ] = None,
    driver: Annotated[
        str | None, typer.Option("--driver", metavar="DRIVER", help="auto, af_packet or af_xdp.", show_default="auto")
    ] = None,
    promiscuous: Annotated[
        bool, typer.Option("--promiscuous", help="See frames to other stations; a pair always does.")
    ] = False,
    busy_poll: Annotated[bool, typer.Option("--busy-poll", help="Never sleep: a whole core per worker.")] = False,
) -> None:
    """Run a coordinator with its workers in the foreground, until Ctrl-C."""
    from shardmos import config as configuration
    from shardmos.workers.capture import check_workers, is_mappable, source_paths
    from shardmos.workers.shard_config import ShardConfig, check_config

    given: dict[tuple[str, str], Any] = {
        ("replay", "files"): [*(replay or ()), *(files or ())] or None,
        ("replay", "loop"): loop or None,
        ("replay", "rate"): rate,
        ("replay", "as_recorded"): as_recorded or None,
        ("replay", "exit"): exit or None,
        ("port", "interfaces"): interface or None,
        ("port", "pair"): pair,
        ("port", "driver"): driver,
        ("port", "promiscuous"): promiscuous or None,
        ("port", "busy_poll"): busy_poll or None,
        ("coordinator", "workers"): workers,
        ("coordinator", "name"): name,
        ("coordinator", "log_level"): log_level,
        ("worker", "memory"): memory,
        ("worker", "filter"): filter,
        ("worker", "key"): key,
        ("worker", "checksums"): checksums,
    }
    overrides = {where: value for where, value in given.items() if value is not None}
    for setting in settings or ():
        overrides.update([configuration.parse_setting(setting)])
    chosen = configuration.load(config, overrides)
    port = chosen["replay"]
    live = chosen["port"]
    if sum(map(bool, (live["interfaces"], live["pair"], port["files"]))) > 1:
        raise UsageError("one kind of port at a time: -i IFACE..., --pair A B, or --replay FILE...")
    if not port["files"] and not chosen.live:
        raise UsageError("no port: give -i IFACE, --pair A B, or --replay FILE")
    if port["rate"] and port["as_recorded"]:
        raise UsageError("--rate and --as-recorded exclude each other")
    if port["loop"] and "-" in port["files"]:
        raise UsageError("--loop: standard input cannot be read again")
    check_workers(chosen["coordinator"]["workers"])
    check_config(ShardConfig(**chosen.shard_options()))
    paths = source_paths(port["files"]) if port["files"] else []
    from shardmos.control import coordinator

    # Live ports are dealt out by the kernel. One worker reads any capture; several need files that each can map, or a
    # process that deals packets out.
    mappable = chosen.live or chosen["coordinator"]["workers"] == 1 or is_mappable(paths)
    coordinator.run(chosen, mappable=mappable)
