"""Turns the C headers into declarations that cffi's parser takes, so that the headers stay the only source.

What the preprocessor means is dropped, but `#define NAME integer`; the C compiler checks the rest again when the
extension is built, so a declaration that drifted from its header cannot compile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_CPLUSPLUS = re.compile(r"^#ifdef __cplusplus\n.*?^#endif[^\n]*\n", re.DOTALL | re.MULTILINE)
_CONTINUED = re.compile(r"\\\n")
_INTEGER = re.compile(r"#define (\w+) (-?(?:0[xX][0-9a-fA-F]+|\d+)[uUlL]*)\s*$")


def from_header(text: str) -> str:
    """Every declaration of a header."""
    text = _CPLUSPLUS.sub("", _CONTINUED.sub(" ", _COMMENT.sub(" ", text)))
    lines = []
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            lines.append(line.rstrip())
        elif match := _INTEGER.match(line):
            lines.append(f"#define {match[1]} {match[2]}")
    return "\n".join(line for line in lines if line) + "\n"


def enums(text: str, names: Iterable[str]) -> str:
    """Only these `typedef enum` of a header whose other declarations are internal."""
    text = _COMMENT.sub(" ", text)
    found = []
    for name in names:
        match = re.search(rf"typedef enum {name} \{{[^}}]*\}} {name}_t;", text)
        if match is None:
            raise ValueError(f"no enum {name} in the header")
        found.append(match[0])
    return "\n".join(found) + "\n"
