"""The table of docs/known-faults.md names every test of a fault, and no other."""

from __future__ import annotations

import re
from pathlib import Path

PYTHON = ("tests/test_mos_faults.py", "tests/test_mos_faults_api.py")


def written_tests(root: Path) -> set[str]:
    found: set[str] = set()
    for name in PYTHON:
        found |= set(re.findall(r"^def (test_(?:fault|retina)_\w+)", (root / name).read_text("utf-8"), re.MULTILINE))
    native = (root / "native/tests/test_mos_faults.c").read_text("utf-8")
    ran = set(re.findall(r"RUN\((test_fault_\w+)\)", native))
    assert ran == set(re.findall(r"^static void (test_fault_\w+)", native, re.MULTILINE))
    return found | ran


def test_each_fault_has_a_test_of_its_own_and_the_table_names_it(root: Path) -> None:
    rows = re.findall(r"^\| (\w+) \| .* \| (.*) \|$", (root / "docs/known-faults.md").read_text("utf-8"), re.MULTILINE)
    table = {fault: re.findall(r"`(\w+)`", names) for fault, names in rows if fault != "fault"}
    assert list(table) == [str(number) for number in range(1, 31)] + ["a", "b", "c", "d"]
    for fault, names in table.items():
        prefix = f"test_fault_{int(fault):02}_" if fault.isdigit() else f"test_retina_{fault}_"
        assert names and all(name.startswith(prefix) for name in names)
    assert {name for names in table.values() for name in names} == written_tests(root)
