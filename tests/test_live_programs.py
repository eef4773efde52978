"""Programs that people use, through a pair of ports: they work as over a cable, and the flows told are theirs."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from coordinators import Running, until
from live import Reported, bridged, settled
from netns import Namespace, Wire, need

Bridge = tuple[Wire, Running]
BIG = 1 << 30


@pytest.fixture(scope="module", params=["af_packet", "af_xdp"])
def bridge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with bridged(tmp_path_factory, request.param, 2) as bridge:
        yield bridge


@contextmanager
def started(host: Namespace, *command: str) -> Iterator[subprocess.Popen[str]]:
    program = host.start(*command)
    try:
        yield program
    finally:
        program.terminate()
        try:
            program.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            program.kill()
            program.communicate()


def answers(host: Namespace, *command: str) -> None:
    until(lambda: host.run(*command).returncode == 0, 20)


NGINX = """
daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;
worker_rlimit_nofile 30000;
events {{ worker_connections 25000; }}
http {{
    access_log off; keepalive_requests 1000000; client_body_temp_path {home}; proxy_temp_path {home};
    fastcgi_temp_path {home}; uwsgi_temp_path {home}; scgi_temp_path {home};
    server {{
        listen {address}:{port} backlog=16384; listen [{address6}]:{port} backlog=16384; root {home}/www;
        location /status {{ stub_status; }}
    }}
}}
"""


@contextmanager
def nginx(wire: Wire, home: Path, port: int) -> Iterator[None]:
    program = need("nginx", "nginx-light")
    need("curl", "curl")
    (home / "www").mkdir()
    (home / "www/small").write_bytes(b"a small file\n")
    names = {"home": home, "port": port, "address": wire.SERVER, "address6": wire.SERVER6}
    (home / "conf").write_text(NGINX.format(**names))
    wire.server.write("/proc/sys/net/core/somaxconn", "16384")
    wire.server.write("/proc/sys/net/ipv4/tcp_max_syn_backlog", "16384")
    with started(wire.server, program, "-e", str(home / "error.log"), "-c", str(home / "conf")):
        answers(wire.client, "curl", "-sf", f"http://{wire.SERVER}:{port}/small")
        yield


@pytest.mark.timeout(400)
def test_ten_thousand_connections_to_nginx(bridge: Bridge, tmp_path: Path) -> None:
    """Open all at once, with keep-alive. Each is a flow, and has its answers."""
    wire, running = bridge
    need("wrk", "wrk")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = 10_000 if hard == resource.RLIM_INFINITY or hard > 12_000 else hard - 500
    with nginx(wire, tmp_path, 8300):
        script = tmp_path / "count.lua"
        script.write_text(
            "done = function(summary) io.write(string.format('%d %d %d\\n', summary.requests, summary.errors.status,"
            " summary.errors.read)) end\n"
        )
        limit = ["prlimit", f"--nofile={hard}", "wrk", "-t", "2", "-c", str(count), "--timeout", "60s"]
        for seconds in (12, 120):  # the second time, where the machine is too busy for them
            before = settled(running)
            opened, accepted = active_opens(wire), served(wire, 8300)[0]
            again = ("-d", f"{seconds}s", "-s", str(script), f"http://{wire.SERVER}:8300/small")
            done = wire.client.run(*limit, *again, timeout=200)
            assert done.returncode == 0, done.stderr
            requests, wrong, _ = map(int, done.stdout.splitlines()[-1].split())
            if requests > count:
                break
        assert requests > count and wrong == 0, done.stdout
        connections = served(wire, 8300)[0] - accepted - 1
        assert connections >= 0.98 * count  # a busy machine may not open all within that time
        # Those that looked at the status are flows, too, and those that were refused. Where packets were lost,
        # what both ends still send of a connection seconds after its end is one more, without a beginning.
        after = settled(running)
        made, midstream = (after[name] - before[name] for name in ("flows_made_tcp", "flows_midstream"))
        assert connections <= made - midstream <= active_opens(wire) - opened


def active_opens(wire: Wire) -> int:
    """Connections that the client's kernel began (RFC 4022 tcpActiveOpens)."""
    names, values = (line.split() for line in wire.client.run("grep", "^Tcp:", "/proc/net/snmp").stdout.splitlines())
    return int(values[names.index("ActiveOpens")])


def served(wire: Wire, port: int) -> tuple[int, int]:
    """Connections accepted and requests, as nginx counts them."""
    status = wire.client.run("curl", "-sf", f"http://{wire.SERVER}:{port}/status").stdout
    found = re.search(r"requests\s+(\d+)\s+\d+\s+(\d+)", status)
    assert found, status
    return int(found[1]), int(found[2])


