"""The shipped firewall: which packets pass, judged by a model of one loop over the rules, and by real programs."""

from __future__ import annotations

import ipaddress
import json
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinators import Running
from firewalls import filtered, udp_frame
from live import bridged, connect, serving
from netns import Wire
from traffic import CLIENT, RST, SERVER, SYN, checksum, conversation, ip_frame, tcp_frame, write_pcap

from shardmos.errors import ShardmosError
from shardmos.run import execute
from shardmos.workers.load import load

# ---- the model: one loop over the rules ----

PORTS = [(0, 65535), (80, 80), (1, 1023), (1024, 65535), (79, 81), (5000, 5999)]
NETWORKS = ["any", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.1", "10.0.0.0/30", "10.0.0.2/31", "0.0.0.0/0", "192.0.2.0/24"]


def random_rule(chance: random.Random) -> dict[str, Any]:
    protocol = chance.choice(["tcp", "udp", "any", "6", "icmp"])
    ports = protocol in ("tcp", "udp", "6")
    return {
        "action": chance.choice(["pass", "drop"]),
        "protocol": protocol,
        "from": chance.sample(NETWORKS[1:], chance.choice([1, 1, 2])) if chance.random() < 0.6 else ["any"],
        "to": [chance.choice(NETWORKS)],
        "sports": chance.sample(PORTS, chance.choice([1, 2])) if ports and chance.random() < 0.3 else [],
        "dports": chance.sample(PORTS, chance.choice([1, 2])) if ports and chance.random() < 0.5 else [],
        "either": chance.random() < 0.2,
    }


def text_of(rule: dict[str, Any]) -> str:
    def ports(ranges: list[tuple[int, int]]) -> str:
        return (
            " port " + ",".join(f"{low}-{high}" if low != high else str(low) for low, high in ranges) if ranges else ""
        )

    return (
        f"{rule['action']} {rule['protocol']} from {','.join(rule['from'])}{ports(rule['sports'])}"
        f" to {','.join(rule['to'])}{ports(rule['dports'])}{' either' if rule['either'] else ''}"
    )


def fits(rule: dict[str, Any], proto: int, source: tuple[str, int], destination: tuple[str, int]) -> bool:
    def within(address: str, networks: list[str]) -> bool:
        return any(
            each == "any" or ipaddress.ip_address(address) in ipaddress.ip_network(each, strict=False)
            for each in networks
        )

    def among(port: int, ranges: list[tuple[int, int]]) -> bool:
        return not ranges or any(low <= port <= high for low, high in ranges)

    def one_way(a: tuple[str, int], b: tuple[str, int]) -> bool:
        return (
            within(a[0], rule["from"])
            and among(a[1], rule["sports"])
            and within(b[0], rule["to"])
            and among(b[1], rule["dports"])
        )

    numbers = {"tcp": [6], "udp": [17], "icmp": [1, 58], "6": [6], "any": [proto]}[rule["protocol"]]
    return proto in numbers and (one_way(source, destination) or (rule["either"] and one_way(destination, source)))


@pytest.mark.parametrize("seed", range(6))
def test_the_first_rule_that_fits_counts(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    rules = [random_rule(chance) for _ in range(chance.choice([1, 5, 40]))]
    default = chance.choice(["pass", "drop"])
    frames, expected, hits = [], [], [0] * (len(rules) + 1)
    for number in range(600):  # each a flow of its own: no two have the same ports
        source = (f"{chance.choice(['10.0.0', '10.200.0', '192.0.2'])}.{chance.randrange(5)}", 1000 + number)
        destination = (
            f"{chance.choice(['10.0.0', '10.200.0', '192.0.2'])}.{5 + chance.randrange(5)}",
            chance.choice([80, 81, 22, 5500]),
        )
        proto = chance.choice([6, 17])
        frame = tcp_frame(source, destination, 1, 0, SYN) if proto == 6 else udp_frame(source, destination)
        met = next((i for i, rule in enumerate(rules) if fits(rule, proto, source, destination)), len(rules))
        hits[met] += 1
        frames.append(frame)
        if (rules[met]["action"] if met < len(rules) else default) == "pass":
            expected.append(frame)
    got, counters = filtered(tmp_path, frames, "\n".join(map(text_of, rules)), default)
    assert got == expected
    assert counters["default"] == hits[-1]
    assert [counters[f"line_{line}"] for line in range(1, min(len(rules), 24) + 1)] == hits[:-1][:24]
    assert counters["packets_passed"] == len(expected) and counters["packets_dropped"] == len(frames) - len(expected)


def test_ten_thousand_rules_are_read(tmp_path: Path) -> None:
    rules = "\n".join(f"drop tcp from 10.{n >> 8}.{n & 255}.0/24 to any port 80" for n in range(10_000))
    frames = conversation(client=("10.39.15.7", 5000)) + conversation(
        client=("10.39.16.7", 5000)
    )  # 39 * 256 + 15 is 9,999
    got, _ = filtered(tmp_path, frames, rules)
    assert got == frames[8:]


# ---- state ----


def test_answers_need_no_rule(tmp_path: Path) -> None:
    wanted, refused = conversation(), conversation(client=("10.0.0.3", 40000))
    mixed = [frame for pair in zip(wanted, refused, strict=True) for frame in pair]
    got, _ = filtered(tmp_path, mixed, "pass tcp from 10.0.0.1 to any port 80", "drop")
    assert got == wanted


def test_a_connection_that_the_server_begins_is_another(tmp_path: Path) -> None:
    back = conversation(client=SERVER, server=CLIENT)
    got, _ = filtered(tmp_path, back, "pass tcp from 10.0.0.1 to 10.0.0.2", "drop")
    assert got == []
    got, _ = filtered(tmp_path, back, "pass tcp from 10.0.0.1 to 10.0.0.2 either", "drop")
    assert got == back


def test_midstream(tmp_path: Path) -> None:
    whole, cut = conversation(), conversation(client=("10.0.0.3", 40000))[3:]
    got, _ = filtered(tmp_path, whole + cut, "drop tcp midstream")
    assert got == whole
    got, _ = filtered(tmp_path, whole + cut, "pass tcp new", "drop")
    assert got == whole


def test_ipv6(tmp_path: Path) -> None:
    def syn(source: str) -> bytes:
        segment = struct.pack("!HHIIBBHHH", 4000, 80, 1, 0, 5 << 4, SYN, 65535, 0, 0)
        addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address("2001:db8::80").packed
        total = checksum(addresses + struct.pack("!IHBB", len(segment), 0, 0, 6) + segment)
        header = struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + addresses
        return (
            b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x86\xdd"
            + header
            + segment[:16]
            + struct.pack("!H", total)
            + segment[18:]
        )

    inside, outside = syn("2001:db8:1::7"), syn("2001:db8:2::7")
    got, _ = filtered(tmp_path, [inside, outside], "pass tcp from 2001:db8:1::/48 to 2001:db8::80 port 80", "drop")
    assert got == [inside]
    got, _ = filtered(tmp_path, [inside, outside], "drop from 0.0.0.0/0")  # all of IPv4 is nothing of IPv6
    assert got == [inside, outside]


def test_reset_tells_both_ends(tmp_path: Path) -> None:
    got, counters = filtered(tmp_path, conversation(), "reset tcp to any port 80")
    assert counters["packets_reset"] == 1
    # RFC 9293, 3.10.7.1: the answer to a SYN that nobody wants has sequence number 0 and acknowledges it.
    ours = [frame for frame in got if frame[47] & RST]
    to_client = [struct.unpack("!II", frame[38:46]) for frame in ours if frame[30:34] == bytes([10, 0, 0, 1])]
    assert (0, 1001) in to_client
    assert all(frame[47] & RST for frame in got)  # nothing of the connection itself came through


def icmp_error(quote: bytes, kind: int = 3, code: int = 1) -> bytes:
    message = struct.pack("!BBHI", kind, code, 0, 0) + quote[14:][:28]
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return ip_frame("192.0.2.1", "10.0.0.1", 1, message)


def test_an_error_about_what_passes_passes(tmp_path: Path) -> None:
    allowed = tcp_frame(CLIENT, SERVER, 1, 0, SYN)
    denied = tcp_frame(CLIENT, ("10.0.0.2", 22), 1, 0, SYN)
    frames = [allowed, denied, icmp_error(allowed), icmp_error(denied), icmp_error(udp_frame(SERVER, CLIENT))]
    got, _ = filtered(tmp_path, frames, "pass tcp from any to any port 80", "drop")
    assert got == [allowed, icmp_error(allowed)]


# ---- rules that are wrong ----


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("pass\nallow tcp", "line 2: a rule begins with pass, drop or reset, not with 'allow'"),
        ("pass tcp from 10.0.0.0/33", "line 1: has no good prefix length: '10.0.0.0/33'"),
        ("# one\n\npass tcp from host", "line 3: is no address: 'host'"),
        ("pass; drop tcp to any port 70000", "line 1: is no port, nor a range of ports: '70000'"),
        ("pass tcp from any port 20-10", "is no port, nor a range of ports: '20-10'"),
        ("drop icmp to any port 5", "ports are for a rule of tcp or udp"),
        ("drop tcp port 22", "line 1: whose port? Write 'from any port N' or 'to any port N'"),
        ("drop tcp from", "an address is missing"),
        ("drop tcp to any port", "a number is missing after port"),
        ("drop tcp to any nonsense", "cannot be understood from here on: 'nonsense'"),
        ("drop tcp from , to any", "an address is missing"),
        ("drop " + "x " * 100, "too many words"),
    ],
)
def test_a_wrong_rule_is_refused(tmp_path: Path, rules: str, message: str) -> None:
    with pytest.raises(ShardmosError, match="firewall") as error:
        filtered(tmp_path, conversation(), rules)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_parameters(tmp_path: Path) -> None:
    with pytest.raises(ShardmosError, match="default: give pass, drop or reset, not 'maybe'"):
        filtered(tmp_path, conversation(), "pass", "maybe")
    with pytest.raises(ShardmosError, match=r"parameter rules: .*missing: No such file or directory"):
        load("firewall:rules=@missing")


