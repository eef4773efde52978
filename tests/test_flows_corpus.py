"""Real captures: any number of workers gives the same rows, and nothing but one line of error."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from shardmos import ShardmosError, flows

SAMPLE, SEED = 40, 1


def captures(corpus: Path) -> list[Path]:
    names = [json.loads(line) for line in (corpus / "INDEX.jsonl").read_text().splitlines()]
    paths = [
        corpus / next(str(value) for key, value in name.items() if key in ("path", "file", "capture")) for name in names
    ]
    return [path for path in paths if path.is_file()]


def rows(path: Path, workers: int) -> tuple[Counter[str], str]:
    """The rows, and the error that came after them."""
    found: Counter[str] = Counter()
    try:
        for flow in flows(path, workers=workers, hash="sha256", checksums="ignore"):
            found[flow.to_json()] += 1
    except ShardmosError as error:
        return found, str(error)
    return found, ""


def differences(paths: list[Path]) -> list[str]:
    wrong = []
    for path in paths:
        one, error = rows(path, 1)
        if "\n" in error:
            wrong.append(f"{path}: {error!r}")
        for workers in (2, 4):
            many, many_error = rows(path, workers)
            if many != one or bool(many_error) != bool(error):
                wrong.append(f"{path}: {workers} workers: {(one - many) + (many - one)} {error!r} {many_error!r}")
    return wrong


def test_workers_give_the_same_rows_on_a_sample(corpus: Path) -> None:
    paths = captures(corpus)
    assert len(paths) >= SAMPLE
    assert differences(random.Random(SEED).sample(paths, SAMPLE)) == []


@pytest.mark.conformance
@pytest.mark.timeout(3600)
def test_workers_give_the_same_rows_on_every_capture(corpus: Path) -> None:
    assert differences(captures(corpus)) == []
