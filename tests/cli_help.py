"""Runs the command line as a user does: another process, its output and exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

COMMAND = [sys.executable, "-c", "from shardmos.cli.main import main; main()"]


def shardmos(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    options.setdefault("timeout", 30)
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, env=dict(os.environ), **options
    )


def assert_one_line(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The exit code, and one line on standard error that has the words."""
    assert result.returncode == code, result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("shardmos: "), result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
