"""Pushing modules into running workers: what is put in place, what is refused, what goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinators import PROGRAM, Running, shardmos, until, write_module
from traffic import conversation, conversations, write_pcap

from shardmos.client import Client, RemoteError
from shardmos.control.compile import header_dir
from shardmos.errors import ShardmosError

EMIT = '@sm.on(sm.CONN_START)\ndef start(self, flow):\n    self.emit("n", {number})'
C_SOURCE = """#include <shardmos/shardmos.h>
static void on_start(void *self, const smos_call_t *call) { (void)self; (void)call; }
static const smos_registration_t regs[] = {
    {.event = %s, .side = SMOS_BOTH, .handler = on_start}, {.event = SMOS_EVENT_COUNT}};
SMOS_MODULE = {.magic = SMOS_MODULE_MAGIC, .abi_major = %s, .name = "native", .filter = "%s", .registrations = regs%s};
"""
FAILS = """static int init(smos_engine_t *e, const smos_api_t *a, void **s, char *error, size_t n)
{ (void)e; (void)a; (void)s; const char *t = "no luck today";
  for (size_t i = 0; i < n; i++) { error[i] = t[i]; if (!t[i]) break; } return -1; }
"""


def source(event: str = "SMOS_CONN_START", abi: str = "SMOS_ABI_MAJOR", filter: str = "tcp", more: str = "") -> str:
    return C_SOURCE % (event, abi, filter, more)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    patch = pytest.MonkeyPatch()
    patch.setenv("SHARDMOS_RUNTIME_DIR", str(tmp_path_factory.mktemp("r")))
    capture = write_pcap(tmp_path_factory.mktemp("replay") / "many.pcap", conversations(300))
    with (
        Running("--replay", str(capture), "--loop", "--rate", "20000", "-w", "2") as coordinator,
        coordinator.client() as client,
    ):
        yield client
    patch.undo()


@pytest.fixture(autouse=True)
def clean(client: Client) -> Iterator[None]:
    yield
    for module in client.ls():
        client.rm(module["name"])


def values(client: Client, count: int) -> set[object]:
    events = client.events("module.Probe.n", timeout=5)
    found = {event["data"] for _, event in zip(range(count), events, strict=False)}
    events.close()
    return found


def test_a_new_version_takes_the_old_ones_place_and_rolls_back(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "probe.py"
    first = client.push(write_module(path, EMIT.format(number=1)))
    assert first["workers"] == 2 and len(first["pause_ns"]) == 2 and not first["unchanged"]
    assert values(client, 5) == {1}
    second = client.push(write_module(path, EMIT.format(number=2)))
    assert second["replaced"] == first["version"] != second["version"]
    assert values(client, 5) == {2}
    assert client.push(path)["unchanged"]
    back = client.rollback("Probe")
    assert back["version"] == first["version"]
    assert values(client, 5) == {1}
    with pytest.raises(ShardmosError, match="no earlier version"):
        client.rollback("Probe")


def test_parameters_reach_the_module_and_wrong_ones_are_refused(client: Client, tmp_path: Path) -> None:
    path = write_module(tmp_path / "probe.py", "limit = sm.param(5)\n" + EMIT.format(number="self.limit"))
    client.push(path, limit=9)
    assert values(client, 3) == {9}
    for params, text in (({"limit": "many"}, "limit"), ({"other": 1}, "other")):
        with pytest.raises(ShardmosError, match=text):
            client.push(path, **params)
    assert client.ls()[0]["params"] == {"limit": "9"}
    said = shardmos("push", str(path), "--set", "limit=10").stdout
    assert said.startswith(f"Probe: pushed {client.ls()[0]['version'][:12]} with other parameters on 2 workers;"), said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import shardmos as sm\ndef broken(:\n", "line 2"),
        ("x = 1\n", "one subclass"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("import nothing_of_that_name\n", "nothing_of_that_name"),
        (
            "import shardmos as sm\nclass A(sm.Middlebox):\n    filter = 'tcp prt'\n"
            "    @sm.on(sm.CONN_START)\n    def f(self, flow): pass\n",
            "filter",
        ),
        ("import shardmos as sm\nclass A(sm.Middlebox):\n    @sm.on(99)\n    def f(self, flow): pass\n", "99"),
        (
            "import shardmos as sm\nclass A(sm.Middlebox):\n"
            "    def __init__(self, **p): raise ValueError('not today')\n",
            "not today",
        ),
        *(
            (
                f"import shardmos as sm\nclass A(sm.Middlebox):\n    def on_start(self): raise {error}('not today')\n",
                f"bad.py, line 3: {error}: not today",
            )
            for error in ("ValueError", "SystemExit", "KeyboardInterrupt")
        ),
        ("\xff".encode("latin-1").decode("latin-1"), "module"),
    ],
)
def test_a_python_module_with_a_fault_is_refused_and_the_old_one_goes_on(
    client: Client, tmp_path: Path, text: str, reason: str
) -> None:
    client.push(write_module(tmp_path / "probe.py", EMIT.format(number=1)))
    bad = tmp_path / "bad.py"
    bad.write_text(text)
    with pytest.raises(RemoteError, match=reason) as caught:
        client.push(bad, name="Probe")
    assert "\n" not in str(caught.value)
    assert values(client, 3) == {1}
    assert [module["name"] for module in client.ls()] == ["Probe"]


def test_a_c_module_is_compiled_and_runs(client: Client, tmp_path: Path, compiler: str) -> None:
    path = tmp_path / "native.c"
    path.write_text(source())
    assert client.push(path)["name"] == "native"
    until(lambda: client.ls()[0]["calls"] > 10)


def test_nested_functions_run_in_confined_workers(client: Client, tmp_path: Path, compiler: str) -> None:
    path = tmp_path / "nested.c"
    path.write_text(
        source()
        .replace(
            "{ (void)self; (void)call; }",
            """{ (void)self; int sum = 0;
            void add(int n) { sum += n + (call != 0); }
            each_twice(add);
            if (sum != 6) __builtin_trap(); }""",
        )
        .replace(
            "static void on_start",
            "__attribute__((noipa)) static void each_twice(void (*f)(int)) { f(1); f(3); }\nstatic void on_start",
        )
    )
    if subprocess.run([compiler, "-fsyntax-only", "-I", header_dir(), path], capture_output=True).returncode:
        pytest.skip(f"{compiler} knows no nested functions, which are GNU C")
    client.push(path)
    until(lambda: client.ls()[0]["calls"] > 10)
    assert client.stats()["sum"]["restarts"] == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#include <shardmos/shardmos.h>\nint f(void) { return missing; }\n", "missing"),
        ("int f(void) { return 1; }\n", "smos_module"),
        (source(abi="99"), "ABI|abi"),
        (source(event="77"), "event"),
        (source(filter="tcp prt"), "filter"),
        (source(more=", .init = init").replace("SMOS_MODULE =", FAILS + "SMOS_MODULE ="), "no luck today"),
        ('#include "/etc/shadow"\n', "shadow"),
    ],
)
def test_a_c_module_with_a_fault_is_refused(
    client: Client, tmp_path: Path, compiler: str, text: str, reason: str
) -> None:
    path = tmp_path / "bad.c"
    path.write_text(text)
    with pytest.raises(RemoteError, match=reason):
        client.push(path)
    assert client.ls() == []


def test_the_command_line_shows_the_compilers_output(client: Client, tmp_path: Path, compiler: str) -> None:
    path = tmp_path / "bad.c"
    path.write_text("#include <shardmos/shardmos.h>\nint f(void) { return missing; }\n")
    result = shardmos("push", str(path))
    assert result.returncode == 1 and "bad.c:2:" in result.stderr and "Traceback" not in result.stderr
    assert shardmos("push", str(tmp_path / "none.py")).returncode == 1
    assert "no such file" in shardmos("push", str(tmp_path / "none.py")).stderr.lower()


def test_a_handler_that_raises_is_counted_and_reported(client: Client, tmp_path: Path) -> None:
    events = client.events("error", timeout=5)
    client.push(
        write_module(tmp_path / "probe.py", "@sm.on(sm.CONN_START)\ndef start(self, flow):\n    raise KeyError('lost')")
    )
    event = next(events)
    assert (
        event["module"] == "Probe"
        and "KeyError: 'lost'" in event["traceback"]
        and "raise KeyError" in event["traceback"]
    )
    assert client.ls()[0]["errors"] > 0


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_a_handler_does_not_end_its_worker(client: Client, tmp_path: Path, error: str) -> None:
    events = client.events("error", timeout=5)
    body = (
        f"def on_start(self): self.timer(0.001, self.late, period=0.001)\ndef late(self): raise {error}('of a timer')\n"
        f"@sm.on(sm.CONN_START)\ndef start(self, flow): raise {error}('at the start')\n"
        f"@sm.on(sm.CONN_END)\ndef end(self, flow): raise {error}('at the end')"
    )
    client.push(write_module(tmp_path / "probe.py", body))
    wanted = {("timer", "of a timer"), ("CONN_START", "at the start"), ("CONN_END", "at the end")}
    for event in events:
        wanted -= {each for each in wanted if each[0] == event["event"] and f"{error}: {each[1]}" in event["traceback"]}
        if not wanted:
            break
    assert not wanted
    assert [worker["restarts"] for worker in client.status()["workers"]] == [0, 0]


def test_ls_and_stats_cut_no_name_and_number_where_the_output_is_narrow(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    path = write_module(tmp_path / "probe.py", "word = sm.param('')\nfirst = sm.param('')\n" + EMIT.format(number=1))
    version = client.push(path, first="one of the more usual lengths", word="line 1\nline 2\n" * 100)["version"]
    until(lambda: client.ls()[0]["calls"] > 10)
    listed = shardmos("ls").stdout.splitlines()
    assert len(listed) == 2 and version[:12] in listed[1] and "first=one of the more usual lengths" in listed[1]
    assert "word=line 1 line 2" in listed[1] and len(listed[1]) < 250
    stats = shardmos("stats", "--all").stdout
    assert "…" not in stats and version[:12] in stats and "cycles/call" in stats


def test_a_reader_of_stats_that_leaves_is_no_error(client: Client) -> None:
    line = [sys.executable, "-c", PROGRAM, "stats", "--all"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.wait(30), process.stderr.read()) == (141, "")


def test_as_gives_a_python_module_another_name(client: Client, tmp_path: Path) -> None:
    path = write_module(tmp_path / "probe.py", EMIT.format(number=1))
    assert client.push(path, name="other")["name"] == "other"
    client.push(path)
    assert [module["name"] for module in client.ls()] == ["other", "Probe"]


COUNTING = """@sm.on(sm.PKT_IN)
def packet(self, flow):
    flow.state.seen += 1
