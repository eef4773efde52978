"""The type stubs say what is there: each name, signature and property of the compiled module and its .pyi agree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import shardmos


@pytest.mark.timeout(600)
def test_the_stub_of_the_record_is_exact(tmp_path: Path, root: Path) -> None:
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "shardmos._record", "--ignore-disjoint-bases"],
        cwd=root, capture_output=True, text=True, env={**os.environ, "MYPY_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_public_is_typed_and_documented() -> None:
    assert (Path(shardmos.__file__).parent / "py.typed").is_file()
    for name in shardmos.__all__:
        thing = getattr(shardmos, name)
        assert not callable(thing) or thing.__doc__, f"shardmos.{name} has no docstring"
