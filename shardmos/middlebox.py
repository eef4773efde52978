"""A middlebox in Python: a class with a filter, typed parameters and handlers (docs/write-a-middlebox.md).

class Quota(Middlebox):
    filter = "tcp port 80"
    limit = param(1_000_000, help="bytes a client may send")

    @on(NEW_DATA, side=SERVER)
    def count(self, flow, data):
        flow.state.seen += len(data)
        if flow.state.seen > self.limit:
            flow.reset()
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, cast

from shardmos.errors import ModuleError
from shardmos.events import Event, Hook, Side
from shardmos.user_events import UserEvent

if TYPE_CHECKING:
    from shardmos.sockets import Socket
    from shardmos.workers.host import Host
    from shardmos.workers.timers import Timer

MONITOR_STREAM = 1
MONITOR_RAW = 2

T = TypeVar("T", int, float, str, bool)
F = TypeVar("F", bound=Callable[..., Any])

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,63}\Z")
# The events that are raised at hooks, and the hook where a handler gives none. Those of native/src/module/box.c.
DEFAULT_HOOKS = {
    Event.PKT_IN: Hook.SENDER,
    Event.CONN_START: Hook.SENDER,
    Event.CONN_SETUP: Hook.RECEIVER,
    Event.REXMIT: Hook.RECEIVER,
    Event.TCP_STATE_CHANGE: Hook.BOTH,
}
_MAX_DEFAULTS = 256
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


class Gap(NamedTuple):
    """Bytes of a stream that will never come."""

    offset: int
    length: int


class Anomaly(str):
    """The name of an anomaly. Of overlapping data that differs, both copies too, from the first byte that does on."""

    __slots__ = ("before", "now", "offset")
    offset: int | None
    before: bytes
    now: bytes

    def __new__(cls, name: str, offset: int | None = None, before: bytes = b"", now: bytes = b"") -> Anomaly:
        made = super().__new__(cls, name)
        made.offset, made.before, made.now = offset, before, now
        return made


class State:
    """What a middlebox keeps for one flow, in `flow.state`: any attribute; one that was never set reads as 0.

    A middlebox that declares a class `State` of its own gets instances of that, made without arguments.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0

    def __repr__(self) -> str:
        return f"State({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class PlainState(State):
    """The state of middleboxes that declare none. A name that was read before it was set stays in the class, where
    later reads find it without a call and without an exception."""

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if len(vars(PlainState)) < _MAX_DEFAULTS:
            setattr(PlainState, name, value)
        return value


class Parameter:
    """A parameter of a middlebox: its default, which is also its type, and what it is for."""

    def __init__(self, default: Any, help: str = "") -> None:
        if type(default) not in (int, float, str, bool):
            raise ModuleError(f"param({default!r}): a default is an int, a float, a str or a bool")
        self.default = default
        self.help = help
        self.type: type[Any] = type(default)
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    # Not a data descriptor: an instance's own value is found first, without a call.
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else self.default

    def check(self, value: Any, owner: str) -> Any:
        """The value if it has the parameter's type; a whole number will do for a float."""
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type or (self.type is float and not math.isfinite(value)):
            raise ModuleError(f"{owner}: parameter {self.name} is of type {self.type.__name__}, not {value!r}")
        return value

    def parse(self, text: str, owner: str) -> Any:
        """The value that `text` writes, as in `-m quota.py:limit=5000`."""
        try:
            if self.type is bool:
                word = text.strip().lower()
                if word not in _TRUE | _FALSE:
                    raise ValueError
                return word in _TRUE
            value = int(text, 0) if self.type is int else self.type(text)
        except ValueError:
            raise ModuleError(f"{owner}: parameter {self.name} is of type {self.type.__name__}, not {text!r}") from None
        return self.check(value, owner)


def param(default: T, *, help: str = "") -> T:
    """Declares a parameter of a middlebox; its type is that of its default."""
    return cast(T, Parameter(default, help))


class Handler(NamedTuple):
    """One registration of a method: `side` and `hook` are None where @on did not give them."""

    method: str
    event: Event | UserEvent
    side: Side | None
    hook: Hook | None
    wants: int  # arguments after self: 1 the flow, 2 also what the event brings


def check_side(value: Side | int) -> Side:
    """Whose end of the flow; ModuleError for what is none."""
    try:
        return Side(value)
    except ValueError:
        raise ModuleError(f"a side is CLIENT, SERVER or BOTH, not {value!r}") from None


