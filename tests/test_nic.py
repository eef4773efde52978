"""`shardmos nic`: Toeplitz against the published vectors, cards by a fake driver, channels on veth.

No card with RSS was at hand when this was written: what a driver answers to a key is the fake's word.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import netns
import pytest
from coordinators import PROGRAM

from shardmos.errors import ShardmosError, UsageError
from shardmos.nic import plan
from shardmos.nic.ethtool import ADDRESSES_AND_PORTS, SYMMETRIC_XOR, Channels, Rss
from shardmos.nic.irq import Irqs
from shardmos.nic.toeplitz import (
    IPV6_BITS,
    distinct_values,
    flow_input,
    is_symmetric,
    random_key,
    symmetric_key,
    toeplitz,
)  # fmt: skip

# "Verifying the RSS Hash Calculation" (Microsoft): the key; destination, source, hash of addresses, with TCP ports.
KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)  # fmt: skip
VECTORS = [
    ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323E8FC2, 0x51CCC178),
    ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xD718262A, 0xC626B0EA),
    ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xD2D0A5DE, 0x5C2B394A),
    ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xAFC7327F),
    ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2CC18CD5, 0x40207D3D),
    ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0F0C461C, 0xDDE51BBF),
    ("fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x4B61E985, 0x02D1FEEF),
]


@pytest.mark.parametrize(("destination", "to", "source", "port", "addresses", "tcp"), VECTORS)
def test_toeplitz_gives_the_published_hashes(
    destination: str, to: int, source: str, port: int, addresses: int, tcp: int
) -> None:
    assert toeplitz(KEY, flow_input(source, destination)) == addresses
    assert toeplitz(KEY, flow_input(source, destination, (port, to))) == tcp


@pytest.mark.parametrize("length", [40, 52])
def test_a_symmetric_key_is_symmetric_and_takes_all_values_it_can(length: int) -> None:
    for _ in range(20):
        key = symmetric_key(length)
        assert len(key) == length and is_symmetric(key)
        assert distinct_values(key) == distinct_values(key, IPV6_BITS) == 1 << 16
        for to, destination, port, source in [(v[1], v[0], v[3], v[2]) for v in VECTORS]:
            there = toeplitz(key, flow_input(source, destination, (port, to)))
            assert there == toeplitz(key, flow_input(destination, source, (to, port)))


def test_values_are_counted_right() -> None:
    assert distinct_values(bytes([5]) * 40) == 64  # as was reported of the key of mOS
    assert not is_symmetric(KEY) and distinct_values(KEY) == 1 << 32
    assert distinct_values(random_key(40), xor=True) >= 1 << 30
    chosen = random.Random(7)
    for key in (bytes([5]) * 40, bytes([0x6D, 0x5A]) * 20):
        seen = {toeplitz(key, chosen.randbytes(12)) for _ in range(3000)}
        assert len(seen) <= distinct_values(key)
        assert len(seen) == 64 or len(seen) > 2800  # of 65,536, with the collisions that chance gives


@pytest.mark.parametrize("byte", range(12))
def test_flows_that_differ_in_one_byte_spread_over_the_table(byte: int) -> None:
    """As the clients of one network do behind one server: every entry of a table of 128 is used, equally."""
    key, flow = symmetric_key(40), bytearray(flow_input("10.1.2.3", "192.0.2.1", (40000, 443)))
    used = [0] * 128
    for flow[byte] in range(256):
        used[toeplitz(key, bytes(flow)) % 128] += 1
    assert used == [2] * 128


# ---- a card ----


class Fake:
    """A card that knows what a driver does; `refuses` symmetric-xor unless told otherwise."""

    def __init__(self, xor: bool = False, rss: bool = True, queues: int = 8) -> None:
        self.name, self.xor = "eth9", xor
        self.now: Channels | None = Channels(0, 0, queues, 0, 0, 16)
        self.scaling: Rss | None = Rss(KEY, tuple(place % queues for place in range(128))) if rss else None
        self.fields = {"tcp4": ADDRESSES_AND_PORTS, "udp4": 0x30}
        self.calls: list[str] = []

    def driver(self) -> str:
        return "fake"

    def channels(self) -> Channels | None:
        return self.now

    def set_channels(self, wanted: Channels) -> None:
        assert self.scaling is None or max(self.scaling.table) < wanted.queues, "as drivers do: the table comes first"
        self.calls.append("channels")
        self.now = wanted

    def rss(self) -> Rss | None:
        return self.scaling

    def set_rss(self, wanted: Rss) -> None:
        assert self.now is not None and max(wanted.table) < self.now.queues
        if wanted.transform and not self.xor:
            raise ShardmosError("eth9: its driver cannot do this RSS key and table")
        self.calls.append("rss")
        self.scaling = wanted

    def hashed(self, flow_type: str) -> int | None:
        return self.fields.get(flow_type)

    def set_hashed(self, flow_type: str, fields: int) -> None:
        self.calls.append(flow_type)
        self.fields[flow_type] = fields


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """/proc and /sys of a host with such a card: eight queues, a mailbox, and somebody else's interrupt."""
    (tmp_path / "proc/irq").mkdir(parents=True)
    names = [f"i40e-eth9-TxRx-{queue}" for queue in range(8)]
    rows = [(30, "i40e-0000:3b:00.0:misc"), *enumerate(names, 31), (50, "eth90-TxRx-0"), (51, "nvme0q1")]
    (tmp_path / "proc/interrupts").write_text(
        "           CPU0       CPU1\n"
        + "".join(f" {number}:   12   0  IR-PCI-MSIX-0000:3b:00.0  {number}-edge  {name}\n" for number, name in rows)
        + "NMI:  0  0  Non-maskable interrupts\n"
    )
    vectors = tmp_path / "sys/class/net/eth9/device/msi_irqs"
    vectors.mkdir(parents=True)
    for number, _ in rows:
        (tmp_path / f"proc/irq/{number}").mkdir()
        (tmp_path / f"proc/irq/{number}/smp_affinity_list").write_text("0-15\n")
        if 30 <= number < 40:
            (vectors / str(number)).touch()
    return tmp_path


