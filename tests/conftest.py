"""Fixtures that every test may use."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from traffic import conversation, write_pcap

ROOT = Path(__file__).resolve().parent.parent

# Shells without job control ignore SIGINT in what runs in the background, nohup SIGHUP: all that tests start would too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def corpus_directory() -> Path | None:
    """Captures with outside results: SHARDMOS_CORPUS, else beside the checkout; None where neither is there."""
    chosen = os.environ.get("SHARDMOS_CORPUS")
    directory = Path(chosen) if chosen else ROOT.parent / "shared" / "corpus" / "dev"
    return directory if (directory / "INDEX.jsonl").is_file() else None


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout; the test skips where the tests stand alone, beside an installed package."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not in a checkout")
    return ROOT


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The corpus of captures; the test skips where there is none."""
    directory = corpus_directory()
    if directory is None:
        pytest.skip("no corpus of captures: set SHARDMOS_CORPUS, or put it at ../shared/corpus/dev")
    return directory


@pytest.fixture(scope="session")
def corpus_capture(corpus: Path) -> Callable[[str], Path]:
    """A capture of the corpus by its name there; the test skips where it is missing."""

    def find(name: str) -> Path:
        path = corpus / name
        if not path.is_file():
            pytest.skip(f"the corpus has no {name}")
        return path

    return find


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture of one whole TCP connection (traffic.conversation)."""
    return write_pcap(tmp_path_factory.mktemp("capture") / "one.pcap", conversation())


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own, with a path short enough for a Unix socket's name."""
    directory = Path(tempfile.mkdtemp(prefix="smos-"))
    monkeypatch.setenv("SHARDMOS_RUNTIME_DIR", str(directory))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def compiler() -> str:
    """A C compiler; the test skips where there is none."""
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no C compiler here")
    return found
