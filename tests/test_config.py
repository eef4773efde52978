"""shardmos.toml: what is taken, what is refused, and that the shipped file names every key with its default."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmos import config
from shardmos.errors import UsageError


def test_the_shipped_file_has_every_key_and_the_defaults(root: Path) -> None:
    path = root / "deploy" / "shardmos.toml"
    assert config.load(str(path)) == config.load()
    text = path.read_text()
    for section, keys in config.SCHEMA.items():
        part = text.split(f"[{section}]\n")[1].split("\n[")[0]
        for key in keys:
            assert any(line.lstrip("# ").startswith(f"{key} =") for line in part.splitlines()), f"{section}.{key}"


@pytest.mark.parametrize(
    ("text", "size"), [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("2k", 2048), (4096, 4096), ("1.5 GiB", 3 << 29)]
)
def test_sizes_have_units(text: object, size: int) -> None:
    assert config.size(text, "x") == size


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("20ms", 0.02), (7, 7)])
def test_times_have_units(text: object, seconds: float) -> None:
    assert config.seconds(text, "x") == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "[worker]\nmemroy = 1",
        "[wroker]\n",
        "worker = 1",
        "[worker]\nmemory = 'much'",
        "[worker]\nkey = 'x'",
        "[replay]\nloop = 1",
        "[",
        "[timeouts]\nudp = -1",
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        config.load(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
