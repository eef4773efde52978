"""The names of events, sides, hooks, TCP states, end reasons and anomalies, with the numbers of the C contract.

The numbers are those of `shardmos/shardmos.h`; a test compares each with the library's own.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache


class Event(IntEnum):
    """Built-in events; docs/events.md says when and in which order each is raised."""

    PKT_IN = 0
    CONN_START = 1
    CONN_SETUP = 2
    NEW_DATA = 3
    REXMIT = 4
    TCP_STATE_CHANGE = 5
    STATE_CHANGE = 5
    GAP = 6
    ANOMALY = 7
    ERROR = 8
    CONN_END = 9
    ORPHAN = 10


class Side(IntEnum):
    """An end of a flow. For NEW_DATA and GAP the receiving one: SERVER is what the client sent."""

    CLIENT = 0
    SERVER = 1
    BOTH = 2


class Hook(IntEnum):
    """Where in a packet's way an event is raised: after the sender's endpoint was updated, or after the receiver's."""

    NONE = 0
    SENDER = 1
    RECEIVER = 2
    BOTH = 3


class TcpState(IntEnum):
    """RFC 9293 section 3.3.2."""

    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    LAST_ACK = 9
    TIME_WAIT = 10


class EndReason(IntEnum):
    """Why a flow ended; `text` is the word in flow records."""

    FIN = 0
    RST = 1
    IDLE = 2
    EVICTED = 3
    CAPTURE_END = 4
    STOPPED = 5

    @property
    def text(self) -> str:
        return self.name.lower()


class Limit(IntEnum):
    """The `detail` of ERROR: which limit was met."""

    FLOW_BUFFER = 1
    WORKER_BUFFER = 2
    WINDOW = 3
    DEPTH = 4
    UNREAD = 5
    TABLE = 6

    @property
    def text(self) -> str:
        return self.name.lower()


PKT_IN = Event.PKT_IN
CONN_START = Event.CONN_START
CONN_SETUP = Event.CONN_SETUP
NEW_DATA = Event.NEW_DATA
REXMIT = Event.REXMIT
TCP_STATE_CHANGE = Event.TCP_STATE_CHANGE
STATE_CHANGE = Event.STATE_CHANGE
GAP = Event.GAP
ANOMALY = Event.ANOMALY
ERROR = Event.ERROR
CONN_END = Event.CONN_END
ORPHAN = Event.ORPHAN

CLIENT = Side.CLIENT
SERVER = Side.SERVER
BOTH = Side.BOTH

SENDER = Hook.SENDER
RECEIVER = Hook.RECEIVER


@cache
def anomaly_name(number: int) -> str:
    """The anomaly's name as the library knows it; "unknown" for what is not one."""
    from shardmos.workers.binding import ffi, lib

    return str(ffi.string(lib.smos_anomaly_name(number)).decode())


def anomaly_names() -> list[str]:
    """Every anomaly's name, in the order of their numbers."""
    from shardmos.workers.binding import lib

    return [anomaly_name(number) for number in range(lib.smos_anomaly_count())]


def end_reason_text(number: int) -> str | None:
    """The word for an end reason; None for the number of a flow that lives (255)."""
    return _END_TEXTS.get(number)


def state_text(number: int) -> str:
    return _STATE_TEXTS.get(number, str(number))


def limit_text(number: int) -> str:
    return _LIMIT_TEXTS.get(number, str(number))


_END_TEXTS = {int(reason): reason.text for reason in EndReason}
_STATE_TEXTS = {int(state): state.name for state in TcpState}
_LIMIT_TEXTS = {int(limit): limit.text for limit in Limit}
