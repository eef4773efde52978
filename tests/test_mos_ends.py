"""How mOS programs end: nothing that a program calls ends its worker."""

from __future__ import annotations

from pathlib import Path

import pytest
from mos_run import Run
from traffic import conversation, conversations

from shardmos.errors import ShardmosError
from shardmos.run import execute

pytestmark = pytest.mark.timeout(600)  # programs are compiled

ENDINGS = {
    "exit": 3, "_exit": 3, "_Exit": 3, "quick_exit": 3, "abort": 134, "assert": 134, "assert_perror": 134,
    "err": 3, "errx": 3, "error": 3, "raise": 143, "kill": 137,
}  # fmt: skip


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(capfd, tmp_path)


@pytest.mark.parametrize("how", ENDINGS)
def test_ending_in_a_callback_ends_the_program_alone(run: Run, how: str) -> None:
    assert run("ends", conversations(3), "callback", how) == [
        "at exit, first told", f"at exit, {ENDINGS[how]} status", "at exit, last told, 3 packets",
    ]  # fmt: skip
    assert run.result is not None
    assert run.result.counters["packets"] == 24  # the worker went on


@pytest.mark.parametrize("how", ENDINGS)
def test_ending_in_the_set_up_is_refused(run: Run, how: str) -> None:
    with pytest.raises(ShardmosError, match=rf"ended itself with exit\({ENDINGS[how]}\)"):
        run("ends", conversation(), "main", how)


def test_what_the_program_says_of_its_end(run: Run) -> None:
    run("ends", conversation(), "callback", "err")
    assert "ends: file 7: No such file or directory" in run.errors
    run("ends", conversation(), "callback", "errx")
    assert "ends: file 7" in run.errors


def test_what_does_not_end_a_program(run: Run) -> None:
    told = run("ends", conversation(), "callback", "goes on")
    assert told == ["joined, 8 packets", "at exit, first told", "at exit, 0 status", "at exit, last told, 8 packets"]
    assert not [line for line in run.errors if "warning" in line]


def test_a_main_that_leaves_its_threads(run: Run) -> None:
    assert run("ends", conversation(), "thread", "goes on")[0] == "joined, 8 packets"


def test_ends_with_two_workers(run: Run, tmp_path: Path) -> None:
    told = run("ends", conversations(20), "callback", "exit", workers=2)
    assert told.count("at exit, last told, 3 packets") == 2
    assert execute(tmp_path / "frames.pcap", []).counters["packets"] == 160
