"""The lock file that guards a coordinator's name: whoever holds it may bind the sockets of that name."""

from __future__ import annotations

import fcntl
import os

from shardmos.errors import ShardmosError


class NameLock:
    """Held until `release` or the process's end; the file is removed with it."""

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        while True:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
                os.close(self._fd)
                who = f" (process {holder})" if holder.isdigit() else ""
                raise ShardmosError(
                    f"a coordinator named {name} runs already{who}; stop it or choose another --name"
                ) from None
            # The former holder may have removed the file between our open and our lock: then ours guards nothing.
            try:
                same = os.path.samestat(os.fstat(self._fd), os.stat(path))
            except FileNotFoundError:
                same = False
            if same:
                break
            os.close(self._fd)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1
