"""A flood of SYNs against a table that is far too small for it: connections that are real are tracked whole."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import shardmos as sm

SOURCES = Path(__file__).parent.parent / "benchmarks" / "src"


@pytest.fixture(scope="module")
def generate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if not SOURCES.is_dir() or compiler is None:
        pytest.skip("needs the checkout's traffic generator and a C compiler")
    program = tmp_path_factory.mktemp("generator") / "generate"
    files = [str(SOURCES / name) for name in ("generate.c", "connection.c", "frames.c")]
    subprocess.run([compiler, "-std=gnu11", "-O2", "-D_GNU_SOURCE", "-o", str(program), *files], check=True)
    return program


def test_real_connections_come_through_a_flood_whole(generate: Path, tmp_path: Path) -> None:
    path = tmp_path / "flood.pcap"
    command = [str(generate), "synflood", str(path), "--packets", "200000", "--weave", "1000"]
    truth = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    evicted = whole = 0
    delivered = [0, 0]
    for flow in sm.flows(str(path), max_flows=10_000):
        if flow.conn_state == "SF":
            whole += 1
            delivered = [a + b for a, b in zip(delivered, flow.stream_bytes, strict=True)]
        evicted += flow.end_reason == "evicted"
    assert whole == truth["connections"] == 1000
    assert delivered == truth["stream_bytes"]
    assert evicted > 180_000