@sm.on(sm.CONN_END)
def end(self, flow):
    self.emit("n", ({version}, flow.state.seen))
"""


@pytest.fixture
def slow(tmp_path: Path, runtime_dir: Path) -> Iterator[Client]:
    """A replay whose connections each live for seconds: interleaved, 8 packets a connection."""
    each = [conversation(client=(f"10.1.{number >> 8}.{number & 255}", 40000)) for number in range(1000)]
    frames = [frames[at] for at in range(8) for frames in each]
    capture = write_pcap(tmp_path / "slow.pcap", frames)
    with (
        Running("--replay", str(capture), "--loop", "--rate", "8000", "-w", "2", name="slow") as coordinator,
        coordinator.client() as client,
    ):
        yield client


def ends(client: Client, version: int, count: int = 400) -> set[int]:
    """What `count` flows had counted at their ends, as that version says it."""
    found: list[int] = []
    events = client.events("module.Probe.n", timeout=20)
    for event in events:
        if event["data"][0] == version:
            found.append(event["data"][1])
        if len(found) == count:
            break
    events.close()
    return set(found)


def test_flows_keep_their_state_when_a_new_version_is_pushed(slow: Client, tmp_path: Path) -> None:
    path = tmp_path / "probe.py"
    slow.push(write_module(path, COUNTING.format(version=1)))
    ends(slow, 1, 1300)  # the first round was seen from its middle only
    for version in (2, 3):
        until(lambda: slow.stats()["sum"]["counters"]["flows_now"] > 500)
        slow.push(write_module(path, COUNTING.format(version=version)))
    assert ends(slow, 3) == {8}  # those that began with the versions before, too
    assert slow.ls()[0]["errors"] == 0


TYPED = """class State:
    def __init__(self):
        self.{name} = 0
