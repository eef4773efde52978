"""shardmos: stateful middleboxes over captures and live traffic.

    import shardmos as sm

    for flow in sm.flows("trace.pcap"):
        print(flow.client, flow.server, flow.payload_bytes, flow.end_reason)

Names are loaded when they are first used (PEP 562): importing the package alone costs a few milliseconds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardmos.client import AsyncClient as AsyncClient
    from shardmos.client import Client as Client
    from shardmos.context import Context as Context
    from shardmos.errors import CaptureError as CaptureError
    from shardmos.errors import ModuleError as ModuleError
    from shardmos.errors import SegmentError as SegmentError
    from shardmos.errors import ShardmosError as ShardmosError
    from shardmos.errors import UsageError as UsageError
    from shardmos.events import ANOMALY as ANOMALY
    from shardmos.events import BOTH as BOTH
    from shardmos.events import CLIENT as CLIENT
    from shardmos.events import CONN_END as CONN_END
    from shardmos.events import CONN_SETUP as CONN_SETUP
    from shardmos.events import CONN_START as CONN_START
    from shardmos.events import ERROR as ERROR
    from shardmos.events import GAP as GAP
    from shardmos.events import NEW_DATA as NEW_DATA
    from shardmos.events import ORPHAN as ORPHAN
    from shardmos.events import PKT_IN as PKT_IN
    from shardmos.events import RECEIVER as RECEIVER
    from shardmos.events import REXMIT as REXMIT
    from shardmos.events import SENDER as SENDER
    from shardmos.events import SERVER as SERVER
    from shardmos.events import STATE_CHANGE as STATE_CHANGE
    from shardmos.events import TCP_STATE_CHANGE as TCP_STATE_CHANGE
    from shardmos.events import EndReason as EndReason
    from shardmos.events import Event as Event
    from shardmos.events import Hook as Hook
    from shardmos.events import Side as Side
    from shardmos.events import TcpState as TcpState
    from shardmos.flow import Flow as Flow
    from shardmos.flows import flows as flows
    from shardmos.middlebox import MONITOR_RAW as MONITOR_RAW
    from shardmos.middlebox import MONITOR_STREAM as MONITOR_STREAM
    from shardmos.middlebox import Anomaly as Anomaly
    from shardmos.middlebox import Gap as Gap
    from shardmos.middlebox import Middlebox as Middlebox
    from shardmos.middlebox import State as State
    from shardmos.middlebox import on as on
    from shardmos.middlebox import param as param
    from shardmos.run import run as run
    from shardmos.sockets import BufferInfo as BufferInfo
    from shardmos.sockets import Peek as Peek
    from shardmos.sockets import Socket as Socket
    from shardmos.user_events import UserEvent as UserEvent
    from shardmos.user_events import event as event
    from shardmos.user_events import outcome as outcome
    from shardmos.workers.live import LiveFlow as LiveFlow
    from shardmos.workers.live import Packet as Packet
    from shardmos.workers.timers import Timer as Timer

_HOMES = {
    "client": ("AsyncClient", "Client"),
    "context": ("Context",),
    "errors": ("CaptureError", "ModuleError", "SegmentError", "ShardmosError", "UsageError"),
    "events": (
        "ANOMALY", "BOTH", "CLIENT", "CONN_END", "CONN_SETUP", "CONN_START", "ERROR", "GAP", "NEW_DATA", "ORPHAN",
        "PKT_IN", "RECEIVER", "REXMIT", "SENDER", "SERVER", "STATE_CHANGE", "TCP_STATE_CHANGE",
        "EndReason", "Event", "Hook", "Side", "TcpState",
    ),
    "flow": ("Flow",),
    "flows": ("flows",),
    "middlebox": ("MONITOR_RAW", "MONITOR_STREAM", "Anomaly", "Gap", "Middlebox", "State", "on", "param"),
    "run": ("run",),
    "sockets": ("BufferInfo", "Peek", "Socket"),
    "user_events": ("UserEvent", "event", "outcome"),
    "workers.live": ("LiveFlow", "Packet"),
    "workers.timers": ("Timer",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("shardmos")
    elif name in _HOME:
        value = getattr(import_module(f"shardmos.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'shardmos' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `shardmos.flows` and `shardmos.run` the functions: importing a submodule binds it to its name here."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
