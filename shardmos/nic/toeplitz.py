"""The Toeplitz hash of receive-side scaling, and keys that make it symmetric. Pure.

The hash of an input is the exclusive or of 32-bit windows of the key: the window that begins at bit j, for every bit j
of the input that is set (Microsoft, "RSS hashing types"). The input is source address, destination address, source
port, destination port, each in network order.

It is symmetric when swapping source and destination does not move a bit to another window: when the key repeats every
16 bits, since addresses are 32 or 128 bits apart and ports 16. The hash then depends on the exclusive or of all 16-bit
words of the input, and takes at most 2^16 values; it takes all of them when the number of ones in the 16 bits is odd
(only then is the circulant matrix that they form invertible over GF(2)). The key of repeated 0x05 repeats every 8 bits
and has an even number: 64 values.

Cards that have "symmetric-xor" (Linux 6.8) do better: they hash source xor destination, twice in a row, under a key
without any pattern.
"""

from __future__ import annotations

import secrets
from ipaddress import IPv4Address, IPv6Address, ip_address

IPV4_BITS, IPV6_BITS = 96, 288  # addresses and ports
_WINDOW = 32


def toeplitz(key: bytes, data: bytes) -> int:
    """The 32-bit hash. ValueError where the key is shorter than the input and 4 bytes."""
    if len(key) < len(data) + 4:
        raise ValueError(f"a key of {len(key)} bytes hashes at most {max(0, len(key) - 4)} bytes, not {len(data)}")
    value, bits = 0, len(data) * 8
    number = int.from_bytes(data)
    for bit in range(bits):
        if number >> (bits - 1 - bit) & 1:
            value ^= _window(key, bit)
    return value


def flow_input(source: str, destination: str, ports: tuple[int, int] | None = None) -> bytes:
    """What is hashed of a packet: addresses as text, and the ports where they are hashed too."""
    ends: list[IPv4Address | IPv6Address] = [ip_address(source), ip_address(destination)]
    return b"".join(end.packed for end in ends) + b"".join(port.to_bytes(2) for port in ports or ())


def symmetric_key(length: int) -> bytes:
    """A fresh key of `length` bytes: both directions of a flow hash to the same of 65,536 values."""
    while True:  # about every twelfth pattern will do
        key = (secrets.randbits(16).to_bytes(2) * (length // 2 + 1))[:length]
        if distinct_values(key) == 1 << 16 and _spreads(key):
            return key


def random_key(length: int) -> bytes:
    """A fresh key without any pattern, for cards that make the input symmetric themselves (symmetric-xor)."""
    return secrets.token_bytes(length)


def is_symmetric(key: bytes) -> bool:
    """Both directions of any flow hash alike: it repeats every 16 bits, as far as IPv6 with ports reaches."""
    used = key[: IPV6_BITS // 8 + 4]
    return len(used) > 2 and used[2:] == used[:-2]


def distinct_values(key: bytes, bits: int = IPV4_BITS, xor: bool = False) -> int:
    """How many values the hash takes over all inputs of that many bits: 2 to the rank of the key's windows.

    With `xor` source and destination are combined before: a bit of the input stands at both their places.
    """
    address, port = (bits - 32) // 2, 16
    if xor:
        windows = [_window(key, bit) ^ _window(key, bit + address) for bit in range(address)]
        windows += [_window(key, 2 * address + bit) ^ _window(key, 2 * address + port + bit) for bit in range(port)]
    else:
        windows = [_window(key, bit) for bit in range(bits)]
    return 1 << _rank(windows)


def _spreads(key: bytes) -> bool:
    """Any 8 bits in a row, as the last byte of the clients' addresses, reach every entry of a table of 128."""
    low = [_window(key, bit) & 0x7F for bit in range(16 + 8)]
    return all(_rank(low[start : start + 8]) == 7 for start in range(16))


def _window(key: bytes, bit: int) -> int:
    """The 32 bits of the key from `bit` on."""
    part = int.from_bytes(key[bit // 8 : bit // 8 + 5].ljust(5, b"\0"))
    return part >> (8 - bit % 8) & ((1 << _WINDOW) - 1)


def _rank(rows: list[int]) -> int:
    """Over GF(2), by elimination."""
    pivots: dict[int, int] = {}
    for row in rows:
        while row:
            top = row.bit_length()
            if top not in pivots:
                pivots[top] = row
                break
            row ^= pivots[top]
    return len(pivots)
