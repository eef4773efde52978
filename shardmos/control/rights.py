"""Whom workers become, and what /proc says they may."""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from shardmos.errors import ShardmosError


@dataclass(frozen=True, slots=True)
class User:
    """An unprivileged user of this host."""

    name: str
    uid: int
    gid: int


def find_user(name: str) -> User | None:
    """None where workers stay who they are: no name, or our own. ShardmosError where they cannot become that user."""
    if not name:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ShardmosError(f"security.user: there is no user {name}; make one: useradd --system {name}") from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise ShardmosError(
            f"security.user: only root can make workers {name}; start as root or {name}, or leave it empty"
        )
    return User(name, entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True, slots=True)
class Rights:
    """Of a process; `seccomp` is 2 where a filter is in force."""

    user: str
    capabilities: int
    no_new_privs: bool
    seccomp: int

    @property
    def confined(self) -> bool:
        """No capability, no way to one, and a filter."""
        return not self.capabilities and self.no_new_privs and self.seccomp == 2

    def __str__(self) -> str:
        return ", ".join(
            [
                f"user {self.user}",
                f"capabilities {self.capabilities:#x}" if self.capabilities else "no capabilities",
                "no new privileges" if self.no_new_privs else "may gain privileges",
                "seccomp filter" if self.seccomp == 2 else "no seccomp filter",
            ]
        )


def rights_of(pid: int) -> Rights | None:
    """None where the process is gone or hidden."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        uid = int(fields["Uid"].split()[1])
        user = str(uid)
        with contextlib.suppress(KeyError):
            user = pwd.getpwuid(uid).pw_name
        held = 0
        for kind in ("CapEff", "CapPrm", "CapAmb"):
            held |= int(fields[kind], 16)
        return Rights(user, held, fields["NoNewPrivs"].strip() == "1", int(fields["Seccomp"]))
    return None
