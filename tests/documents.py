"""The snippets of the documentation, and how each is run. A fence's first word is its language; what follows tells:

    python              run in order, in one namespace a document, in a folder with trace.pcap (examples/write_trace.py)
    python file=x.py    written there, and compiled
    c file=x.c          written there, and compiled as `push` does
    c handlers          the same for a piece of a module that defines `handlers`; then run over trace.pcap
    console             a session: what follows "$ " is run, a coordinator beside it; `cat FILE` shows what is there
    sh                  run line by line; `shardmos up` goes on beside it, to the document's end
    output              what the snippet before it prints; "..." stands for any text
    … not-run="why"     cannot be run: its commands and options must exist

Fences without a language, or with another one, are no snippets.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from shardmos.cli.main import COMMANDS, app

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = {"python", "c", "sh", "console"}
HEAD = "#include <shardmos/shardmos.h>\n#include <stdio.h>\n#include <string.h>\n"
MANIFEST = """
SMOS_MODULE = {{SMOS_MODULE_HEADER, .name = "{name}", .state_size = 64, .registrations = handlers{init}}};
"""


@dataclass
class Snippet:
    document: str
    line: int
    language: str
    text: str
    options: dict[str, str] = field(default_factory=dict)
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def not_run(self) -> str | None:
        return self.options.get("not-run")


def documents() -> list[Path]:
    """None where the tests stand alone, beside an installed package."""
    return [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.is_file()]


def snippets_of(path: Path) -> list[Snippet]:
    """In their order; outputs belong to the snippet before them."""
    found: list[Snippet] = []
    fence: Snippet | None = None
    lines: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif fence is None:
            words = shlex.split(line[3:])
            options = dict(word.partition("=")[::2] for word in words[1:])
            fence = Snippet(str(path.relative_to(ROOT)), number, words[0] if words else "", "", options)
            lines = []
        else:
            fence.text = "\n".join(lines) + "\n"
            if fence.language == "output":
                assert found, f"{fence}: the output of nothing"
                found[-1].output = fence.text
            elif fence.language in LANGUAGES:
                found.append(fence)
            fence = None
    assert fence is None, f"{fence}: a fence without an end"
    return found


def same(printed: str, expected: str) -> bool:
    """Whether `printed` is what the document shows; "..." is anything."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def module_of(snippet: Snippet, name: str) -> str:
    """The C file of a piece: the header before it, the manifest behind it."""
    init = ", .init = init" if re.search(r"\binit\(", snippet.text) else ""
    return HEAD + snippet.text + MANIFEST.format(name=name, init=init)


def commands_of(text: str) -> list[list[str]]:
    """The words of each command of a shell snippet, comments and continued lines aside."""
    joined = text.replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        for part in re.split(r"\s(?:&&|;|\|)\s|;\s", line + " "):
            words = shlex.split(part, comments=True)
            while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] == "sudo"):
                words = words[1:]
            if words:
                found.append(words)
    return found


def check_command(words: list[str]) -> str | None:
    """What is wrong with a command that is not run: of ours every option must exist, of make every target."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        if "-C" in words:
            return None
        wrong = [word for word in words[1:] if "=" not in word and word not in targets]
        return f"make has no {wrong}" if wrong else None
    if words[0] != "shardmos" or len(words) == 1:
        return None
    if words[1] not in COMMANDS:
        return f"there is no command {words[1]}"
    group: Any = typer.main.get_command(app)
    command = group.get_command(None, words[1])
    known = {option for each in command.params for option in each.opts} | {"-h", "--help"}
    for word in words[2 : words.index("--") if "--" in words else None]:
        option = word.partition("=")[0]
        if re.match(r"--?[a-z]", option) and option not in known and option[:2] not in known:
            return f"shardmos {words[1]} has no {option}"
    return None
