"""What a device does to packets before they are seen (features of ethtool): looked at and switched."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_STRING_COUNTS, _STRINGS, _GET, _SET = 0x37, 0x1B, 0x3A, 0x3B  # ETHTOOL_GSSET_INFO, GSTRINGS, GFEATURES, SFEATURES
_SET_OF_FEATURES = 4  # ETH_SS_FEATURES
_NAME = 32


def _call(name: str, request: bytes) -> bytes:
    """OSError where the device knows no such thing, or the caller may not."""
    buffer = ctypes.create_string_buffer(request, len(request))
    interface = struct.pack("=16sQ8x", name.encode(), ctypes.addressof(buffer))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, interface)
    return buffer.raw


def _names(name: str) -> list[str]:
    answer = _call(name, struct.pack("=IIQI", _STRING_COUNTS, 0, 1 << _SET_OF_FEATURES, 0))
    (count,) = struct.unpack_from("=I", answer, 16)
    text = _call(name, struct.pack("=III", _STRINGS, _SET_OF_FEATURES, count) + bytes(count * _NAME))
    return [text[12 + i * _NAME : 12 + (i + 1) * _NAME].rstrip(b"\0").decode() for i in range(count)]


def active(name: str) -> set[str]:
    """The features that are on, as `ethtool -k` names them in the kernel: "rx-gro", "rx-vlan-hw-parse"."""
    names = _names(name)
    blocks = (len(names) + 31) // 32
    answer = _call(name, struct.pack("=II", _GET, blocks) + bytes(16 * blocks))
    on = [struct.unpack_from("=4I", answer, 8 + 16 * block)[2] for block in range(blocks)]
    return {each for i, each in enumerate(names) if each and on[i // 32] >> i % 32 & 1}


def switch(name: str, features: set[str], on: bool) -> None:
    names = _names(name)
    blocks = (len(names) + 31) // 32
    valid = [0] * blocks
    for i, each in enumerate(names):
        if each in features:
            valid[i // 32] |= 1 << i % 32
    pairs = [word for mask in valid for word in (mask, mask if on else 0)]
    _call(name, struct.pack(f"=II{2 * blocks}I", _SET, blocks, *pairs))
