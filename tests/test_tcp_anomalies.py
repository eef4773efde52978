"""Each anomaly of TCP is raised by what it is named for, and not by what nearly is it.

The cases are in tests/anomalies/*.flow, in the language of flow_script.py:

    anomaly NAME                 what is raised by the segments that follow,
    also NAME…                   beside these,
    > S 0(0)
    near: in what it differs     and by these it is not, but exactly the ones after `also`
    > S 0(0)

Beside the language itself: `open` and `close` are a handshake and the usual end (client first), `N x SEGMENT` is that
segment N times; with `+` after its sequence number, each after the one before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flow_script import parse
from flow_trace import run

from shardmos.events import Event, anomaly_name

HERE = Path(__file__).resolve().parent
WORDS = {
    "open": ["> S 0(0)", "< S. 0(0) ack 1", "> . 1(0) ack 1"],
    "close": ["> F. 1(0) ack 1", "< . 1(0) ack 2", "< F. 1(0) ack 2", "> . 2(0) ack 2"],
}
# Raised with no flow: counters tell it, no handler hears it.
OF_NO_FLOW = {"time_jump"}


@dataclass
class Case:
    name: str
    also: dict[bool, set[str]] = field(default_factory=lambda: {True: set(), False: set()})
    lines: dict[bool, list[str]] = field(default_factory=lambda: {True: [], False: []})

    def raised(self, near: bool) -> set[str]:
        return self.also[not near] | (set() if near else {self.name})

    def text(self, near: bool) -> str:
        return "\n".join([*self.lines[not near], "= flows 1"])


def expand(line: str) -> list[str]:
    times = re.fullmatch(r"(\d+) x (.*)", line)
    if not times:
        return WORDS.get(line, [line])
    moving = re.fullmatch(r"(\S+ \S+ )(\d+)\+\((\d+)\)(.*)", times[2])
    if not moving:
        return [times[2]] * int(times[1])
    first, step = int(moving[2]), int(moving[3])
    return [f"{moving[1]}{first + n * step}({step}){moving[4]}" for n in range(int(times[1]))]


def load() -> list[Case]:
    cases: list[Case] = []
    for path in sorted((HERE / "anomalies").glob("*.flow")):
        far = True
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["anomaly"]:
                cases.append(Case(words[1]))
                far = True
            elif words and words[0].rstrip(":") == "near":
                far = False
            elif words[:1] == ["also"]:
                cases[-1].also[far] |= set(words[1:])
            elif words:
                cases[-1].lines[far] += expand(" ".join(words))
    return cases


CASES = load()


def raised(text: str, name: str, directory: Path) -> set[str]:
    """The anomalies that were counted; those of flows were events too."""
    trace = run(parse(text, name), directory)
    counted = {
        key.removeprefix("anomaly.") for key, value in trace.counters.items() if key.startswith("anomaly.") and value
    }
    heard = {anomaly_name(call.detail) for call in trace.calls if call.event == Event.ANOMALY}
    assert heard == counted - OF_NO_FLOW
    return counted


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_raised(case: Case, tmp_path: Path) -> None:
    assert raised(case.text(near=False), case.name, tmp_path) == case.raised(near=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_not_raised_by_what_nearly_is_it(case: Case, tmp_path: Path) -> None:
    assert raised(case.text(near=True), case.name, tmp_path) == case.raised(near=True)
    assert case.name not in case.raised(near=True)


def engine(root: Path) -> list[tuple[str, str]]:
    """Names and meanings, in the engine's order."""
    text = (root / "native" / "src" / "tcp" / "anomalies.def").read_text(encoding="utf-8")
    return re.findall(r'^SMOS__ANOMALY\(\w+, "(\w+)", "(.*)"\)$', text, re.MULTILINE)


def test_every_anomaly_has_a_case(root: Path) -> None:
    names = [name for name, _ in engine(root)]
    assert set(names) == {case.name for case in CASES}
    assert len(names) == len(set(names)) >= 60
    assert all(case.lines[True] and case.lines[False] for case in CASES)


# Suricata's vocabulary, with a comment in its first line.
SURICATA = set((HERE / "anomalies" / "suricata.names").read_text(encoding="utf-8").split("\n", 1)[1].split())


def test_the_table_in_the_documents_is_the_engines(root: Path) -> None:
    """Names and meanings in the engine's order, and every name of Suricata's marked, or said to have no counterpart."""
    text = (root / "docs" / "anomalies.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert [(row[0], row[1]) for row in rows[1:]] == engine(root)
    for name, _, suricata, snort, _ in rows[1:]:
        assert suricata == ("yes" if name in SURICATA else ""), name
        assert not snort or all(re.fullmatch(r"129:([1-9]|1\d|2[0-2])|116:\d+", each) for each in snort.split(", "))
    missing = SURICATA - {name for name, _ in engine(root)}
    assert len(missing) <= 5
    assert all(f"`{name}`" in text for name in missing)
