"""Looks at the host: what shardmos needs for captures, for pushing C modules, and for live ports, and how to mend it.

Every check reads, and needs no privileges; all that is changed is that a missing runtime directory is made. The checks
for captures decide the exit code, since they are what everyone needs; the others are warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from shardmos.doctor import basics, host, interfaces, workers
from shardmos.doctor.check import Check

_CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    basics.python,
    basics.native,
    basics.processor,
    basics.memory,
    basics.runtime_directory,
    basics.compiler,
    host.kernel,
    host.capabilities,
    host.locked_memory,
    host.huge_pages,
    host.cores,
    host.interrupts,
    interfaces.interfaces,
    workers.workers,
)


def examine() -> Iterator[Check]:
    """Every check, in the order of their importance."""
    for check in _CHECKS:
        try:
            yield from check()
        except OSError as error:
            # A host may hide any of /proc and /sys; that is a finding, not a failure of the doctor.
            yield Check("live", check.__name__, "warning", f"cannot be looked at: {error}")


def healthy(checks: list[Check]) -> bool:
    """Nothing that captures or modules cannot do without is missing."""
    return all(check.state != "failed" for check in checks)


def report(checks: list[Check]) -> dict[str, Any]:
    """The checks as an object for JSON."""
    return {"healthy": healthy(checks), "checks": [check.to_dict() for check in checks]}


__all__ = ["Check", "examine", "healthy", "report"]
