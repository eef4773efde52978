"""A worker gives up its rights: after its ports are mapped, before the first packet.

In this order, since each step needs what the next takes away:

1. `drop_capabilities`, before ZeroMQ's threads exist, which inherit what is left; no_new_privs.
2. ZeroMQ connects: its sockets belong to the coordinator's user.
3. `become`: an unprivileged user, where one is configured and the coordinator is root.
4. `filter_calls`: seccomp, on all threads (native/src/confine/calls.c has the list).
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

from shardmos.control.rights import User
from shardmos.errors import ShardmosError
from shardmos.workers.binding import lib

_CAP_SETGID, _CAP_SETUID = 1 << 6, 1 << 7
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_libc = ctypes.CDLL(None)


def die_with(parent: int) -> None:
    """The kernel kills this process when its parent is gone, even while a handler never returns."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def drop_capabilities(user: User | None) -> None:
    """All of them, but what `become` needs; it takes those too."""
    if status := lib.smos_confine_capabilities(_CAP_SETGID | _CAP_SETUID if user is not None else 0):
        raise ShardmosError(f"a worker cannot drop its capabilities: {os.strerror(-status)}")


def become(user: User, parent: int) -> None:
    """For good, and on all threads. ShardmosError where that user could not read what modules import."""
    try:
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        raise ShardmosError(f"security.user: a worker cannot become {user.name}: {error.strerror}") from None
    # A change of user undoes both: the first lets a module be loaded by /proc/self/fd, the second ends us in time.
    _libc.prctl(_PR_SET_DUMPABLE, 1)
    die_with(parent)
    for path in (__file__, os.__file__):
        if not os.access(path, os.R_OK):
            raise ShardmosError(
                f"security.user: {user.name} may not read {Path(path).parent}, from which modules import; "
                "install shardmos where that user can read it, or leave security.user empty"
            )


def filter_calls(wanted: str) -> str:
    """By security.seccomp (required, auto, off): "" or why there is no filter. ShardmosError where one is required."""
    if wanted == "off" or not (status := lib.smos_confine_calls()):
        return ""
    why = f"no seccomp filter can be had here ({os.strerror(-status)})"
    if wanted == "required":
        raise ShardmosError(f'{why}; security.seccomp = "auto" goes on without one')
    return why
