"""Events of a middlebox's own: a filter over another event, called once for each time that one happens.

    long = sm.event(sm.NEW_DATA, lambda flow, data: len(data) > 1000)

    class Watch(sm.Middlebox):
        @sm.event(sm.NEW_DATA)                    # a method as filter
        def login(self, flow, data):
            return bytes(data[:5]) == b"USER "

        @sm.on(login, side=sm.SERVER)
        def alarm(self, flow, data): ...

They nest to any depth. An event with several outcomes has a filter that raises them:

    kind = sm.event(sm.NEW_DATA, classify)        # it calls flow.raise_event(request) or (other), and returns True
    request, other = sm.outcome(kind), sm.outcome(kind)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from shardmos.errors import ModuleError
from shardmos.events import Event

Filter = Callable[..., Any]


class UserEvent:
    """A user-defined event; made by event() and outcome()."""

    __slots__ = ("filter", "is_method", "name", "parent")

    def __init__(self, parent: Event | UserEvent, filter: Filter | None, name: str) -> None:
        self.parent = parent
        self.filter = filter
        self.name = name
        self.is_method = False

    @property
    def root(self) -> Event:
        """The built-in event at the top."""
        at: Event | UserEvent = self
        while isinstance(at, UserEvent):
            at = at.parent
        return at

    def __set_name__(self, owner: type, name: str) -> None:
        # As a decorator in a class the filter is a method; a lambda given to event() in a class is none.
        self.is_method = self.filter is not None and self.filter.__name__ == name
        self.name = name

    def __repr__(self) -> str:
        return f"<UserEvent {self.name} of {self.root.name}>"


def _parent(parent: Event | int | UserEvent, what: str) -> Event | UserEvent:
    if isinstance(parent, UserEvent):
        return parent
    try:
        return Event(parent)
    except ValueError:
        raise ModuleError(f"{what}: {parent!r} is no event") from None


@overload
def event(parent: Event | UserEvent, filter: Filter) -> UserEvent: ...
@overload
def event(parent: Event | UserEvent) -> Callable[[Filter], UserEvent]: ...


def event(parent: Event | UserEvent, filter: Filter | None = None) -> UserEvent | Callable[[Filter], UserEvent]:
    """Defines an event: `parent` happened and `filter` says so. Without `filter` it is a decorator.

    The filter gets what a handler of the parent gets, (flow) or (flow, what), and returns true or false.
    """
    above = _parent(parent, "event()")
    if filter is None:
        return lambda method: UserEvent(above, method, getattr(method, "__name__", "event"))
    if not callable(filter):
        raise ModuleError(f"event(): the filter {filter!r} cannot be called")
    return UserEvent(above, filter, getattr(filter, "__name__", "event"))


def outcome(parent: UserEvent) -> UserEvent:
    """One of several outcomes of a user-defined event: its filter calls `flow.raise_event(outcome)`."""
    if not isinstance(parent, UserEvent) or parent.filter is None:
        raise ModuleError(f"outcome(): {parent!r} is no user-defined event with a filter")
    return UserEvent(parent, None, f"outcome of {parent.name}")
