"""Running mOS programs of tests/mos over frames, and what they printed."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

import pytest
from traffic import write_pcap

from shardmos.mos import compile_mos
from shardmos.run import RunResult, execute
from shardmos.workers.load import CModule

PROGRAMS = Path(__file__).parent / "mos"


@cache
def compiled(*names: str) -> bytes:
    """A program of one or several files of tests/mos, with the folder `include` of the first one's."""
    sources = [str(PROGRAMS / f"{name}.c") for name in names]
    includes = [str(folder) for folder in [(PROGRAMS / names[0]).parent / "include"] if folder.is_dir()]
    return compile_mos(sources, includes)


class Run:
    """Runs a program over frames: the lines that it printed. `errors` are those on standard error."""

    def __init__(self, capfd: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capfd, self._folder = capfd, folder
        self.errors: list[str] = []
        self.result: RunResult | None = None

    def __call__(
        self,
        name: str | tuple[str, ...],
        frames: list[bytes] | Path,
        *arguments: str,
        step: float = 0.001,
        workers: int = 1,
        write: str | None = None,
    ) -> list[str]:
        path = frames if isinstance(frames, Path) else write_pcap(self._folder / "frames.pcap", frames, step=step)
        names = (name,) if isinstance(name, str) else name
        module = CModule(f"{names[0]}.c", compiled(*names), {"args": shlex.join(arguments)}, program=True)
        self._capfd.readouterr()
        self.result = execute(path, [module], workers=workers, write=write)
        output = self._capfd.readouterr()
        self.errors = output.err.splitlines()
        return output.out.splitlines()
