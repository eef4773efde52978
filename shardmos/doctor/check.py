"""What every check yields."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `mend` is what to do, "" where nothing is to be done."""

    purpose: Literal["captures", "modules", "live"]
    name: str
    state: State
    found: str
    mend: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def live(name: str, found: str, mend: str = "") -> Check:
    """For live ports: a warning where there is something to mend."""
    return Check("live", name, "warning" if mend else "ok", found, mend)
