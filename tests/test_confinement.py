"""What a worker may do after its start: as /proc shows it, and as a pushed middlebox that tries finds out."""

from __future__ import annotations

import ast
import gzip
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import netns
import pytest
from coordinators import PROGRAM, Running, gone, shardmos, until, write_module
from test_push import source
from traffic import conversations, write_pcap

from shardmos import __file__ as PACKAGE

# Each attempt is one call; what comes of it is published as its errno's name.
ATTEMPTS = """
import ctypes, errno, fcntl, mmap, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)

def native(name, *arguments):
    ctypes.set_errno(0)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def thread():
    import threading
    each = threading.Thread(target=lambda: None); each.start(); each.join()

TRIES = {
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "socket": lambda: socket.socket(socket.AF_INET),
    "connect": lambda: native("connect", 0, None, 0),
    "bind": lambda: native("bind", 0, None, 0),
    "ptrace": lambda: native("ptrace", 16, os.getppid(), 0, 0),
    "kill": lambda: os.kill(os.getppid(), 0),
    "bpf": lambda: native("syscall", 321 if os.uname().machine == "x86_64" else 280, 0, 0, 0),
    "setuid": lambda: os.setuid(0),
    "mount": lambda: native("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "unshare": lambda: native("unshare", 0x10000000),
    "write": lambda: open("/tmp/confined", "w"),
    "mode": lambda: os.fchmod(os.open("/proc/self/exe", os.O_RDONLY), 0o755),
    "owner": lambda: os.fchown(os.open("/proc/self/exe", os.O_RDONLY), os.geteuid(), -1),
    "attribute": lambda: os.setxattr(os.open("/proc/self/exe", os.O_RDONLY), "user.confined", b""),
    "signals": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid()),
    "signals too": lambda: fcntl.fcntl(0, 15, struct.pack("ii", 1, os.getppid())),
    "signals of sockets": lambda: fcntl.ioctl(0, 0x8901, struct.pack("i", os.getppid())),
    "shared memory": lambda: native("shmget", 0x5A5A, 4096, 0o1600),
    "read": lambda: open("/proc/self/status").close(),
    "map": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "import": lambda: __import__("decimal"),
    "thread": thread,
}

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "works"

def attempts():
    return {name: outcome(attempt) for name, attempt in TRIES.items()}
"""
REFUSED = {
    "exec", "fork", "socket", "connect", "bind", "ptrace", "kill", "bpf", "setuid", "mount", "unshare", "write", "mode",
    "owner", "attribute", "signals", "signals too", "signals of sockets", "shared memory",
}  # fmt: skip
STAYS = {"read", "map", "import", "thread"}
BODY = """
def __init__(self, **parameters):
    super().__init__(**parameters)
    self.said = False

@sm.on(sm.CONN_START)
def start(self, flow):
    if not self.said:
        self.said = True
        self.emit("attempts", repr(attempts()))
"""
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user: run as root")
OTHER = "nobody"


def readable_by_anyone() -> list[str]:
    """A command's prefix: in a mount namespace where everyone can read the interpreter, though it is below a home."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("unshare and setpriv are missing: apt-get install util-linux")
    package = Path(PACKAGE).resolve().parents[1]
    wanted = sorted({str(Path(path).resolve()) for path in (sys.base_prefix, sys.prefix, package)})
    wanted = [path for path in wanted if not any(Path(other) in Path(path).parents for other in wanted)]
    closed = {
        path: next((above for above in reversed(Path(path).parents) if not above.stat().st_mode & 1), None)
        for path in wanted
    }
    homes = {str(home) for home in closed.values() if home is not None}
    moved = [path for path, home in closed.items() if home is not None]
    if not moved:
        return []
    # A mount each holds the paths while something empty and open takes the homes' places; then they come back.
    script = ["mount -t tmpfs -o mode=755 none /mnt"]
    script += [f"mkdir /mnt/{n} && mount --bind '{path}' /mnt/{n}" for n, path in enumerate(moved)]
    script += [f"mount -t tmpfs -o mode=755 none '{home}'" for home in sorted(homes)]
    script += [f"mkdir -p '{path}' && mount --move /mnt/{n} '{path}'" for n, path in enumerate(moved)]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", " && ".join([*script, 'exec "$@"']), "sh"]


@pytest.fixture
def replay() -> Iterator[Path]:
    """A capture that everyone can read; what pytest makes is the user's own."""
    directory = Path("/tmp") / f"smos-confinement-{os.getpid()}"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    try:
        path = write_pcap(directory / "many.pcap", conversations(300))
        path.chmod(0o644)
        yield path
    finally:
        shutil.rmtree(directory)


def arguments(replay: Path, *more: str) -> list[str]:
    return ["--replay", str(replay), "--loop", "--rate", "20000", *more]