def affinities(host: Path) -> dict[int, str]:
    return {int(each.name): (each / "smp_affinity_list").read_text().strip() for each in (host / "proc/irq").iterdir()}


def change(card: Fake, host: Path, queues: int | None, symmetric: bool, cores: list[int]) -> list[str]:
    irqs = Irqs(host)
    now = plan.look(card, irqs)
    wanted = plan.decide(card, now, queues, symmetric, cores, irqs.of(card.name))
    plan.remember(card.name, now, host / "state")
    return plan.apply(card, irqs, now, wanted)


def restore(card: Fake, host: Path) -> None:
    plan.apply(card, Irqs(host), plan.look(card, Irqs(host)), plan.recall(card.name, host / "state"))
    plan.forget(card.name, host / "state")


def test_queues_key_table_fields_and_interrupts_are_set_and_put_back(host: Path) -> None:
    card = Fake()
    before = (card.now, card.scaling, dict(card.fields), affinities(host))
    done = change(card, host, 4, True, [2, 3, 4, 5])
    assert card.now is not None and card.now.combined == 4
    assert card.scaling is not None and is_symmetric(card.scaling.key)
    assert {card.scaling.table.count(queue) for queue in range(4)} == {32}
    assert set(card.fields.values()) == {ADDRESSES_AND_PORTS}
    assert affinities(host) == {
        30: "0-15", 31: "2", 32: "3", 33: "4", 34: "5", 35: "2", 36: "3", 37: "4", 38: "5", 50: "0-15", 51: "0-15",
    }  # fmt: skip
    assert any("65,536" in line for line in done)
    first = card.scaling.key
    change(card, host, 2, True, [2, 3])  # what is put back is what was before the first change
    assert card.scaling.key != first
    restore(card, host)
    assert (card.now, card.scaling, card.fields, affinities(host)) == before
    with pytest.raises(ShardmosError, match="nothing to restore"):
        restore(card, host)


