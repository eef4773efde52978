"""Tables as plain lines: one at a time as rows come (flows), or all at once (summaries)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from shardmos.flow import Flow

if TYPE_CHECKING:
    from rich.console import RenderableType

FLOW_HEADER = (
    f"{'#':>6} {'proto':<5} {'client':<21} {'server':<21} {'packets':>13} {'bytes':>19} {'seconds':>10} "
    f"{'state':<6} {'end':<11} history"
)


def flow_row(number: int, flow: Flow) -> str:
    """A flow as a line under FLOW_HEADER; counts are client / server."""
    packets, payload = flow.packets, flow.payload_bytes
    marks = "".join(f" vlan {tag}" for tag in flow.vlan)
    if tunnel := flow.tunnel:
        marks += f" {tunnel['kind']} {tunnel['id']}"
    if any(flow.missing_bytes):
        marks += f" missing {flow.missing_bytes[0]}/{flow.missing_bytes[1]}"
    return (
        f"{number:>6} {flow.proto:<5} {flow.client_endpoint:<21} {flow.server_endpoint:<21} "
        f"{f'{packets[0]}/{packets[1]}':>13} {f'{payload[0]}/{payload[1]}':>19} {flow.duration:>10.3f} "
        f"{flow.conn_state or '-':<6} {flow.end_reason or '-':<11} {flow.history}{marks}"
    ).rstrip()


def hash_rows(flow: Flow) -> str:
    """The hashes of a flow's streams, as lines below its row."""
    lines = []
    for name, digest in zip(("client", "server"), flow.sha256 or (), strict=False):
        if digest:
            lines.append(f"{'':>6} {name} sha256 {digest}")
    return "\n".join(lines)


def print_whole(table: RenderableType) -> None:
    """A table as wide as it is: a file or pipe has no width, and a terminal wraps what it cannot show in one line."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    wanted = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    Console(width=max(console.width, wanted), soft_wrap=True).print(table)


def columns(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table whose columns are as wide as what they hold; numbers to the right."""
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    kinds = [all(_is_number(text) for text in column) for column in zip(*texts, strict=True)] or [False] * len(header)
    lines = []
    for row in [list(header), *texts]:
        cells = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, kinds, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").isdigit()
