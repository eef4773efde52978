"""Per-flow state of a replaced Python middlebox: how the version that takes its place comes by it.

Nothing is done flow by flow at the commit, which holds the packets up: a flow's state is taken at its next event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardmos.errors import ModuleError
from shardmos.middlebox import Middlebox, PlainState, State

if TYPE_CHECKING:
    from shardmos.workers.live import LiveFlow

Step = Callable[[Any], Any]
Layout = tuple[bool, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class Inherited:
    """Flows of an earlier version that had no event since, and what makes their states those of this version."""

    flows: dict[int, LiveFlow]
    steps: tuple[Step, ...] = ()

    def followed_by(self, step: Step | None) -> Inherited:
        return self if step is None else Inherited(self.flows, (*self.steps, step))


def state_layout(kind: type[Middlebox]) -> Layout:
    """What a fresh state holds: whether other attributes may join, and the names and types of those that it has."""
    make = getattr(kind, "State", PlainState)
    try:
        state = make()
    except Exception as error:
        raise ModuleError(f"middlebox {kind.name}: its State() raises {type(error).__name__}: {error}") from None
    fields = {name: type(value).__qualname__ for name, value in attributes(state).items()}
    return isinstance(state, State), tuple(sorted(fields.items()))


def attributes(state: Any) -> dict[str, Any]:
    """Those of an object with `__dict__`, `__slots__` or both."""
    found = dict(getattr(state, "__dict__", {}))
    for each in type(state).__mro__:
        slots = vars(each).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(state, name):
                found[name] = getattr(state, name)
    return found


def as_own(make: Callable[[], Any]) -> Step:
    """The step to a class of the same layout from another source: its methods may be others."""

    def step(old: Any) -> Any:
        new = make()
        for name, value in attributes(old).items():
            object.__setattr__(new, name, value)  # also into frozen dataclasses
        return new

    return step