@pytest.mark.timeout(300)
def test_a_gigabyte_is_whole(bridge: Bridge, tmp_path: Path) -> None:
    wire, running = bridge
    with nginx(wire, tmp_path, 8301):
        path, digest = tmp_path / "www/big", hashlib.sha256()
        block = os.urandom(1 << 20)
        with path.open("wb") as file:
            for number in range(BIG >> 20):
                part = number.to_bytes(8, "big") + block[8:]
                digest.update(part)
                file.write(part)
        try:
            with Reported(running) as reported:
                pipe = f"curl -sf http://{wire.SERVER}:8301/big | sha256sum"
                done = wire.client.run("sh", "-c", pipe, timeout=250)
                assert done.stdout.split()[:1] == [digest.hexdigest()], done.stderr
                (flow,) = reported.wait(lambda flow: flow["server_port"] == 8301 and flow["stream_span"][1] >= BIG, 1)
        finally:
            path.unlink()
    assert 0 < flow["stream_span"][1] - BIG < 1000
    assert (flow["conn_state"], flow["end_reason"]) == ("SF", "fin")


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_tls(bridge: Bridge, tmp_path: Path, version: str) -> None:
    wire, running = bridge
    program, port = need("openssl", "openssl"), 8310 + (version == "tls1_3")
    need("curl", "curl")
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    made = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run(
        [*made, "-keyout", "key", "-out", "cert", "-subj", "/CN=x", "-addext", f"subjectAltName=IP:{wire.SERVER6}"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    serve = f"cd {tmp_path} && exec {program} s_server -6 -accept {port} -cert cert -key key -WWW -{version} -quiet"
    url = f"https://[{wire.SERVER6}]:{port}/file"
    with started(wire.server, "sh", "-c", serve):
        fetch = ["curl", "-sS", "--cacert", str(tmp_path / "cert"), "--http1.0", "-o", str(tmp_path / "got"), url]
        until(lambda: wire.client.run(*fetch, timeout=30).returncode == 0, 20)
        with Reported(running) as reported:
            done = wire.client.run(*fetch, "--local-port", str(port + 12000))
            assert done.returncode == 0, done.stderr
            (flow,) = reported.wait(lambda flow: (flow["server_port"], flow["client_port"]) == (port, port + 12000), 1)
    assert (tmp_path / "got").read_bytes() == content
    assert flow["server"] == wire.SERVER6 and flow["stream_span"][1] > len(content)


def test_ssh(bridge: Bridge, tmp_path: Path) -> None:
    wire, running = bridge
    server, port = need("sshd", "openssh-server"), 8320
    need("ssh", "openssh-client")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    (tmp_path / "keys").write_bytes((tmp_path / "user.pub").read_bytes())
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives up its rights
    settings = [
        f"ListenAddress={wire.SERVER}",
        f"Port={port}",
        f"HostKey={tmp_path}/host",
        f"AuthorizedKeysFile={tmp_path}/keys",
    ]
    settings += ["StrictModes=no", "UsePAM=no", "PidFile=none", "PermitRootLogin=yes"]
    options = [part for each in settings for part in ("-o", each)]
    user = pwd.getpwuid(os.getuid()).pw_name
    ssh = ["ssh", "-F", "none", "-i", str(tmp_path / "user"), "-p", str(port), "-o", "StrictHostKeyChecking=no"]
    ssh += [
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        "LogLevel=ERROR",
        f"{user}@{wire.SERVER}",
    ]
    content = os.urandom(2_000_000)
    (tmp_path / "content").write_bytes(content)
    with started(wire.server, server, "-D", "-f", "/dev/null", *options):
        answers(wire.client, *ssh, "true")
        with Reported(running) as reported:
            copy = f"{' '.join(ssh)} 'sha256sum; head -c 1000000 /dev/zero' < {tmp_path}/content | head -c 64"
            done = wire.client.run("sh", "-c", copy)
            assert done.stdout == hashlib.sha256(content).hexdigest(), done.stderr
            (flow,) = reported.wait(lambda flow: flow["server_port"] == port and flow["stream_span"][0] > 2_000_000, 1)
    assert flow["stream_span"][1] > 64


def test_dns_over_udp_and_tcp(bridge: Bridge, tmp_path: Path) -> None:
    wire, running = bridge
    program, port = need("dnsmasq", "dnsmasq-base"), 8330
    need("dig", "bind9-dnsutils")
    records = "".join(f'txt-record=long.test,"{"x" * 200}{number}"\n' for number in range(20))
    conf = tmp_path / "conf"
    conf.write_text(f"no-resolv\nno-hosts\nhost-record=a.test,192.0.2.1,2001:db8::1\n{records}")
    serve = [program, "-k", "-C", str(conf), "-p", str(port), "-a", wire.SERVER, "-z", "-x", str(tmp_path / "pid")]
    dig = ["dig", f"@{wire.SERVER}", "-p", str(port), "+time=5", "+tries=2"]
    with started(wire.server, *serve, "--user=root"):
        answers(wire.client, *dig, "a.test")
        with Reported(running) as reported:
            dig += ["-b", f"{wire.CLIENT}#21001"]
            assert wire.client.run(*dig, "+short", "+notcp", "a.test").stdout == "192.0.2.1\n"
            assert wire.client.run(*dig, "+short", "+tcp", "a.test", "AAAA").stdout == "2001:db8::1\n"
            dig[-1] = f"{wire.CLIENT}#21002"
            # Too long for a datagram of 512 bytes: asked again over TCP.
            told = wire.client.run(*dig, "+short", "+notcp", "+noedns", "long.test", "TXT").stdout
            assert told.count('"') == 40
            found = reported.wait(lambda flow: flow["server_port"] == port and flow["client_port"] in (21001, 21002), 4)
    assert sorted(flow["proto"] for flow in found) == ["tcp", "tcp", "udp", "udp"]
    assert {flow["conn_state"] for flow in found} == {"SF"}
