"""run() and `shardmos run`: middleboxes over captures, in one process or several, and what they count."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_help import COMMAND, shardmos
from traffic import conversations, write_pcap

import shardmos as sm
from shardmos.errors import ShardmosError
from shardmos.run import execute

REQUEST, RESPONSE = b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nhello"

SOURCE = '''
import shardmos as sm

class Count(sm.Middlebox):
    """Counts what clients send."""
    least = sm.param(0)

    def __init__(self, **params):
        super().__init__(**params)
        self.flows = 0
        self.bytes = 0
        self.by_server = {}

    @sm.on(sm.NEW_DATA, side=sm.SERVER)
    def data(self, flow, data):
        if len(data) >= self.least:
            self.bytes += len(data)

    @sm.on(sm.CONN_END)
    def end(self, flow):
        self.flows += 1
        self.by_server[flow.server] = self.by_server.get(flow.server, 0) + 1
        self.emit("end", flow.client)
'''


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pcap(tmp_path_factory.mktemp("many") / "many.pcap", conversations(200))


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("module") / "count.py"
    path.write_text(SOURCE)
    return path


EXPECTED = {"flows": 200, "bytes": 200 * len(REQUEST), "by_server": {"10.0.0.2": 200}}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_summaries_are_the_same_with_any_number_of_workers(many: Path, module: Path, workers: int) -> None:
    assert sm.run(many, str(module), workers=workers) == EXPECTED


def test_several_middleboxes_give_a_list(many: Path, module: Path) -> None:
    class Packets(sm.Middlebox):
        def __init__(self) -> None:
            super().__init__()
            self.packets = 0

        @sm.on(sm.PKT_IN)
        def packet(self, flow: Any) -> None:
            self.packets += 1

    assert sm.run(many, str(module), Packets) == [EXPECTED, {"packets": 1600}]
    assert sm.run(many, Packets(), f"{module}:least=1000", workers=2) == [{"packets": 1600}, EXPECTED | {"bytes": 0}]


def test_an_instance_may_run_again(many: Path) -> None:
    class Flows(sm.Middlebox):
        def __init__(self) -> None:
            super().__init__()
            self.flows = 0

        @sm.on(sm.CONN_START)
        def start(self, flow: Any) -> None:
            self.flows += 1

    box = Flows()
    assert [sm.run(many, box), sm.run(many, box)] == [{"flows": 200}, {"flows": 400}]


@pytest.mark.parametrize("workers", [1, 2])
def test_counters_account_for_every_packet(many: Path, workers: int) -> None:
    counters = execute(many, [], workers=workers).counters
    assert counters["packets"] == 1600 == counters["packets_flow"]
    assert counters["flows_made"] == 200 == counters["end_fin"]


def test_names_must_differ(many: Path, module: Path) -> None:
    with pytest.raises(ShardmosError, match="given twice"):
        sm.run(many, str(module), str(module))
    with pytest.raises(ShardmosError, match="at least one"):
        sm.run(many)
    with pytest.raises(ShardmosError, match="no middlebox"):
        sm.run(many, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command(many: Path, module: Path, workers: int) -> None:
    result = shardmos("run", "-r", many, "-m", f"{module}:least=3", "-w", workers, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["packets"], report["flows"], report["summaries"]) == (1600, 200, [EXPECTED])
    (stats,) = report["modules"]
    assert (stats["name"], stats["errors"], stats["emitted"]) == ("Count", 0, 200)
    table = shardmos("run", "-r", many, "-m", module, "-w", workers).stdout
    assert table.startswith("1,600 packets, ") and "200 flows" in table and '"bytes": 3600' in table


@pytest.mark.parametrize("workers", [1, 2])
def test_events_are_printed(many: Path, module: Path, workers: int) -> None:
    result = shardmos("run", "-r", many, "-m", module, "--events", "-w", workers)
    events = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('{"')]
    assert sum(event["topic"] == "module.Count.end" for event in events) == 200


def test_a_handler_that_raises_in_a_worker_is_shown(many: Path, tmp_path: Path) -> None:
    path = tmp_path / "faulty.py"
    path.write_text(SOURCE.replace("self.flows += 1", "self.nothing += 1"))
    result = shardmos("run", "-r", many, "-m", path, "-w", 2)
    assert result.returncode == 0
    assert "warning: handlers raised 200 times" in result.stderr and "AttributeError" in result.stderr


def test_what_a_handler_prints_appears_once(many: Path, tmp_path: Path) -> None:
    path = tmp_path / "loud.py"
    say = 'self.flows += 1; __import__("os").write(1, f"flow {flow.client}\\n".encode())'
    path.write_text(SOURCE.replace("self.flows += 1", say))
    result = shardmos("run", "-r", many, "-m", path, "-w", 2)
    assert result.stdout.count("\nflow 10.1.") + result.stdout.startswith("flow 10.1.") == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_middlebox_emits_comes_as_it_was_meant(tmp_path: Path, many: Path, workers: int) -> None:
    module = tmp_path / "say.py"
    module.write_text(
        "import shardmos as sm\nclass Say(sm.Middlebox):\n    @sm.on(sm.CONN_END)\n"
        "    def end(self, flow): self.emit('end', {'port': flow.server_port, 'name': 'höflich', 'raw': b'\\xff'})\n"
    )
    told: list[dict[str, Any]] = []
    sm.run(many, str(module), workers=workers, on_event=told.append)
    assert [each["data"] for each in told] == [{"port": 80, "name": "höflich", "raw": b"\xff"}] * 200
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for environment, name in (({**os.environ, "PYTHONUTF8": "1"}, "höflich"), (ascii_only, "h\\xf6flich")):
        result = subprocess.run(
            [*COMMAND, "run", "-r", str(many), "-m", str(module), "-w", str(workers), "--events"],
            capture_output=True, encoding="utf-8", env=environment, timeout=60, check=True,
        )  # fmt: skip
        first = result.stdout.splitlines()[0]
        assert '"topic": "module.Say.end"' in first and f'"data": {{"port": 80, "name": "{name}"' in first
