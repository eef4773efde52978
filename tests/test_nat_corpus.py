"""The middlebox nat over real captures: each packet of the busiest client, out and back, against tests/renaming.py.

Two passes. In the first the capture's answers go to the client's own address, as they were recorded, and the names that
it gets are learned; for the second they are sent to these names, and must come out as they were recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from real_captures import Record, as_datagrams, candidates, fragment_of, records, translatable, write
from renaming import Name, link_bytes, names_of, packed, renamed_error, renamed_frame

import shardmos as sm

POOL = [f"198.18.0.{last}" for last in range(1, 5)]
Connection = tuple[int, Name, Name]


def connection_of(frame: bytes) -> Connection:
    ip = frame[link_bytes(frame) :]
    return ip[9], *names_of(ip)


def busiest_client(frames: Iterator[bytes]) -> str | None:
    """Who begins most of the connections that have answers."""
    first: dict[Connection, bool] = {}
    for frame in frames:
        proto, source, destination = connection_of(frame)
        answered = first.get((proto, destination, source))
        if answered is None:
            first.setdefault((proto, source, destination), False)
        else:
            first[(proto, destination, source)] = True
    count = Counter(source[0] for (_, source, _), answered in first.items() if answered)
    return count.most_common(1)[0][0] if count else None


@dataclass
class Pass:
    """What came out, frame by frame, against what went in."""

    client: str
    names: dict[Connection, Name] = field(default_factory=dict)
    holders: dict[tuple[int, Name, Name], Name] = field(default_factory=dict)
    out: int = 0
    back: int = 0
    errors: int = 0
    lost: list[bytes] = field(default_factory=list)

    def check(self, came: list[bytes], left: list[bytes]) -> None:
        at = 0
        for frame in came:
            if at < len(left) and self.fits(frame, left[at]):
                at += 1
            else:
                self.lost.append(frame)
        assert at == len(left), f"frame {at} that came out is none that should: {left[at].hex()}"

    def is_error(self, frame: bytes, out: bytes) -> bool:
        """An ICMP error of the client's, about what came to it; here too it is its address that is renamed."""
        ip, left = frame[link_bytes(frame) :], out[link_bytes(out) :]
        header = (ip[0] & 15) * 4 if ip else 0
        if len(ip) < header + 36 or ip[9] != 1 or ip[header] not in (3, 11, 12) or ip[12:16] != packed(self.client):
            return False
        quote = ip[header + 8 :]
        if len(quote) < (quote[0] & 15) * 4 + 8 or quote[9] not in (1, 6, 17):
            return False
        source, destination = names_of(quote)
        name = self.names.get((quote[9], destination, source))
        return name is not None and left == renamed_error(ip, name[0], name)

    def fits(self, frame: bytes, out: bytes) -> bool:
        if frame == out:
            return True
        if self.is_error(frame, out):
            self.errors += 1
            return True
        if not translatable(frame) or len(frame) != len(out) or not translatable(out):
            return False
        proto, source, destination = connection_of(frame)
        _, new_source, new_destination = connection_of(out)
        if source[0] == self.client and new_source[0] in POOL:
            name = new_source
            if renamed_frame(frame, source=name) != out:
                return False
            peer = (destination[0], 0) if proto == 1 else destination
            # Two inside names never share an outer one to the same peer.
            assert self.holders.setdefault((proto, name, peer), source) == source
            self.names[(proto, source, destination)] = name
            self.out += 1
            return True
        if destination[0] in POOL and new_destination[0] == self.client:
            self.back += 1
            return renamed_frame(frame, destination=new_destination) == out
        return False


def begins_a_datagram(frame: bytes) -> bool:
    """Nat has one word for a datagram, in however many fragments it came."""
    fragment = fragment_of(frame)
    return fragment is None or fragment[1] == 0


def out_of(path: Path) -> list[bytes]:
    return [frame for _, frame in records(path) or []]


def round_trip(path: Path, scratch: Path) -> dict[str, Any] | None:
    """None: the capture is none for this test."""
    came = records(path)
    if not came:
        return None
    client = busiest_client(frame for _, frame in came if translatable(frame))
    if client is None or any(packed(address) in frame for _, frame in came for address in POOL):
        return None
    head, spec = path.read_bytes()[:24], f"nat:inside={client}:pool={POOL[0]}-{POOL[-1]}:seed=7"
    first = Pass(client)
    told = sm.run(path, spec, write=scratch / "first.pcap")["counters"]
    first.check(as_datagrams([frame for _, frame in came]), out_of(scratch / "first.pcap"))
    assert (first.out, 0, first.errors) == (told["packets_out"], told["packets_in"], told["icmp_errors"])
    dropped = sum(value for name, value in told.items() if name.startswith("drop_"))
    assert sum(begins_a_datagram(frame) for frame in first.lost) == dropped
    # Answers to whom the other end sees.
    answers: list[Record] = []
    originals: list[bytes] = []
    for header, frame in came:
        if translatable(frame):
            proto, source, destination = connection_of(frame)
            name = first.names.get((proto, destination, source)) if proto != 1 else None
            if proto == 1 and frame[link_bytes(frame) + 20] == 0:
                name = first.names.get((1, destination, source))
            if destination[0] == client and name:
                originals.append(frame)
                frame = renamed_frame(frame, destination=name)
        answers.append((header, frame))
    second = Pass(client)
    told = sm.run(write(scratch / "answers.pcap", head, answers), spec, write=scratch / "second.pcap")["counters"]
    left = out_of(scratch / "second.pcap")
    second.check(as_datagrams([frame for _, frame in answers]), left)
    assert (second.out, second.back) == (told["packets_out"], told["packets_in"])
    back = Counter(left)
    missing = sum((Counter(originals) - back).values())
    workers = sm.run(scratch / "answers.pcap", spec, workers=2)["counters"]
    return {"out": second.out, "back": second.back, "missing": missing, "stray": told["drop_stray"], "workers": workers}


def check_all(paths: list[Path], scratch: Path, most: int) -> None:
    done = 0
    for path in paths:
        got = round_trip(path, scratch)
        if not got or not got["back"]:
            continue
        # What the capture holds of a connection after its end, or before its first packet, is for nobody.
        assert got["missing"] <= got["stray"], path
        # Two workers choose other names, which this capture's answers do not know.
        assert got["workers"]["packets_out"] == got["out"], path
        done += 1
        if done == most:
            return
    assert done >= 1, "no capture was fit for it"


def test_out_and_back_over_a_sample_of_real_captures(corpus: Path, tmp_path: Path) -> None:
    check_all(candidates(corpus)[::7], tmp_path, 12)


@pytest.mark.conformance
@pytest.mark.timeout(1200)
def test_out_and_back_over_all_real_captures(corpus: Path, tmp_path: Path) -> None:
    check_all(candidates(corpus), tmp_path, 1 << 30)