def test_all_hits_are_published(tmp_path: Path) -> None:
    rules = "\n".join(f"pass tcp to any port {port}" for port in range(1000, 1100))
    frames = [tcp_frame(("10.0.0.1", 5000 + port), ("10.0.0.2", port), 1, 0, SYN) for port in range(1000, 1101)]
    events: list[dict[str, Any]] = []
    capture = write_pcap(tmp_path / "in.pcap", [*frames, tcp_frame(CLIENT, SERVER, 1, 0, SYN)], step=0.1)
    execute(capture, [load(f"firewall:report=2:rules={rules}")], on_event=events.append)
    seen: dict[int, list[int]] = {}
    for event in events:
        if event.get("topic", "").endswith("hits"):
            seen |= {row[0]: row[1:] for row in json.loads(event["data"])}
    assert {line: row[:2] for line, row in seen.items() if line} == {line: [1, 1] for line in range(1, 101)}


# ---- live ----


@pytest.fixture(scope="module", params=["af_packet", "af_xdp"])
def bridge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Wire, Running]]:
    with bridged(tmp_path_factory, request.param, 2) as bridge:
        yield bridge


def rule(running: Running, rules: str, default: str = "pass") -> None:
    with running.client() as client:
        client.push("firewall", rules=rules, default=default)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(1000):
        connection.sendall(data)


