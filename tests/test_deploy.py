"""What `deploy/` ships: that systemd takes the unit, and that what the unit grants is enough, and no more."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import netns
import pytest
from coordinators import PROGRAM
from test_confinement import OTHER, check_rights, children, readable_by_anyone


@pytest.fixture
def unit(root: Path) -> str:
    return (root / "deploy" / "shardmos.service").read_text()


def granted(unit: str) -> list[str]:
    """The unit's capabilities, as setpriv writes them."""
    (line,) = re.findall(r"^AmbientCapabilities=(.*)$", unit, re.MULTILINE)
    assert f"CapabilityBoundingSet={line}\n" in unit
    return [name.removeprefix("CAP_").lower() for name in line.split()]


def test_systemd_takes_the_unit(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    path = tmp_path / "shardmos.service"
    path.write_text(unit.replace("/opt/shardmos/bin/shardmos", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # Exposure in tenths; a plain unit has 96.
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@pytest.mark.parametrize("driver", ["af_packet", "af_xdp"])
@pytest.mark.parametrize("ports", [("-i", "left", "--promiscuous"), ("--pair", "left", "right")])
def test_the_units_capabilities_are_enough_and_workers_have_none(
    runtime_dir: Path, unit: str, ports: tuple[str, ...], driver: str
) -> None:
    netns.require()
    netns.need("ping", "iputils-ping")
    other = pwd.getpwnam(OTHER)
    os.chown(runtime_dir, other.pw_uid, other.pw_gid)
    some = ",".join(f"+{name}" for name in granted(unit))
    command = [
        *readable_by_anyone(), "setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups",
        f"--inh-caps={some}", f"--ambient-caps={some}", f"--bounding-set=-all,{some}", "--no-new-privs",
        sys.executable, "-c", PROGRAM, "up", "--memory", "32MiB", "--set", "coordinator.spare=false",
        "--driver", driver, *ports,
    ]  # fmt: skip
    with (
        netns.Wire() as wire,
        subprocess.Popen(wire.box.command(*command), stderr=subprocess.PIPE, text=True) as coordinator,
    ):
        try:
            assert coordinator.stderr is not None
            said = ""
            for line in coordinator.stderr:
                said += line
                if "is up" in line:
                    break
            assert "is up" in said and "WARNING" not in said, said
            (worker,) = children(coordinator.pid)
            check_rights(worker, OTHER)
            if "--pair" in ports:
                assert wire.client.run("ping", "-c", "1", "-W", "5", wire.SERVER).returncode == 0
        finally:
            coordinator.send_signal(signal.SIGINT)