def tried(running: Running, tmp_path: Path) -> dict[str, str]:
    """What a pushed middlebox could do."""
    with running.client() as client:
        events = client.events("module.Probe", timeout=20)
        client.push(write_module(tmp_path / "tries.py", BODY, ATTEMPTS))
        found: dict[str, str] = ast.literal_eval(next(events)["data"])
        return found


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def check_rights(pid: int, user: str) -> None:
    """Of every thread, ZeroMQ's too."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
        assert all(int(fields[kind], 16) == 0 for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"))
        assert {pwd.getpwuid(int(uid)).pw_name for uid in fields["Uid"].split()} == {user}


def check_confined(running: Running, tmp_path: Path, user: str) -> None:
    """By /proc, by what a module can do; and that pushing goes on."""
    for worker in running.workers():
        check_rights(worker.pid, user)
    assert [worker["rights"]["user"] for worker in running.status()["workers"]] == [user]
    found = tried(running, tmp_path)
    assert {name: found[name] for name in REFUSED} == dict.fromkeys(REFUSED, "EPERM")
    assert {name: found[name] for name in STAYS} == dict.fromkeys(STAYS, "works")
    with running.client() as client:
        before = client.status()["workers"][0]["pid"]
        (tmp_path / "native.c").write_text(source())
        client.push(tmp_path / "native.c")
        client.push(write_module(tmp_path / "tries.py", "@sm.on(sm.CONN_START)\ndef start(self, flow): pass"))
        until(lambda: all(each["calls"] > 10 for each in client.ls()))
        after = client.status()["workers"][0]
        assert (after["pid"], after["restarts"]) == (before, 0)


def test_a_worker_has_no_rights_but_can_load_modules(
    runtime_dir: Path, replay: Path, tmp_path: Path, compiler: str
) -> None:
    with Running(*arguments(replay)) as running:
        check_confined(running, tmp_path, pwd.getpwuid(os.geteuid()).pw_name)
        # The coordinator keeps its own: it starts workers.
        assert "Seccomp:\t0" in Path(f"/proc/{running.process.pid}/status").read_text()


@ROOT_ONLY
def test_workers_of_root_become_another_user(runtime_dir: Path, replay: Path, tmp_path: Path, compiler: str) -> None:
    prefix = readable_by_anyone()
    with Running(*arguments(replay, "--set", f"security.user={OTHER}"), prefix=prefix) as running:
        check_confined(running, tmp_path, OTHER)
        # What died comes back, as that user, and is killed with its coordinator.
        killed = running.status()["workers"][0]["pid"]
        os.kill(killed, signal.SIGKILL)
        until(lambda: running.status()["workers"][0]["pid"] != killed)
        until(lambda: running.status()["workers"][0]["state"] == "running")
        worker = running.status()["workers"][0]
        assert worker["rights"]["user"] == OTHER
        running.process.kill()
        until(lambda: gone(worker["pid"]))


@ROOT_ONLY
def test_an_ordinary_users_workers_are_confined_too(runtime_dir: Path, replay: Path) -> None:
    other = pwd.getpwnam(OTHER)
    os.chown(runtime_dir, other.pw_uid, other.pw_gid)
    command = readable_by_anyone()
    command += ["setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups"]
    command += [
        sys.executable,
        "-c",
        PROGRAM,
        "up",
        "--memory",
        "32MiB",
        *arguments(replay, "--set", "coordinator.spare=false"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as coordinator:
        try:
            assert coordinator.stderr is not None and "is up" in coordinator.stderr.readline()
            (worker,) = children(coordinator.pid)
            check_rights(worker, OTHER)
        finally:
            coordinator.send_signal(signal.SIGINT)


def test_the_filter_can_be_left_out(runtime_dir: Path, replay: Path) -> None:
    with Running(*arguments(replay, "--set", "security.seccomp=off")) as running:
        (worker,) = running.workers()
        status = Path(f"/proc/{worker.pid}/status").read_text()
        assert "Seccomp:\t0" in status and "NoNewPrivs:\t1" in status


def test_the_reader_of_captures_is_confined_too(runtime_dir: Path, replay: Path) -> None:
    packed = replay.with_suffix(".gz")
    packed.write_bytes(gzip.compress(replay.read_bytes()))
    packed.chmod(0o644)
    with Running(*arguments(packed, "-w", "2")) as running:
        workers = {worker.pid for worker in running.workers()}
        others = set(children(running.process.pid)) - workers
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in others]
        assert any("Seccomp:\t2" in status for status in statuses)


@pytest.mark.parametrize(
    ("setting", "said"),
    [("security.user=no_such_user", "there is no user no_such_user"), ("security.seccomp=maybe", "choose one")],
)
def test_a_wrong_setting_is_one_line(runtime_dir: Path, replay: Path, setting: str, said: str) -> None:
    done = shardmos("up", *arguments(replay, "--set", setting))
    assert done.returncode != 0 and said in done.stderr and done.stderr.count("\n") == 1


@ROOT_ONLY
@pytest.mark.parametrize("driver", ["af_packet", "af_xdp"])
def test_ports_are_served_without_rights_and_by_the_next_worker_too(
    runtime_dir: Path, tmp_path: Path, driver: str
) -> None:
    netns.require()
    netns.need("ping", "iputils-ping")
    with netns.Wire() as wire:
        prefix = wire.box.command(*readable_by_anyone())
        more = ("--driver", driver, "--set", f"security.user={OTHER}", "--set", "security.seccomp=required")
        with Running("--pair", "left", "right", *more, prefix=prefix) as running, running.client() as client:
            client.push(write_module(tmp_path / "tries.py", "@sm.on(sm.CONN_START)\ndef start(self, flow): pass"))
            first = 0

            def served() -> bool:
                worker = client.status()["workers"][0]
                return worker["state"] == "running" and worker["pid"] != first and bool(client.status()["spare"])

            for _ in range(2):
                until(served)
                first = client.status()["workers"][0]["pid"]
                check_rights(first, OTHER)
                assert wire.client.run("ping", "-c", "3", "-i", "0.1", "-W", "5", wire.SERVER).returncode == 0
                until(lambda: client.ls()[0]["calls"] > 0)
                os.kill(first, signal.SIGKILL)
