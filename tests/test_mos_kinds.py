"""More mOS programs of the kinds that were written for it; what they print follows from what was sent."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from mos_run import Run
from traffic import SYN, conversation

pytestmark = pytest.mark.timeout(600)  # programs are compiled


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(capfd, tmp_path)


RULES = {"web": ["GET /admin", "wp-login"], "shell": ["/bin/sh"], "leak": ["password="]}
REQUESTS = [
    "GET /admin/etc HTTP/1.1\r\n\r\n",
    "GET /admin HTTP/1.1\r\n\r\n",
    "GET /wp-login HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\n\r\npassword=1 /bin/sh",
    "GET / HTTP/1.1\r\n\r\n",
    "GET /wp-login?admin HTTP/1.0\r\n\r\n/bin/sh password=",
]


@pytest.mark.parametrize("workers", [1, 2])
def test_detection_with_several_outcomes(run: Run, tmp_path: Path, workers: int) -> None:
    chance = random.Random(3)
    requests = [chance.choice(REQUESTS) for _ in range(60)]
    frames = [
        frame
        for n, request in enumerate(requests)
        for frame in conversation(request.encode(), client=(f"10.0.0.{n + 1}", 2000 + n))
    ]
    rules = [f'{name} "{pattern}"' for name, patterns in RULES.items() for pattern in patterns]
    (tmp_path / "rules").write_text("\n".join(rules))
    told = run("classes", frames, "rules", step=0.02, workers=workers)
    of = {name: [r for r in requests if any(p in r for p in patterns)] for name, patterns in RULES.items()}
    found = [r for r in requests if any(r in each for each in of.values())]
    admin = [r for r in of["web"] if "admin" in r]
    deep = [r for r in admin if "etc" in r]
    expected = [2 * len(requests), len(found), *map(len, of.values()), len(admin), len(of["web"]), len(deep)]
    sums = [[int(word.strip(",")) for word in line.split() if word.strip(",").isdigit()] for line in told]
    assert len(told) == workers
    assert [sum(each) for each in zip(*sums, strict=True)] == expected
    assert not run.errors


def test_limits_in_packet_time(run: Run, tmp_path: Path) -> None:
    """The client of a connection pays for each packet but its SYN, which comes before the bucket."""
    chance, step, rate, most = random.Random(8), 0.01, 400, 150
    frames: list[bytes] = []
    for _ in range(40):
        client = (f"10.1.0.{chance.randrange(6)}", 2000 + len(frames))
        frames += conversation(b"x" * chance.randrange(1, 100), client=client)
    buckets: dict[bytes, tuple[float, float]] = {}
    passed = dropped = 0
    for number, frame in enumerate(frames):
        sender, now, length = frame[26:30], number * step, len(frame) - 14
        if frame[47] == SYN:
            buckets.setdefault(sender, (float(most), now))
        elif sender[1] == 1:  # a client's
            tokens, last = buckets[sender]
            tokens = min(most, tokens + (now - last) * rate)
            passed += length <= tokens
            dropped += length > tokens
            buckets[sender] = (tokens - length * (length <= tokens), now)
    (tmp_path / "limits").write_text(f"rate {rate} most {most}\n")
    assert run("limits", frames, "limits", step=step) == [f"{passed} passed, {dropped} dropped, 2 reads"]
    assert run.result is not None
    assert run.result.counters["drop_verdict"] == dropped > 10
