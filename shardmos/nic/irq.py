"""Interrupts of a card's queues, and the cores that serve them: /proc/irq."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path


class Irqs:
    """`root` is / but in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def of(self, name: str) -> dict[int, int]:
        """The interrupts of its queues, and which queue each serves; empty for what has none (veth).

        Drivers name them "eth0-TxRx-3", "i40e-eth0-TxRx-3", "mlx5_comp3@pci:...", "virtio0-input.3". Those of the
        mailbox, the link and the like are left alone.
        """
        device = self._root / "sys/class/net" / name / "device"
        owners = {name, device.resolve().name} if device.exists() else {name}
        vectors: set[int] = set()
        for directory in (device / "msi_irqs", device.resolve().parent / "msi_irqs"):
            with contextlib.suppress(OSError):
                vectors |= {int(entry.name) for entry in directory.iterdir() if entry.name.isdigit()}
        found = {}
        for number, text in self._named().items():
            if number in vectors or any(re.search(rf"(^|\W){re.escape(owner)}-", text) for owner in owners):
                queue = re.search(r"(?:input|output|rx|tx|comp|queue|fp)[^0-9@]*(\d*)", text, re.IGNORECASE)
                if queue is not None:
                    found[number] = int(queue[1] or 0)
        return found

    def read(self, name: str) -> dict[int, str]:
        """Per interrupt the cores that may serve it, as a list like "0-1"."""
        found = {number: self.read_one(number) for number in sorted(self.of(name))}
        return {number: cores for number, cores in found.items() if cores}

    def read_one(self, number: int) -> str:
        """Empty where it has gone."""
        try:
            return (self._root / "proc/irq" / str(number) / "smp_affinity_list").read_text().strip()
        except OSError:
            return ""

    def write(self, number: int, cores: str) -> bool:
        """False where the kernel refuses."""
        path = self._root / "proc/irq" / str(number) / "smp_affinity_list"
        try:
            path.write_text(cores)
        except OSError:
            return False
        return True

    def _named(self) -> dict[int, str]:
        named = {}
        with contextlib.suppress(OSError):
            for line in (self._root / "proc/interrupts").read_text().splitlines():
                number, colon, rest = line.strip().partition(":")
                if colon and number.isdigit():
                    named[int(number)] = rest.split()[-1] if rest.split() else ""
        return named