def test_symmetric_xor_is_used_where_the_card_has_it(host: Path) -> None:
    card = Fake(xor=True)
    change(card, host, None, True, [])
    assert card.scaling is not None and card.scaling.transform == SYMMETRIC_XOR
    assert plan.look(card, Irqs(host)).symmetric and plan.look(card, Irqs(host)).values >= 1 << 30
    assert card.now is not None and card.now.combined == 8 and set(affinities(host).values()) == {"0-15"}


def test_what_cannot_be_is_said_before_anything_is_changed(host: Path) -> None:
    card = Fake()
    with pytest.raises(ShardmosError, match="at most 16 queues, not 17"):
        change(card, host, 17, True, [0])
    with pytest.raises(UsageError, match="1 or more"):
        change(card, host, 0, False, [0])
    with pytest.raises(ShardmosError, match="no RSS key"):
        change(bare := Fake(rss=False), host, 2, True, [0])
    fixed = Fake()
    fixed.now = None
    with pytest.raises(ShardmosError, match="one queue"):
        change(fixed, host, 2, False, [0])
    assert card.calls == bare.calls == fixed.calls == [] and not (host / "state").exists()


def test_a_table_alone_follows_the_queues_and_the_key_stays(host: Path) -> None:
    card = Fake()
    change(card, host, 3, False, [0])
    assert card.scaling is not None and card.scaling.key == KEY and set(card.scaling.table) == {0, 1, 2}
    assert card.fields["udp4"] == 0x30


def test_interrupts_that_a_driver_manages_are_named(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Irqs, "write", lambda *_: False)
    done = change(Fake(), host, 2, False, [1])
    assert sum("its driver manages it" in line for line in done) == 8


def test_a_state_file_of_something_else_is_one_line(host: Path) -> None:
    (host / "eth9.json").write_text("{")
    with pytest.raises(ShardmosError, match=r"eth9\.json cannot be read") as caught:
        plan.recall("eth9", host)
    assert "\n" not in str(caught.value)


# ---- the command, on veth ----


@pytest.fixture
def nic() -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs `shardmos nic` in a namespace that has a veth pair with four queues."""
    netns.require()
    here = netns.Namespace("nic")
    try:
        netns.join(here, "v0", here, "v1", queues=4)

        def run(*arguments: str) -> tuple[int, str, str]:
            done = here.run(sys.executable, "-c", PROGRAM, "nic", *arguments)
            return done.returncode, done.stdout, done.stderr

        yield run
    finally:
        plan.forget("v0")
        here.remove()


def queues(nic: Callable[..., tuple[int, str, str]]) -> int:
    return int(json.loads(nic("v0", "--json")[1])["queues"])


def test_channels_of_a_real_driver(nic: Callable[..., tuple[int, str, str]]) -> None:
    before = queues(nic)
    code, said, _ = nic("v0", "--queues", "3", "--dry-run")
    assert (code, queues(nic)) == (0, before) and "would set queues: 3" in said
    assert nic("v0", "--queues", "3")[0] == 0 and queues(nic) == 3
    assert "so already" in nic("v0", "--queues", "3")[1]
    assert nic("v0", "--queues", "2")[0] == 0 and queues(nic) == 2
    assert nic("v0", "--restore")[0] == 0 and queues(nic) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("v0", "--queues", "5"), "at most 4 queues"),
        (("v0", "--queues", "99999999999999999999"), "at most 4 queues"),
        (("v0", "--queues", "-1"), "give 1 or more"),
        (("v0", "--symmetric"), "no RSS key"),
        (("v7",), "no interface v7; there are: lo, v0, v1"),
        (("v0", "--restore"), "nothing to restore"),
        (("v0", "--restore", "--queues", "2"), "leave --queues"),
    ],
)
def test_refusals_are_one_line(nic: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], said: str) -> None:
    code, _, error = nic(*arguments)
    assert code in (1, 2) and said in error and error.count("\n") == 1


def test_without_the_right_to_it(nic: Callable[..., tuple[int, str, str]]) -> None:
    from shardmos.nic.ethtool import Ethtool, _refusal

    assert "run as root" in str(_refusal("eth0", "2 queues", 1))
    assert replace(Channels(1, 1, 0, 4, 4, 0), rx=2).queues == 2 and Ethtool("lo").rss() is None
