"""Python interpreters to measure in: the project's .venv, and one of its own for each peer."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from common import ROOT, Missing, Result, Setup, json_of, output

NFSTREAM = "nfstream==6.6.0"


def _imports(python: Path, module: str) -> bool:
    return not subprocess.run([python, "-P", "-c", f"import {module}"], capture_output=True, check=False).returncode


def shardmos_python() -> Path:
    """The interpreter with the package: .venv of the checkout, else the one that runs this."""
    for python in (ROOT / ".venv" / "bin" / "python", Path(sys.executable)):
        if python.exists() and _imports(python, "shardmos._native"):
            return python
    raise Missing("the shardmos package is not installed: run make build in the checkout")


def nfstream_python(setup: Setup) -> Path:
    """A virtual environment with NFStream from PyPI, made once."""
    folder = setup.cache / "nfstream"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"installing {NFSTREAM} into {folder.name}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", NFSTREAM],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode or not _imports(python, "nfstream"):
            lines = done.stderr.strip().splitlines()
            raise Missing(f"{NFSTREAM} cannot be installed from PyPI: {lines[-1] if lines else 'it does not import'}")
        (folder / "ready").touch()
    return python


def run_python(python: Path, code: str, *arguments: object) -> Result:
    """Runs code that prints one JSON object, with nothing of this folder on its path."""
    return json_of(output([python, "-P", "-c", code, *(str(argument) for argument in arguments)]))
