"""`shardmos doctor`: that it finds what is there, and that what it advises mends it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netns
import pytest
from coordinators import PROGRAM, Running, shardmos
from traffic import conversations, write_pcap

from shardmos.control.rights import Rights
from shardmos.doctor import host, interfaces
from shardmos.doctor.workers import _mend
from shardmos.nic import ethtool, plan

Checks = dict[str, dict[str, str]]


def by_name(text: str) -> Checks:
    report: dict[str, Any] = json.loads(text)
    return {check["name"]: check for check in report["checks"]}


@pytest.fixture
def here() -> Iterator[netns.Namespace]:
    netns.require()
    made = netns.Namespace("doctor")
    try:
        netns.join(made, "v0", made, "v1", queues=4)
        yield made
    finally:
        plan.forget("v0")
        made.remove()


def test_its_advice_about_queues_is_a_command_that_mends_them(here: netns.Namespace) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: one worker, for which one queue is right")

    def look() -> dict[str, str]:
        return by_name(here.run(sys.executable, "-c", PROGRAM, "doctor", "--json").stdout)["interface v0"]

    def command(*arguments: str) -> None:
        assert here.run(sys.executable, "-c", PROGRAM, *arguments).returncode == 0

    most = 4
    wanted = min(most, len(os.sched_getaffinity(0)) - 1)
    assert look()["state"] == "ok" and "4 of 4 receive queues, driver veth" in look()["found"]
    command("nic", "v0", "--queues", "1")
    found = look()
    assert (found["state"] == "warning") == (wanted > 1)
    if found["mend"]:
        program, *advised = found["mend"].split(": ")[1].split()
        assert program == "shardmos"
        command(*advised)
        assert look()["state"] == "ok"


def test_a_card_that_is_not_symmetric_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ethtool.Rss(bytes(range(40)), (0, 1, 2, 3))
    monkeypatch.setattr(ethtool.Ethtool, "rss", lambda self: key)
    monkeypatch.setattr(ethtool.Ethtool, "channels", lambda self: ethtool.Channels(0, 0, 4, 0, 0, 4))
    monkeypatch.setattr(ethtool.Ethtool, "merges", lambda self: True)
    checks = {check.name: check for check in interfaces._interface("lo")}
    assert checks["RSS of lo"].state == "warning" and "shardmos nic lo --symmetric" in checks["RSS of lo"].mend
    assert checks["offloads of lo"].mend.endswith("ethtool -K lo lro off")
    key = ethtool.Rss(bytes([0x6D, 0x5A]) * 20, (0, 1, 2, 3))
    assert {check.name: check for check in interfaces._interface("lo")}["RSS of lo"].state == "ok"


@pytest.mark.parametrize(
    ("text", "state"), [("always within_size [advise] never", "ok"), ("always within_size advise [never]", "warning")]
)
def test_huge_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, state: str) -> None:
    (tmp_path / "shmem_enabled").write_text(text)
    monkeypatch.setattr(host, "_SHMEM", tmp_path / "shmem_enabled")
    (check,) = host.huge_pages()
    assert check.state == state and ("echo advise > " in check.mend) == (state == "warning")


def test_without_capabilities_it_says_which_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_effective", lambda: 1 << 13)
    (check,) = host.capabilities()
    assert check.found == "CAP_NET_RAW" and "CAP_NET_ADMIN" in check.mend and "CAP_NET_RAW" not in check.mend
    monkeypatch.setattr(host, "_effective", lambda: 1 << 12 | 1 << 13)
    (check,) = host.capabilities()
    assert "CAP_BPF" in check.mend


def test_it_shows_what_running_workers_may_do(runtime_dir: Path, tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "many.pcap", conversations(10))
    with Running("--replay", str(capture), "--loop", "--rate", "100"):
        check = by_name(shardmos("doctor", "--json").stdout)["worker 0 of default"]
    assert "no capabilities, no new privileges, seccomp filter" in check["found"]
    assert ("security.user" in check["mend"]) == (os.geteuid() == 0)


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (Rights("shardmos", 0, True, 2), ""),
        (Rights("root", 0, True, 2), "security.user"),
        (Rights("shardmos", 0, True, 0), "seccomp"),
        (Rights("shardmos", 1, True, 2), "should have none"),
    ],
)
def test_what_it_says_of_rights(rights: Rights, said: str) -> None:
    assert (said in _mend(rights)) and bool(_mend(rights)) == bool(said)
    assert rights.confined == (not rights.capabilities and rights.seccomp == 2)