@sm.on(sm.PKT_IN)
def packet(self, flow):
    flow.state.{name} += 1
@sm.on(sm.CONN_END)
def end(self, flow):
    self.emit("n", ({version}, flow.state.{name}))
"""
MIGRATE = "def migrate(self, old):\n    new = self.State()\n    new.packets = old.seen + 1000\n    return new\n"


def test_state_of_another_layout_is_migrated(slow: Client, tmp_path: Path) -> None:
    path = tmp_path / "probe.py"
    slow.push(write_module(path, TYPED.format(name="seen", version=1)))
    ends(slow, 1, 1)
    slow.push(write_module(path, TYPED.format(name="packets", version=2) + MIGRATE))
    assert {count // 1000 for count in ends(slow, 2, 1500)} >= {1}
    slow.push(write_module(path, TYPED.format(name="octets", version=3)))
    assert all(count < 1000 for count in ends(slow, 3))
    assert slow.ls()[0]["errors"] == 0


def test_a_migration_that_raises_is_counted_and_the_flow_begins_afresh(slow: Client, tmp_path: Path) -> None:
    path = tmp_path / "probe.py"
    slow.push(write_module(path, TYPED.format(name="seen", version=1)))
    ends(slow, 1, 1)
    raises = "def migrate(self, old):\n    return old.lost\n"
    slow.push(write_module(path, TYPED.format(name="packets", version=2) + raises))
    assert ends(slow, 2)
    assert slow.ls()[0]["errors"] > 0


def test_a_state_that_cannot_be_made_is_refused(client: Client, tmp_path: Path) -> None:
    body = "class State:\n    def __init__(self): raise ValueError('not today')\n" + EMIT.format(number=1)
    with pytest.raises(RemoteError, match="not today"):
        client.push(write_module(tmp_path / "probe.py", body))
