"""Every snippet of README and docs/ is run, and prints what the document shows (tests/documents.py says how)."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coordinators import until
from documents import ROOT, Snippet, check_command, commands_of, documents, module_of, same, snippets_of

from shardmos.client import Client
from shardmos.control.compile import compile_c
from shardmos.errors import ShardmosError
from shardmos.run import execute
from shardmos.workers.load import load

pytestmark = pytest.mark.usefixtures("root", "compiler")
SNIPPETS = {str(path.relative_to(ROOT)): snippets_of(path) for path in documents()}
TO_RUN = [name for name, found in SNIPPETS.items() if any(not each.not_run for each in found)]
NOT_RUN = [each for found in SNIPPETS.values() for each in found if each.not_run]


class Reader:
    """Who types a document's snippets one after the other, in a folder of his own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.running: list[subprocess.Popen[bytes]] = []
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": programs, "COLUMNS": "120"}

    def follow(self, snippet: Snippet) -> None:
        print(f"{snippet}: {snippet.language}")
        printed = getattr(self, f"_{snippet.language}")(snippet)
        if snippet.output is not None:
            assert same(printed, snippet.output), f"{snippet} prints\n{printed}\nand shows\n{snippet.output}"

    def _python(self, snippet: Snippet) -> str:
        code = compile(snippet.text, str(snippet), "exec")
        if "file" in snippet.options:
            (self.folder / snippet.options["file"]).write_text(snippet.text)
            return ""
        out = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            exec(code, self.names)
        assert "Traceback" not in out.getvalue() or snippet.output is not None, f"{snippet}:\n{out.getvalue()}"
        return out.getvalue()

    def _c(self, snippet: Snippet) -> str:
        piece = "handlers" in snippet.options
        path = self.folder / snippet.options.get("file", f"piece_{snippet.line}.c")
        path.write_text(module_of(snippet, path.stem) if piece else snippet.text)
        compile_c(str(path))
        if not piece:
            return ""
        told: list[str] = []
        result = execute(
            self.folder / "trace.pcap",
            [load(str(path))],
            on_event=lambda event: told.append(f"{event['topic']} {_plain(event.get('data', event.get('text')))}"),
            midstream=snippet.options.get("midstream", "track"),
        )
        assert result.modules[0]["calls"], f"{snippet}: its handlers were never called"
        return "\n".join(told) + "\n"

    def _sh(self, snippet: Snippet) -> str:
        printed = ""
        for line in snippet.text.replace("\\\n", " ").splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if line.startswith("shardmos up"):
                self._up(line)
                continue
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", line],
                cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=100,
            )  # fmt: skip
            assert done.returncode == 0, f"{snippet}: {line}\n{done.stdout}{done.stderr}"
            printed += done.stdout
        return printed

    def _console(self, snippet: Snippet) -> str:
        if not _up():
            self._up("shardmos up --replay trace.pcap --loop --rate 1000 -w 1")
        printed = ""
        for part in snippet.text.removeprefix("$ ").split("\n$ "):
            command, _, shown = part.partition("\n")
            if command.startswith("cat "):
                (self.folder / command[4:].strip()).write_text(shown + "\n")
            else:
                printed += self._sh(replace(snippet, text=command))
        return printed

    def _up(self, line: str) -> None:
        """Beside the rest, as in another terminal."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line.partition('#')[0].rstrip(' &')} --memory 32MiB"],
            cwd=self.folder, env=self.environment, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.running.append(process)
        until(lambda: process.poll() is not None or _up(), 60)
        assert process.poll() is None, f"did not come up: {line}"

    def leave(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _up() -> bool:
    try:
        with Client():
            return True
    except ShardmosError:
        return False


def _plain(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture
def reader(tmp_path: Path, runtime_dir: Path) -> Iterator[Reader]:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "examples/write_trace.py"], cwd=tmp_path, check=True, capture_output=True)
    made = Reader(tmp_path)
    try:
        yield made
    finally:
        made.leave()


@pytest.mark.parametrize("document", TO_RUN)
def test_the_snippets_of(document: str, reader: Reader) -> None:
    for snippet in SNIPPETS[document]:
        if not snippet.not_run:
            reader.follow(snippet)


@pytest.mark.parametrize("snippet", NOT_RUN, ids=str)
def test_what_is_not_run_says_why_and_has_options_that_exist(snippet: Snippet) -> None:
    assert snippet.not_run and len(snippet.not_run.split()) > 1, f"{snippet}: not-run= says why"
    if snippet.language == "python":
        compile(snippet.text, str(snippet), "exec")
    if snippet.language == "sh":
        for words in commands_of(snippet.text):
            assert (wrong := check_command(words)) is None, f"{snippet}: {' '.join(words)}: {wrong}"
