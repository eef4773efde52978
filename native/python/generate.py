"""Writes the C source of the extension `shardmos._native`: generate.py NATIVE_DIRECTORY OUTPUT.c (run by CMake)."""

from __future__ import annotations

import sys
from pathlib import Path

import cffi
from declarations import enums, from_header

# In the order of their dependence. Internal headers lend the enums whose members name options.
PUBLIC = ("include/shardmos/shardmos.h", "include/shardmos/engine.h")
BRIDGES = ("python/bridge.h", "python/calls.h")
INTERNAL = {"src/tcp/assembler.h": ("smos__overlap",), "src/wire/defrag.h": ("smos__defrag_policy",)}

CALLBACKS = """
extern "Python" void smos_py_dispatch(void *self, const smos_call_t *call);
extern "Python" void smos_py_release(void *self);
"""
SOURCE = """
#include "shardmos/engine.h"
#include "tcp/assembler.h"
#include "wire/defrag.h"
#include "bridge.h"
#include "calls.h"
"""


def main(native: Path, output: Path) -> None:
    ffi = cffi.FFI()
    for header in PUBLIC:
        ffi.cdef(from_header((native / header).read_text()))
    for header, names in INTERNAL.items():
        ffi.cdef(enums((native / header).read_text(), names))
    for header in BRIDGES:
        ffi.cdef(from_header((native / header).read_text()))
    ffi.cdef(CALLBACKS)
    ffi.set_source("shardmos._native", SOURCE)
    output.parent.mkdir(parents=True, exist_ok=True)
    ffi.emit_c_code(str(output))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
