"""What is changed on a card, in which order, and how it is put back.

A change is decided from what the card has now; `apply` notes the state from before in a file, once, so that `restore`
puts back what was there before the first change, however many came after.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from shardmos.errors import ShardmosError, UsageError
from shardmos.nic.ethtool import ADDRESSES_AND_PORTS, FLOW_TYPES, SYMMETRIC_XOR, TOEPLITZ, Card, Channels, Rss
from shardmos.nic.irq import Irqs
from shardmos.nic.toeplitz import distinct_values, is_symmetric, random_key, symmetric_key

STATE_DIRECTORY = Path("/run/shardmos-nic")
_FIELDS = {0x10: "source", 0x20: "destination", 0x40: "source port", 0x80: "destination port"}


@dataclass(frozen=True, slots=True)
class State:
    """All of a card that is changed here; None and absent: it has no such thing."""

    channels: Channels | None
    rss: Rss | None
    hashed: dict[str, int] = field(default_factory=dict)
    irqs: dict[int, str] = field(default_factory=dict)  # number: list of cores, as the kernel writes it

    @property
    def symmetric(self) -> bool:
        """Both directions of a flow come to one queue."""
        rss = self.rss
        if rss is None or rss.function != TOEPLITZ:
            return False
        return bool(rss.transform & SYMMETRIC_XOR) or is_symmetric(rss.key)

    @property
    def values(self) -> int:
        """How many hash values IPv4 flows take."""
        rss = self.rss
        return distinct_values(rss.key, xor=bool(rss.transform & SYMMETRIC_XOR)) if rss is not None else 0


def look(card: Card, irqs: Irqs) -> State:
    """The card as it is."""
    hashed = {kind: fields for kind in FLOW_TYPES if (fields := card.hashed(kind)) is not None}
    return State(card.channels(), card.rss(), hashed, irqs.read(card.name))


def decide(
    card: Card, now: State, queues: int | None, symmetric: bool, cores: Sequence[int], of: Mapping[int, int]
) -> State:
    """What the card shall be: queue q, whose interrupts are those that `of` maps to q, is served by cores[q].

    ShardmosError, before anything was changed, for what it cannot.
    """
    channels, rss, hashed = now.channels, now.rss, dict(now.hashed)
    if queues is not None:
        channels = _channels(card, now.channels, queues)
    count = channels.queues if channels is not None else 1
    if symmetric:
        if rss is None:
            driver = card.driver() or "unknown"
            raise ShardmosError(
                f"{card.name} has no RSS key to set (driver {driver}); flows reach their worker all the same, by "
                "fanout and by hand-over: leave --symmetric out"
            )
        if rss.function != TOEPLITZ:
            raise ShardmosError(f"{card.name} does not hash by Toeplitz now: ethtool -X {card.name} hfunc toeplitz")
        # The driver is asked for symmetric-xor in `apply`; where it has none, the key repeats.
        rss = replace(rss, key=random_key(len(rss.key)), transform=SYMMETRIC_XOR)
        hashed = dict.fromkeys(hashed, ADDRESSES_AND_PORTS)
    if rss is not None and (queues is not None or symmetric):
        rss = replace(rss, table=tuple(place % count for place in range(len(rss.table))))
    wanted = dict(now.irqs)
    if queues is not None and cores:
        wanted = {number: str(cores[of.get(number, 0) % count % len(cores)]) for number in now.irqs}
    return State(channels, rss, hashed, wanted)


def _channels(card: Card, now: Channels | None, queues: int) -> Channels:
    if queues < 1:
        raise UsageError(f"--queues {queues}: give 1 or more")
    if now is None:
        raise ShardmosError(
            f"{card.name}: its driver ({card.driver() or 'unknown'}) has one queue, and no way to set another count"
        )
    if queues > now.most:
        raise ShardmosError(f"{card.name} has at most {now.most} queues, not {queues}: --queues {now.most}")
    if now.max_combined:
        return replace(now, rx=0, tx=0, combined=queues)
    return replace(now, rx=queues, tx=queues)


def changes(now: State, wanted: State) -> list[str]:
    """What `apply` would do, a line each."""
    lines = []
    if wanted.channels is not None and wanted.channels != now.channels:
        before = now.channels.queues if now.channels is not None else 0
        lines.append(f"queues: {wanted.channels.queues} (now {before})")
    if wanted.rss is not None and wanted.rss != now.rss:
        lines.append(describe_rss(wanted.rss))
    lines += [_hashed(kind, fields) for kind, fields in wanted.hashed.items() if fields != now.hashed.get(kind)]
    lines += [
        f"interrupt {number}: core {cores} (now {now.irqs.get(number, 'unknown')})"
        for number, cores in wanted.irqs.items()
        if cores != now.irqs.get(number)
    ]
    return lines


def apply(card: Card, irqs: Irqs, now: State, wanted: State) -> list[str]:
    """Makes it so; what was done or could not be, a line each."""
    done: list[str] = []
    if wanted.channels is not None and wanted.channels != now.channels:
        if now.rss is not None and wanted.rss is not None and max(now.rss.table) >= wanted.channels.queues:
            card.set_rss(replace(now.rss, table=wanted.rss.table))  # a table may name no queue that goes away
        card.set_channels(wanted.channels)
        done.append(f"queues: {wanted.channels.queues}")
    if wanted.rss is not None and wanted.rss != now.rss:
        done.append(describe_rss(_set_rss(card, now.rss, wanted.rss)))
    for kind, fields in wanted.hashed.items():
        if fields != now.hashed.get(kind):
            try:
                card.set_hashed(kind, fields)
                done.append(_hashed(kind, fields))
            except ShardmosError as error:
                done.append(f"{error}; what comes to the wrong worker is handed over")
    # After the channels: a driver may have made its interrupts anew.
    for number, cores in wanted.irqs.items():
        if cores == irqs.read_one(number):
            continue
        if irqs.write(number, cores):
            done.append(f"interrupt {number}: core {cores}")
        else:
            done.append(f"interrupt {number}: stays where it is, its driver manages it")
    return done


def _hashed(kind: str, fields: int) -> str:
    names = [name for bit, name in _FIELDS.items() if fields & bit]
    return f"{kind}: hashed are {', '.join(names) or 'no fields'}"


def _set_rss(card: Card, now: Rss | None, wanted: Rss) -> Rss:
    """With symmetric-xor where the card has it, else with a key that repeats every 16 bits."""
    try:
        card.set_rss(wanted)
        return wanted
    except ShardmosError:
        if now is None or not wanted.transform or wanted.transform == now.transform:
            raise
    repeated = replace(wanted, key=symmetric_key(len(wanted.key)), transform=0)
    card.set_rss(repeated)
    return repeated


# ---- for people ----


def describe_rss(rss: Rss) -> str:
    """In one line: symmetric or not, and how many values."""
    xor = bool(rss.transform & SYMMETRIC_XOR)
    kind = (
        "symmetric (symmetric-xor)"
        if xor
        else "symmetric (its key repeats)"
        if is_symmetric(rss.key)
        else "not symmetric"
    )
    values = distinct_values(rss.key, xor=xor)
    return f"RSS: {kind}, {values:,} hash values, table of {len(rss.table)} over {len(set(rss.table))} queues"


def describe(card: Card, state: State) -> list[str]:
    """The card as lines."""
    lines = [f"{card.name}: driver {card.driver() or 'unknown'}"]
    if state.channels is not None:
        lines.append(f"queues: {state.channels.queues} of at most {state.channels.most}")
    else:
        lines.append("queues: one, fixed")
    lines.append(describe_rss(state.rss) if state.rss is not None else "RSS: no key that can be set")
    lines += [_hashed(kind, fields) for kind, fields in state.hashed.items()]
    lines += [f"interrupt {number}: cores {cores}" for number, cores in state.irqs.items()]
    return lines


def shown(card: Card, state: State) -> dict[str, Any]:
    """The card for JSON; without its key, which is what an attacker of the hash would want."""
    rss = state.rss
    return {
        "interface": card.name,
        "driver": card.driver(),
        "queues": state.channels.queues if state.channels is not None else 1,
        "queues_most": state.channels.most if state.channels is not None else 1,
        "symmetric": state.symmetric if rss is not None else None,
        "hash_values": state.values if rss is not None else None,
        "table": list(rss.table) if rss is not None else None,
        "hashed": state.hashed,
        "interrupts": {str(number): cores for number, cores in state.irqs.items()},
    }


# ---- what was before ----


def state_file(name: str, directory: Path = STATE_DIRECTORY) -> Path:
    return directory / f"{name}.json"


def remember(name: str, state: State, directory: Path = STATE_DIRECTORY) -> None:
    """Unless something is remembered already. /run, as the card's settings: neither outlives a restart of the host."""
    made = asdict(state)
    if state.rss is not None:
        made["rss"]["key"] = state.rss.key.hex()
    path = state_file(name, directory)
    scratch = path.with_suffix(".new")
    try:
        directory.mkdir(mode=0o755, exist_ok=True)
        if path.exists():
            return
        scratch.write_text(json.dumps(made))
        os.replace(scratch, path)
    except OSError as error:
        raise ShardmosError(f"{scratch}: {error.strerror}: what was before cannot be kept; run it as root") from None


def recall(name: str, directory: Path = STATE_DIRECTORY) -> State:
    """What `remember` wrote. ShardmosError where there is nothing, or something else."""
    path = state_file(name, directory)
    try:
        made: dict[str, Any] = json.loads(path.read_text())
        channels = Channels(**made["channels"]) if made["channels"] is not None else None
        rss = None
        if made["rss"] is not None:
            rss = Rss(**{**made["rss"], "key": bytes.fromhex(made["rss"]["key"]), "table": tuple(made["rss"]["table"])})
        return State(channels, rss, made["hashed"], {int(number): cores for number, cores in made["irqs"].items()})
    except FileNotFoundError:
        raise ShardmosError(
            f"{name}: nothing to restore; shardmos nic has not changed it since the host started"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardmosError(f"{path} cannot be read: {error}") from None


def forget(name: str, directory: Path = STATE_DIRECTORY) -> None:
    with contextlib.suppress(FileNotFoundError):
        state_file(name, directory).unlink()
