"""Per interface: queues against cores, whether both directions of a flow come to one queue, what its driver merges."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from shardmos.doctor.check import Check, live
from shardmos.errors import ShardmosError

_ROOT = Path("/sys/class/net")


def interfaces() -> Iterator[Check]:
    names = sorted(entry.name for entry in _ROOT.iterdir() if (entry / "queues").is_dir() and entry.name != "lo")
    if not names:
        yield live("interfaces", "none but lo", "live ports need an interface; captures do not")
    for name in names:
        try:
            yield from _interface(name)
        except (ShardmosError, OSError):  # it has gone meanwhile
            continue


def _interface(name: str) -> Iterator[Check]:
    from shardmos.control.protocol import candidate_dirs
    from shardmos.control.switched_off import left_off
    from shardmos.nic import plan
    from shardmos.nic.ethtool import Ethtool
    from shardmos.nic.irq import Irqs

    card, spare = Ethtool(name), len(os.sched_getaffinity(0)) - 1
    state = plan.look(card, Irqs())
    channels, operstate = state.channels, (_ROOT / name / "operstate").read_text().strip()
    queues = channels.queues if channels is not None else len(list((_ROOT / name / "queues").glob("rx-*")))
    most = channels.most if channels is not None else queues
    wanted = min(most, spare)
    found = f"{operstate}, {queues} of {most} receive queues, driver {card.driver() or 'unknown'}"
    mend = ""
    if operstate in ("up", "unknown") and queues < wanted:
        mend = f"{wanted} workers would share them by fanout: shardmos nic {name} --queues {wanted}"
    yield live(f"interface {name}", found, mend)
    if state.rss is not None and queues > 1:
        mend = "" if state.symmetric else f"many packets are handed over: shardmos nic {name} --symmetric"
        yield live(f"RSS of {name}", plan.describe_rss(state.rss).removeprefix("RSS: "), mend)
    if left := left_off(name, candidate_dirs()):
        mend = f"ethtool -K {name} {' '.join(f'{each} on' for each in sorted(left))}, or: shardmos up there, and end it"
        yield live(f"offloads of {name}", f"{', '.join(sorted(left))} off since a coordinator was killed", mend)
    if card.merges():
        mend = f"merged segments cannot be forwarded as they came: ethtool -K {name} lro off"
        yield live(f"offloads of {name}", "lro is on", mend)
