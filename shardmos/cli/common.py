"""What the commands over captures share: their options and how those become a configuration."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from shardmos.errors import UsageError
from shardmos.workers.capture import make_config, parse_size

Read = Annotated[
    list[str] | None,
    typer.Option("-r", "--read", metavar="FILE", help='A capture; "-" is standard input. Repeat, or list more.'),
]
Files = Annotated[
    list[str] | None, typer.Argument(metavar="FILE", help="More captures, read in time order.", show_default=False)
]
Filter = Annotated[
    str | None, typer.Option("--filter", "-f", metavar="BPF", help="Only packets that match (pcap syntax).")
]
Key = Annotated[
    str, typer.Option("--key", metavar="5tuple|vlan", help="What makes a flow; vlan keeps VLANs and tunnels apart.")
]
Checksums = Annotated[
    str, typer.Option("--checksums", metavar="verify|ignore", help="ignore: for captures of offloaded traffic.")
]
Workers = Annotated[int, typer.Option("-w", "--workers", metavar="N", help="Worker processes.")]
Memory = Annotated[str | None, typer.Option("--memory", metavar="SIZE", help="Bound of each worker, as in 256M.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the engine, as in timeout_udp=30; repeat."),
]
Mos = Annotated[
    bool, typer.Option("--mos", help="FILE... are sources of a mOS program; what follows -- is for its main().")
]
Includes = Annotated[
    list[str] | None, typer.Option("-I", metavar="DIR", help="With --mos: a folder of its headers; repeat.")
]

Overlap = Annotated[
    list[str] | None,
    typer.Option(
        "--overlap-policy",
        metavar="[NETWORK=]POLICY",
        help="Whose bytes count where segments overlap: first, last, or a system's, as in 10.0.0.0/8=windows; repeat.",
    ),
]
Defrag = Annotated[
    list[str] | None,
    typer.Option("--defrag-policy", metavar="[NETWORK=]POLICY", help="Likewise for IP fragments."),
]

_BAD_MANY = 3  # a third of the checksums: one side of a capture taken on a host that offloads


def check_includes(mos: bool, includes: list[str] | None) -> None:
    if includes and not mos:
        raise UsageError("-I goes with --mos: a middlebox in C is one file, and finds shardmos's headers by itself")


def sources(read: list[str] | None, files: list[str] | None) -> list[str]:
    """All captures that were named."""
    paths = [*(read or ()), *(files or ())]
    if not paths:
        raise UsageError("no capture given: -r FILE, or -r - for standard input")
    return paths


def configuration(key: str, checksums: str, memory: str | None, settings: list[str] | None) -> dict[str, Any]:
    """Keywords for flows() and execute()."""
    options: dict[str, Any] = {"key": key, "checksums": checksums}
    if memory is not None:
        options["memory"] = parse_size(memory)
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {setting!r}: give NAME=VALUE")
        options[name.strip().replace("-", "_")] = _value(value.strip())
    make_config(options)  # for its errors: flows() and execute() take other keywords, too
    return options


def policies(kind: str, given: list[str] | None) -> dict[str, str]:
    """Keywords from --overlap-policy or --defrag-policy: those with a network, and one for all others."""
    networks = [text for text in given or () if "=" in text]
    plain = [text for text in given or () if "=" not in text]
    if len(plain) > 1:
        raise UsageError(f"--{kind}-policy: {plain[0]!r} and {plain[1]!r}; give one, others as NETWORK=POLICY")
    found = {f"{kind}_policy": plain[0]} if plain else {}
    return {**found, f"{kind}_networks": ",".join(networks)} if networks else found


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def hint_checksums(counters: dict[str, int], checksums: str) -> None:
    """Says so when many checksums are bad, as where the network card fills them in after the capture."""
    bad, checked = counters.get("bad_checksum", 0), counters.get("checksum_checked", 0)
    if checksums == "verify" and bad >= 2 and bad * _BAD_MANY >= checked:
        print(
            f"hint: {bad:,} of {checked:,} checksums are bad, which is usual where the network card fills them in "
            "(offload); their data was left out: --checksums ignore takes it",
            file=sys.stderr,
        )
