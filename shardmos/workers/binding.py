"""The native library: `ffi` and `lib` of the extension that native/python/ builds, and what is tied to them once.

Everything that touches C goes through here, so that one place explains a missing or mismatched build.
"""

from __future__ import annotations

from typing import Any

from shardmos.errors import ShardmosError

try:
    from shardmos._native import ffi as _ffi
    from shardmos._native import lib as _lib
except ImportError as error:
    raise ShardmosError(f"the native library is missing or does not load ({error}); run `make build`") from None

ffi: Any = _ffi
lib: Any = _lib

ERROR_SIZE: int = lib.SMOS_ERROR_SIZE
RECORD_SIZE: int = ffi.sizeof("smos_flow_info_t")


def enum_names(enum: str, prefix: str) -> dict[str, int]:
    """The members of a C enum by the names that users write: SMOS__OVERLAP_OLD_LINUX is "old-linux"."""
    members = ffi.typeof(enum).relements
    return {
        name.removeprefix(prefix).lower().replace("_", "-"): number
        for name, number in sorted(members.items(), key=lambda member: member[1])
        if not name.endswith("_POLICIES")
    }


def end_on_interrupt() -> None:
    """From now on Ctrl-C ends the process within a second, also where a handler in C does not return."""
    lib.smos_py_end_on_interrupt()


# Interrupts that arrive just outside of a handler's own try: Shard.run raises them when the engine is back.
escaped: list[BaseException] = []


def _on_escape(kind: Any, error: BaseException, traceback: Any) -> None:
    escaped.append(error)


@ffi.def_extern(onerror=_on_escape)  # type: ignore[untyped-decorator]
def smos_py_dispatch(handle: Any, call: Any) -> None:
    # `handle` is ffi.new_handle of a callable that never raises (shard.py wraps what the user gave).
    ffi.from_handle(handle)(call)


# Handles of Python boxes that the library holds; each lives until the library releases it.
live_handles: dict[int, Any] = {}


@ffi.def_extern()  # type: ignore[untyped-decorator]
def smos_py_release(handle: Any) -> None:
    live_handles.pop(int(ffi.cast("uintptr_t", handle)), None)
