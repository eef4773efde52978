"""bpf(2), as far as AF_XDP ports need it: a map of sockets, a program of six instructions, and its link to a device.

Raw calls instead of libbpf and libxdp: there is nothing to compile, relocate or install. A link goes with the last of
its descriptors, so the program is off the device when the coordinator ends, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD, _LINK_CREATE = 0, 2, 5, 28
_XSKMAP, _XDP_PROGRAM, _XDP_ATTACH = 17, 6, 37
_REDIRECT_MAP = 51  # a helper
GENERIC, NATIVE = 1 << 1, 1 << 2  # XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE
DROP, PASS = 1, 2  # XDP_DROP, XDP_PASS

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    number = _CALL.get(platform.machine())
    if number is None:
        raise OSError(38, f"bpf(2) is not known on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(_libc.syscall(number, command, buffer, len(attributes)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _instruction(code: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, registers, offset, immediate)


_EXIT = _instruction(0x95)


def socket_map(entries: int) -> int:
    """A map of AF_XDP sockets by queue."""
    return _bpf(_MAP_CREATE, struct.pack("=7I16s", _XSKMAP, 4, 4, entries, 0, 0, 0, b"smos_queues"))


def set_socket(map_fd: int, queue: int, socket_fd: int) -> None:
    key, value = ctypes.c_uint32(queue), ctypes.c_uint32(socket_fd)
    _bpf(_MAP_UPDATE, struct.pack("=IIQQQ", map_fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0))


def load_to_sockets(map_fd: int, otherwise: int) -> int:
    """A program that gives each packet to the socket of its queue; `otherwise` (DROP, PASS) where there is none."""
    return _load(
        _instruction(0x61, 0x12, 16)  # r2 = ctx->rx_queue_index
        + _instruction(0x18, 0x11, 0, map_fd)  # r1 = the map, in two halves
        + _instruction(0)
        + _instruction(0xB7, 0x03, 0, otherwise)  # r3
        + _instruction(0x85, 0, 0, _REDIRECT_MAP)
        + _EXIT
    )


def _load(code: bytes) -> int:
    text, license = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"Dual BSD/GPL")
    return _bpf(
        _PROG_LOAD,
        struct.pack(
            "=IIQQIIQII16sII", _XDP_PROGRAM, len(code) // 8, ctypes.addressof(text), ctypes.addressof(license), 0, 0, 0,
            0, 0, b"smos_port", 0, _XDP_ATTACH,
        ),
    )  # fmt: skip


def attach(program_fd: int, index: int, mode: int) -> int:
    """The link by which the program is at the interface, NATIVE (in its driver) or GENERIC (in Linux behind it)."""
    return _bpf(_LINK_CREATE, struct.pack("=4I", program_fd, index, _XDP_ATTACH, mode))