def test_new_rules_count_from_the_next_packet_on(bridge: tuple[Wire, Running]) -> None:
    wire, running = bridge
    address = (wire.SERVER, 8201)
    rule(running, "pass tcp to any port 8201; pass icmp", "drop")
    with serving(wire.server, address, echo), connect(wire.client, address) as connection:
        connection.sendall(b"one")
        assert connection.recv(10) == b"one"
        rule(running, "drop tcp to any port 8201")
        connection.sendall(b"two")
        connection.settimeout(0.7)
        with pytest.raises(TimeoutError):
            connection.recv(10)
        rule(running, "pass")
        connection.settimeout(60)
        assert connection.recv(10) == b"two"  # TCP says it again
        rule(running, "reset tcp to any port 8201")
        connection.sendall(b"three")
        with pytest.raises(ConnectionResetError):
            connection.recv(10)
    with pytest.raises(ConnectionRefusedError):
        connect(wire.client, address)
    with running.client() as client:
        (told,) = [each for each in client.stats()["sum"]["modules"] if each["name"] == "firewall"]
    assert told["counters"]["packets_reset"] >= 2


def test_what_is_denied_does_not_pass(bridge: tuple[Wire, Running]) -> None:
    wire, running = bridge
    rule(running, f"pass tcp from {wire.CLIENT} to {wire.SERVER} port 8202; pass icmp", "drop")
    with serving(wire.server, (wire.SERVER, 8202), echo), serving(wire.server, (wire.SERVER, 8203), echo):
        with connect(wire.client, (wire.SERVER, 8202)) as connection:
            connection.sendall(b"x")
            assert connection.recv(10) == b"x"
        denied = wire.client.socket(socket.AF_INET)
        with denied:
            denied.settimeout(1)
            with pytest.raises(TimeoutError):
                denied.connect((wire.SERVER, 8203))
    # A push that is refused leaves the rules as they are.
    with pytest.raises(ShardmosError, match="line 1"):
        rule(running, "nonsense")
    with serving(wire.server, (wire.SERVER, 8202), echo), connect(wire.client, (wire.SERVER, 8202)) as connection:
        connection.sendall(b"y")
        assert connection.recv(10) == b"y"
    rule(running, "pass")
