"""`shardmos flows`: one line per flow of a capture."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from shardmos.cli.common import (
    Checksums,
    Defrag,
    Files,
    Filter,
    Key,
    Memory,
    Overlap,
    Read,
    Settings,
    Workers,
    configuration,
    hint_checksums,
    policies,
    sources,
)
from shardmos.errors import ShardmosError, UsageError
from shardmos.flows import FlowReader


def flows(
    files: Files = None,
    read: Read = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    hash: Annotated[
        str | None, typer.Option("--hash", metavar="sha256", help="Hash what each stream delivered.")
    ] = None,
    checksums: Checksums = "verify",
    filter: Filter = None,
    key: Key = "5tuple",
    workers: Workers = 1,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain", metavar="FLOW", help='Each packet of one flow: "ADDR:PORT-ADDR:PORT", or "#N", a row.'
        ),
    ] = None,
    streams: Annotated[
        str | None, typer.Option("--streams", metavar="DIR", help="Write both streams of each flow to files.")
    ] = None,
    memory: Memory = None,
    overlap: Overlap = None,
    defrag: Defrag = None,
    settings: Settings = None,
) -> None:
    """Print the flows of a capture as they end."""
    paths = sources(read, files)
    options = {"filter": filter, **configuration(key, checksums, memory, settings)}
    options |= policies("overlap", overlap) | policies("defrag", defrag)
    if explain is not None:
        if streams is not None or as_json or hash:
            raise UsageError("--explain goes without --json, --hash and --streams")
        explain_flow(paths, explain, options)
        return
    index: Any = None
    if streams is not None:
        if not streams:
            raise UsageError("--streams: name a folder")
        from shardmos.stream_files import Index, StreamFiles

        folder = streams
        reader = FlowReader(
            paths,
            hash=hash,
            workers=workers,
            annotators=[lambda: StreamFiles(folder)],
            on_extras=lambda extras: index.add(extras[-1]),
            **options,
        )
        index = Index(folder)
    else:
        reader = FlowReader(paths, hash=hash, workers=workers, **options)
    try:
        _print(reader, as_json)
    finally:
        reader.close()
        if index is not None:
            index.close()
    hint_checksums(reader.counters, checksums)


def _print(reader: FlowReader, as_json: bool) -> None:
    write, flush = sys.stdout.write, sys.stdout.flush
    if as_json:
        for batch in reader.batches():
            if batch:
                write("\n".join([flow.to_json() for flow in batch]) + "\n")
                flush()
        return
    from shardmos.cli.table import FLOW_HEADER, flow_row, hash_rows

    number = 0
    for batch in reader.batches():
        for flow in batch:
            if not number:
                write(FLOW_HEADER + "\n")
            number += 1
            write(flow_row(number, flow) + "\n")
            if hashes := hash_rows(flow):
                write(hashes + "\n")
        if batch:
            flush()
    if not number:
        print("no flows", file=sys.stderr)


def explain_flow(paths: list[str], text: str, options: dict[str, Any]) -> None:
    """Prints the packets of the flow, or flows, that `text` names."""
    from shardmos.explain import Endpoints, Explain, parse_flow
    from shardmos.run import execute, warn

    meant = parse_flow(text)
    only = None
    if isinstance(meant, int):
        row = _row(paths, meant, options)
        meant, begin = Endpoints((row.client, row.client_port), (row.server, row.server_port)), row.start_ns
        only = lambda flow: flow.start_ns == begin  # noqa: E731  # two flows of the same endpoints
    explain = Explain(meant, _tell, only)
    try:
        warn(execute(paths, [explain], **options))
    except _OutputError as end:
        raise end.error from None
    if not explain.found:
        raise ShardmosError(f"--explain {text}: no such flow in the capture")


class _OutputError(BaseException):
    """Ends the run that a handler writes the output of; of another exception it would go on."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error


def _tell(line: str) -> None:
    try:
        print(line)
    except OSError as error:
        raise _OutputError(error) from None


def _row(paths: list[str], number: int, options: dict[str, Any]) -> Any:
    if "-" in paths:
        raise UsageError(
            "--explain #N reads the capture twice, which standard input does not allow; name the endpoints"
        )
    reader = FlowReader(paths, **options)
    seen = 0
    try:
        for batch in reader.batches():
            if seen + len(batch) >= number:
                return batch[number - seen - 1]
            seen += len(batch)
    finally:
        reader.close()
    raise ShardmosError(f"--explain #{number}: the capture has {seen} flows")
