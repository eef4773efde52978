"""The classic BPF program that gives each packet to its flow's worker: `smos__owner_hash` of wire/owner.c in BPF.

It sees addresses and ports of plain packets, behind at most one tag that the kernel left in place. What it does not see
through (tunnels, extension headers, ICMP errors) goes where its outer header leads, and that worker hands it over. What
is not IP is worker 0's. A load beyond the packet's end returns 0 as well.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_MASK = 0xFFFFFFFF
_C1, _C2, _C3 = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35
_SKF_AD_PROTOCOL, _SKF_AD_PKTTYPE = 0xFFFFF000, 0xFFFFF004  # linux/filter.h
_PACKET_OUTGOING = 4

# Scratch memory.
_BASE, _HASH, _A, _B, _PROTO, _L4, _FRAGMENT = range(7)

# Instructions (linux/bpf_common.h).
_LDW_ABS, _LDH_IND, _LDB_IND, _LDW_IND = 0x20, 0x48, 0x50, 0x40
_LD_IMM, _LD_MEM, _LDX_IMM, _LDX_MEM, _ST, _STX, _TAX, _TXA, _RET_A, _RET_K = (
    0x00, 0x60, 0x01, 0x61, 0x02, 0x03, 0x07, 0x87, 0x16, 0x06,
)  # fmt: skip
_ADD_K, _ADD_X, _MUL_K, _AND_K, _LSH_K, _RSH_K, _XOR_K, _XOR_X = 0x04, 0x0C, 0x24, 0x54, 0x64, 0x74, 0xA4, 0xAC
_JEQ, _JA = 0x15, 0x05

_ICMP_WITH_IDENTIFIER = {1: (0, 8, 13, 14, 15, 16, 17, 18), 58: (128, 129)}
_PORTS = (6, 17, 132)
_FRAGMENT_HEADER = 44


@dataclass(slots=True)
class _Program:
    """Instructions with named places to jump to, forward only."""

    code: list[tuple[int, str, str, int | str]] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def op(self, code: int, k: int = 0) -> None:
        self.code.append((code, "", "", k & _MASK))

    def jump(self, code: int, k: int, yes: str = "", no: str = "") -> None:
        """Conditional; "" goes on."""
        self.code.append((code, yes, no, k))

    def go(self, place: str) -> None:
        self.code.append((_JA, "", "", place))

    def place(self, name: str) -> None:
        self.places[name] = len(self.code)

    def assemble(self) -> bytes:
        out = []
        for at, (code, yes, no, k) in enumerate(self.code):
            if isinstance(k, str):
                k = self.places[k] - at - 1
            near = [self.places[name] - at - 1 if name else 0 for name in (yes, no)]
            if max(near) > 255:
                raise AssertionError("a conditional jump is too far")
            out.append(struct.pack("=HBBI", code, *near, k))
        return b"".join(out)

    # ---- pieces ----

    def load(self, code: int, offset: int, base: int = _BASE) -> None:
        self.op(_LDX_MEM, base)
        self.op(code, offset)

    def mix(self, shift: int = 0, proto: bool = False) -> None:
        """h = (h ^ (a + b << shift) ^ proto) * C1; h = (h ^ (a ^ b)) * C2."""
        self.op(_LD_MEM, _B)
        self.op(_LDX_MEM, _A)
        self.op(_ADD_X)
        if shift:
            self.op(_LSH_K, shift)
        self.op(_LDX_MEM, _HASH)
        self.op(_XOR_X)
        if proto:
            self.op(_LDX_MEM, _PROTO)
            self.op(_XOR_X)
        self.op(_MUL_K, _C1)
        self.op(_ST, _HASH)
        self.op(_LD_MEM, _B)
        self.op(_LDX_MEM, _A)
        self.op(_XOR_X)
        self.op(_LDX_MEM, _HASH)
        self.op(_XOR_X)
        self.op(_MUL_K, _C2)
        self.op(_ST, _HASH)

    def addresses(self, first: int, second: int, words: int) -> None:
        for word in range(words):
            self.load(_LDW_IND, first + 4 * word)
            self.op(_ST, _A)
            self.load(_LDW_IND, second + 4 * word)
            self.op(_ST, _B)
            self.mix()


def _mapped(seed: int) -> int:
    """The hash after the constant words of two IPv4 addresses, ::ffff:a.b.c.d."""
    h = seed
    for a, b in ((0, 0), (0, 0), (0xFFFF, 0xFFFF)):
        h = ((h ^ (a + b)) * _C1) & _MASK
        h = ((h ^ (a ^ b)) * _C2) & _MASK
    return h


def owner_program(seed: int, workers: int) -> bytes:
    """`struct sock_filter[]` that returns the owner among `workers`; a fragment's is that of its addresses, seed 0."""
    p = _Program()
    p.op(_LDX_IMM, 0)
    p.op(_LDW_ABS, _SKF_AD_PKTTYPE)
    p.jump(_JEQ, _PACKET_OUTGOING, no="incoming")  # what this host sends begins with its Ethernet header, else behind
    p.op(_LDX_IMM, 14)
    p.place("incoming")
    p.op(_STX, _BASE)
    p.op(_LD_IMM, 0)
    p.op(_ST, _A)
    p.op(_ST, _B)
    p.op(_LDW_ABS, _SKF_AD_PROTOCOL)
    p.jump(_JEQ, 0x8100, yes="tag")
    p.jump(_JEQ, 0x88A8, no="untagged")
    p.place("tag")
    p.op(_LDX_MEM, _BASE)
    p.op(_TXA)
    p.op(_ADD_K, 4)
    p.op(_ST, _BASE)
    p.op(_LDH_IND, 2)
    p.place("untagged")
    p.jump(_JEQ, 0x0800, yes="v4")
    p.jump(_JEQ, 0x86DD, no="other")
    p.go("v6")
    p.place("other")
    p.op(_RET_K, 0)

    p.place("v4")
    p.load(_LDB_IND, 9)
    p.op(_ST, _PROTO)
    p.load(_LDH_IND, 6)
    p.op(_AND_K, 0x3FFF)
    p.op(_ST, _FRAGMENT)
    p.jump(_JEQ, 0, no="v4 fragment")
    p.op(_LD_IMM, _mapped(seed))
    p.go("v4 seeded")
    p.place("v4 fragment")
    p.op(_LD_IMM, _mapped(0))
    p.place("v4 seeded")
    p.op(_ST, _HASH)
    p.addresses(12, 16, 1)
    p.load(_LDB_IND, 0)
    p.op(_AND_K, 15)
    p.op(_LSH_K, 2)
    p.op(_ADD_X)
    p.op(_ST, _L4)
    p.go("transport")

    p.place("v6")
    p.load(_LDB_IND, 6)
    p.op(_ST, _PROTO)
    p.jump(_JEQ, _FRAGMENT_HEADER, yes="v6 fragment")
    p.op(_LD_IMM, 0)
    p.op(_ST, _FRAGMENT)
    p.op(_LD_IMM, seed)
    p.go("v6 seeded")
    p.place("v6 fragment")
    p.op(_ST, _FRAGMENT)
    p.op(_LD_IMM, 0)
    p.place("v6 seeded")
    p.op(_ST, _HASH)
    p.addresses(8, 24, 4)
    p.op(_LDX_MEM, _BASE)
    p.op(_TXA)
    p.op(_ADD_K, 40)
    p.op(_ST, _L4)

    p.place("transport")
    p.op(_LD_IMM, 0)
    p.op(_ST, _A)
    p.op(_ST, _B)
    p.op(_LD_MEM, _FRAGMENT)
    p.jump(_JEQ, 0, yes="whole")
    p.op(_LD_MEM, _PROTO)  # the home of a fragment depends on nothing that only one of them says
    p.jump(_JEQ, _FRAGMENT_HEADER, no="ports known")
    p.load(_LDB_IND, 0, _L4)
    p.op(_ST, _PROTO)
    p.go("ports known")
    p.place("whole")
    p.op(_LD_MEM, _PROTO)
    for proto in _PORTS:
        p.jump(_JEQ, proto, yes="ports")
    p.jump(_JEQ, 1, yes="icmp")
    p.jump(_JEQ, 58, yes="icmp6")
    p.go("ports known")
    p.place("ports")
    p.load(_LDH_IND, 0, _L4)
    p.op(_ST, _A)
    p.load(_LDH_IND, 2, _L4)
    p.op(_ST, _B)
    p.go("ports known")
    for name, proto in (("icmp", 1), ("icmp6", 58)):
        p.place(name)
        p.load(_LDB_IND, 0, _L4)
        for kind in _ICMP_WITH_IDENTIFIER[proto]:
            p.jump(_JEQ, kind, yes="identifier")
        p.load(_LDH_IND, 0, _L4)  # type and code
        p.go("both ports")
    p.place("identifier")
    p.load(_LDH_IND, 4, _L4)
    p.place("both ports")
    p.op(_ST, _A)
    p.op(_ST, _B)
    p.place("ports known")
    p.mix(shift=8, proto=True)

    p.op(_LD_MEM, _HASH)  # the finish
    for shift, factor in ((16, _C2), (13, _C3), (16, 0)):
        p.op(_TAX)
        p.op(_RSH_K, shift)
        p.op(_XOR_X)
        if factor:
            p.op(_MUL_K, factor)
    p.op(_ST, _HASH)
    p.op(_AND_K, 0xFFFF)  # (hash * workers) >> 32, in 32 bits
    p.op(_MUL_K, workers)
    p.op(_RSH_K, 16)
    p.op(_TAX)
    p.op(_LD_MEM, _HASH)
    p.op(_RSH_K, 16)
    p.op(_MUL_K, workers)
    p.op(_ADD_X)
    p.op(_RSH_K, 16)
    p.op(_RET_A)
    return p.assemble()