def check_place(
    event: Event | UserEvent | int, side: Side | int | None, hook: Hook | int | None, what: str
) -> tuple[Event | UserEvent, Side | None, Hook | None]:
    """The event, side and hook of a registration; ModuleError for what does not go together."""
    try:
        wanted = (
            event if isinstance(event, UserEvent) else Event(event),
            None if side is None else Side(side),
            None if hook is None or hook == Hook.NONE else Hook(hook),
        )
    except ValueError as error:
        raise ModuleError(f"{what}({event!r}, side={side!r}, hook={hook!r}): {error}") from None
    root = wanted[0].root if isinstance(wanted[0], UserEvent) else wanted[0]
    if wanted[2] is not None and root not in DEFAULT_HOOKS:
        raise ModuleError(f"{what}({root.name}): this event has no hook; leave hook= out")
    return wanted


def on(
    event: Event | UserEvent | int, *, side: Side | int | None = None, hook: Hook | int | None = None
) -> Callable[[F], F]:
    """Makes a method the handler of an event, built-in or user-defined; a method may have several.

    `side` narrows it to one end of the flow (for NEW_DATA and GAP the receiving one), `hook` says at which point of the
    packet's way it is called. A CONN_END handler without `side` is called once per flow, with it once for that end.
    """
    wanted = check_place(event, side, hook, "@on")

    def mark(method: F) -> F:
        if not callable(method):
            raise ModuleError(f"@on is written above a method, not above {method!r}")
        marks = list(getattr(method, "_shardmos_on", ()))
        marks.insert(0, wanted)
        method._shardmos_on = marks  # type: ignore[attr-defined]
        return method

    return mark


class Middlebox:
    """The base of all middleboxes. One instance lives in each worker; its methods are called in the worker's thread."""

    name: ClassVar[str] = ""
    """The module's name, by default the class's."""
    filter: str = ""
    """Which flows it wants, in pcap syntax over the innermost IP packet; "" for all."""
    fail_closed: bool = False
    """Drop its flows' packets while it is broken (inline ports)."""
    parameters: ClassVar[Mapping[str, Parameter]] = {}
    handlers: ClassVar[tuple[Handler, ...]] = ()
    _host: Host | None = None
    _file: str | None = None  # that it was loaded from, by its name

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__
        if not isinstance(cls.name, str) or not _NAME.match(cls.name):
            raise ModuleError(f"middlebox {cls.__name__}: its name {cls.name!r} is not of 1 to 63 of a-z A-Z 0-9 _ -")
        members: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            members.update(vars(base))
        cls.parameters = {name: member for name, member in members.items() if isinstance(member, Parameter)}
        for name in cls.parameters:
            if name in vars(Middlebox) and name not in ("filter", "fail_closed"):
                raise ModuleError(f"middlebox {cls.__name__}: parameter {name} hides Middlebox.{name}; rename it")
        check_plain(cls.on_start, f"middlebox {cls.__name__}: on_start")
        handlers = []
        for name, member in members.items():
            for event, side, hook in getattr(member, "_shardmos_on", ()):
                handlers.append(Handler(name, event, side, hook, _arguments(cls, name, member, event)))
        cls.handlers = tuple(handlers)

    def __init__(self, **params: Any) -> None:
        for name, value in params.items():
            setattr(self, name, self._parameter(name).check(value, type(self).name))

    @classmethod
    def _parameter(cls, name: str) -> Parameter:
        if name not in cls.parameters:
            known = f"it has {', '.join(cls.parameters)}" if cls.parameters else "it has none"
            raise ModuleError(f"{cls.name}: no parameter {name!r}; {known}")
        return cls.parameters[name]

    @classmethod
    def from_text(cls, params: Mapping[str, str]) -> Middlebox:
        """An instance from parameters as text, each read as its default's type."""
        return cls(**{name: cls._parameter(name).parse(text, cls.name) for name, text in params.items()})

    # ---- for handlers ----

    def emit(self, topic: str, obj: Any) -> bool:
        """Publishes `obj` (anything msgpack can hold) on topic "module.NAME.TOPIC". False if the queue was full."""
        return self._running().emit(topic, obj)

    def log(self, text: str, level: int = 1) -> None:
        """A line of log: level 0 debug, 1 info, 2 warning, 3 error."""
        self._running().log(text, level)

    def now_ns(self) -> int:
        """Packet time in nanoseconds since the epoch."""
        return self._running().now_ns()

    def timer(self, delay: float, callback: Callable[[], Any], period: float | None = None) -> Timer:
        """Calls `callback` in `delay` seconds of packet time, then every `period` seconds if that is given.

        A periodic timer that is late (packets were far apart) is called once. `cancel()` of what is returned ends it.
        """
        return self._running().timers.set(delay, callback, period, None, None)

    def socket(self, kind: int = MONITOR_STREAM) -> Socket:
        """A further socket: MONITOR_STREAM watches flows, MONITOR_RAW packets. in on_start() or a handler."""
        from shardmos.sockets import Socket

        return Socket(self._running(), kind)

    @property
    def own_socket(self) -> Socket:
        """The socket that `filter` and the handlers of the class belong to: for options and later registrations."""
        from shardmos.sockets import Socket

        return Socket(self._running(), None)

    def remove_event(self, event: UserEvent) -> None:
        """A user-defined event happens no more, nor does what is defined over it."""
        self._running().remove_event(event)

    def flow_count(self) -> int:
        """Flows alive in this worker."""
        return self._running().shard.flow_count()

    def on_start(self) -> None:
        """Called once in each worker, before the first packet: for timers, sockets and options. Nothing by default."""

    def _running(self) -> Host:
        if self._host is None:
            raise ModuleError(f"{type(self).name}: not running; this is for on_start() and handlers")
        return self._host

    # ---- a new version in the place of an old one ----

    def migrate(self, old: Any) -> Any:
        """The flow's state, made from that of the version before; None begins afresh, which is the default.

        Called at the flow's next event, and only where the state's layout differs (names and types of the attributes
        that a fresh state has). A state of the same layout is kept as it is.
        """
        return None

    # ---- results ----

    def summary(self) -> Any:
        """What run() returns: by default the public attributes that are numbers, texts, lists or dicts."""
        return {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_")
            and name not in self.parameters
            and isinstance(value, int | float | str | list | dict)
        }

    @classmethod
    def merge(cls, summaries: list[Any]) -> Any:
        """One summary of several workers': numbers added, lists joined, dicts merged by key."""
        merged = summaries[0]
        for summary in summaries[1:]:
            merged = _merged(merged, summary)
        return merged


