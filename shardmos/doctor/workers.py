"""What the workers of running coordinators may still do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shardmos.control.rights import Rights
from shardmos.doctor.check import Check, live
from shardmos.errors import ShardmosError


def workers() -> Iterator[Check]:
    from shardmos.client import Client
    from shardmos.control.protocol import candidate_dirs

    names = sorted({path.stem for directory in candidate_dirs() for path in Path(directory).glob("*.lock")})
    for name in names:
        try:
            with Client(name) as client:
                found = client.status()["workers"]
        except (ShardmosError, KeyError):  # it has gone, or hangs
            continue
        for worker in found:
            if worker["rights"]:
                rights = Rights(**worker["rights"])
                yield live(f"worker {worker['worker']} of {name}", str(rights), _mend(rights))


def _mend(rights: Rights) -> str:
    if rights.capabilities or not rights.no_new_privs:
        return "it should have none: end it, and see the coordinator's log"
    if rights.seccomp != 2:
        return 'security.seccomp = "auto" in shardmos.toml, and a kernel with CONFIG_SECCOMP_FILTER'
    if rights.user == "root":
        return 'it still owns root\'s files: security.user = "..." in shardmos.toml (docs/security.md)'
    return ""
