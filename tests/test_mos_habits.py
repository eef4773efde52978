"""Habits of those who write mOS programs: old C, threads with locks, waiting for signals, files, ways to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli_help import COMMAND
from mos_run import PROGRAMS, Run
from traffic import conversation, conversations, write_pcap

from shardmos.control.compile import CompileError, find_compiler
from shardmos.mos import compile_mos, load_mos
from shardmos.run import execute

pytestmark = pytest.mark.timeout(600)  # programs are compiled


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(capfd, tmp_path)


@pytest.mark.skipif("clang" in find_compiler(), reason="clang has no nested functions")
def test_old_c_of_several_sources(run: Run) -> None:
    # The longest without payload is 40 bytes of headers; "GET" is kept of each request, the answers begin with "H".
    answer = len(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert run(("old/main", "old/list"), conversations(3)) == [f"3 started, 9 of GET, 40 {answer}, PATH 1", "18 twice"]


def test_what_the_linker_says_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n")
    with (tmp_path / "lib.a").open("w") as library:
        library.write("no library")
    with pytest.raises(CompileError, match=r"lib\.a"):
        compile_mos([str(tmp_path / "a.c"), str(tmp_path / "lib.a")])


@pytest.mark.parametrize("kind", ["mutex", "rwlock", "spinlock", "p of a semaphore", "c11"])
def test_a_thread_that_asks_with_a_lock_in_its_hand(run: Run, kind: str) -> None:
    """Callbacks wait for the lock in the thread that has to answer."""
    assert run("shared", conversations(3000), kind) == ["24000 packets, 3000 started, 6000 ended, 0 left"]
    assert not run.errors


def test_a_context_after_another(run: Run) -> None:
    """The first sees one connection and the SYN of the second, whose other packets are the second's orphans."""
    assert run("again", conversations(5)) == ["9 packets, 0 orphans", "33 packets, 7 orphans"]


# ---- output, files, crashes ----


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lines_of_several_workers_are_whole(tmp_path: Path, unbuffered: str) -> None:
    """Standard output is a pipe, whose buffer the environment may turn off."""
    write_pcap(tmp_path / "x.pcap", conversations(500))
    command = [*COMMAND, "run", "--mos", str(PROGRAMS / "lines.c"), "-r", "x.pcap", "-w", "2"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    lines = [line.split(" of ")[0] for line in result.stdout.splitlines()]
    assert sorted(lines) == ["client" * 30] * 2500 + ["server" * 30] * 1500


def test_files_of_a_program(run: Run, tmp_path: Path) -> None:
    assert run("files", conversation()) == ["8 packets"]
    assert run.errors == ["files: files"]
    assert {path.name: path.read_text() for path in (tmp_path / "log").iterdir()} == {
        "old.4": "1\n2\n3\n4\n", "old.8": "5\n6\n7\n8\n",
    }  # fmt: skip
    assert Path.cwd() == tmp_path  # the worker's own folder


CRASHING = """\
#include <mos_api.h>
static void crash(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { *(volatile int *)8 = 1; }
int main(void)
{
    mctx_t mctx = mtcp_create_context(0);
    int sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, crash);
    mtcp_app_join(mctx);
    return 0;
}
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_program_that_crashes_is_named(tmp_path: Path, workers: int) -> None:
    (tmp_path / "clumsy.c").write_text(CRASHING)
    write_pcap(tmp_path / "x.pcap", conversation())
    command = [*COMMAND, "run", "--mos", "clumsy.c", "-r", "x.pcap", "-w", str(workers)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stderr.startswith("clumsy: crashed (SIGSEGV)\n")
    assert result.returncode == (-signal.SIGSEGV if workers == 1 else 1)


HEADERS = """\
#include <netinet/tcp.h>
#include <mos_api.h>
#include <linux/tcp.h>
#include <stdio.h>
int main(int argc, char **argv, char **environment)
{
    struct tcphdr t = {0};
    t.th_flags = TH_SYN | TH_ACK;
    printf("%d%d %d %d %d\\n", t.syn, t.ack, TCP_ESTABLISHED, TCP_MSS, TCP_MAX_WINSHIFT);
    return 0;
}
"""


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_both_headers_of_tcp(capfd: pytest.CaptureFixture[str], tmp_path: Path, order: tuple[int, ...]) -> None:
    """The system's own do not go together: ours stands before the second."""
    lines = HEADERS.splitlines(keepends=True)
    (tmp_path / "headers.c").write_text("".join([*(lines[at] for at in order), *lines[3:]]))
    execute(write_pcap(tmp_path / "x.pcap", conversation()), [load_mos([str(tmp_path / "headers.c")])])
    assert capfd.readouterr().out == "11 4 512 14\n"


# ---- signals ----

USR1, USR2, INT = signal.SIGUSR1.value, signal.SIGUSR2.value, signal.SIGINT.value
SENT = [f"signal {USR1} at 2", f"signal {USR2} at 3"]


@pytest.mark.parametrize("how", ["pause", "sleep", "suspend", "select", "wait"])
def test_a_main_that_waits_for_a_signal(run: Run, how: str) -> None:
    begin = time.monotonic()
    told = run("signals", conversation(), how)
    assert told == [*SENT, f"{INT}, 8 packets"]
    assert time.monotonic() - begin < 60  # of the 1000 s that it would sleep


def test_a_main_that_leaves_with_pthread_exit(run: Run) -> None:
    assert run("signals", conversation(), "leave") == SENT


def test_alarms_in_packet_time(run: Run) -> None:
    """The first after one second, then each quarter of one: the last of 8 packets comes after 1.75 s."""
    assert run("signals", conversation(), "alarm", step=0.25) == [*SENT, "4 alarms", f"{INT}, 8 packets"]


def test_the_status_of_a_program_is_told(run: Run) -> None:
    run("ends", conversation(), "callback", "exit")
    assert "ends: warning: the program ended itself with exit(3)" in run.errors


# ---- Ctrl-C ----


PATIENT = """\
#include <stdio.h>
#include <signal.h>
#include <mos_api.h>
static int packets;
static mctx_t mine;
static void count(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    if (!packets++) printf("begun\\n");
}
static void stop(int signum) { printf("signal %d\\n", signum); mtcp_destroy_context(mine); }
int main(void)
{
    mine = mtcp_create_context(0);
    int sock = mtcp_socket(mine, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    mtcp_register_callback(mine, sock, MOS_ON_PKT_IN, MOS_HK_SND, count);
    mtcp_register_signal(SIGINT, stop);
    mtcp_app_join(mine);
    printf("%d packets\\n", packets);
    return 0;
}
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_lets_its_program_end(tmp_path: Path, workers: int, sent: signal.Signals) -> None:
    """As a terminal does it, or timeout(1): the whole group gets the signal."""
    (tmp_path / "patient.c").write_text(PATIENT)
    data = write_pcap(tmp_path / "x.pcap", conversations(20)).read_bytes()
    os.mkfifo(tmp_path / "fifo")
    command = [*COMMAND, "run", "--mos", "patient.c", "-r", "fifo", "-w", str(workers)]
    with (
        subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process,
        (tmp_path / "fifo").open("wb") as writer,
    ):
        writer.write(data)
        writer.flush()
        assert process.stdout is not None
        begun = [process.stdout.readline() for _ in range(workers)]
        os.killpg(process.pid, sent)
        output, errors = process.communicate(timeout=60)
    assert begun == ["begun\n"] * workers, errors
    assert process.returncode == 130, errors
    lines = output.splitlines()
    assert lines.count("signal 2") == workers
    assert sum(int(line.split()[0]) for line in lines if line.endswith("packets")) >= workers