def _merged(left: Any, right: Any) -> Any:
    if isinstance(left, dict) and isinstance(right, dict):
        return {
            key: _merged(left[key], right[key]) if key in left and key in right else left.get(key, right.get(key))
            for key in [*left, *(key for key in right if key not in left)]
        }
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return [*left, *right]
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left + right
    return left


def _arguments(cls: type, name: str, member: Any, event: Event | UserEvent) -> int:
    root = event.root if isinstance(event, UserEvent) else event
    return _wants(member, root, f"middlebox {cls.__name__}: handler {name} of {root.name}", "self, ")


def check_plain(callback: Any, what: str) -> None:
    """ModuleError for a coroutine or generator function: a call of it runs nothing."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_one(callback) for is_one in kinds):
        raise ModuleError(f"{what} is called and not awaited; write it without async and yield")


def wants_of(callback: Any, event: Event, what: str) -> int:
    """1 for a callback that takes (flow), 2 for one that also takes what the event brings."""
    if not callable(callback):
        raise ModuleError(f"{what}: {callback!r} cannot be called")
    return _wants(callback, event, what, "")


def _wants(callback: Any, event: Event, what: str, self_text: str) -> int:
    mine = 1 if self_text else 0
    check_plain(callback, what)
    try:
        parameters = list(inspect.signature(callback).parameters.values())
    except (TypeError, ValueError):
        if not self_text:
            return 2  # of C: it says itself what it takes
        raise ModuleError(f"{what} is no method") from None
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    least = sum(p.default is p.empty for p in positional)
    if len(positional) >= mine + 2 and least <= mine + 2:
        return 2
    if len(positional) == mine + 1:
        return 1
    raise ModuleError(f"{what} takes ({self_text}flow) or ({self_text}flow, {ARGUMENT_NAMES[event]})")


ARGUMENT_NAMES = {
    Event.PKT_IN: "packet",
    Event.CONN_START: "packet",
    Event.CONN_SETUP: "packet",
    Event.NEW_DATA: "data",
    Event.REXMIT: "packet",
    Event.TCP_STATE_CHANGE: "state",
    Event.GAP: "gap",
    Event.ANOMALY: "anomaly",
    Event.ERROR: "error",
    Event.CONN_END: "reason",
    Event.ORPHAN: "packet",
}
