"""What is pushed: a module's content, known by its hash, and the form in which workers get it."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field
from typing import Any

from shardmos.errors import ModuleError

KINDS = {".py": "python", ".c": "c", ".so": "object"}
_ELF = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class Artefact:
    """One version of one module. `code` is Python source or a shared object: what workers prepare."""

    file: str
    kind: str
    version: str
    code: bytes
    params: dict[str, str]
    rename: str | None = None
    since: float = field(default_factory=time.time)

    @property
    def identity(self) -> tuple[str, tuple[tuple[str, str], ...], str | None]:
        """Equal identities behave alike: pushing one over the other changes nothing."""
        return self.version, tuple(sorted(self.params.items())), self.rename

    def to_worker(self) -> dict[str, Any]:
        """The arguments of a worker's PREPARE."""
        return {
            "file": self.file,
            "kind": "python" if self.kind == "python" else "object",
            "version": self.version,
            "code": self.code,
            "params": self.params,
            "rename": self.rename,
        }


def content_version(content: bytes) -> str:
    """A module's version: the SHA-256 of what was pushed."""
    return hashlib.sha256(content).hexdigest()


def kind_of(file: str, content: bytes) -> str:
    """ "python", "c" or "object", by the file's ending. ModuleError for what is none."""
    kind = KINDS.get(os.path.splitext(file)[1])
    if kind is None:
        raise ModuleError(f"module {file}: give a .py, .c or .so file")
    if not content:
        raise ModuleError(f"module {file}: is empty")
    if kind == "object" and not content.startswith(_ELF):
        raise ModuleError(f"module {file}: is no shared object")
    return kind
