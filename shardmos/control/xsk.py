"""AF_XDP sockets (Documentation/networking/af_xdp.rst, linux/if_xdp.h): frames' memory, rings, binding, statistics."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import struct

_AF_XDP, _SOL_XDP = 44, 283
_MMAP_OFFSETS, _RX_RING, _TX_RING, _UMEM_REG, _FILL_RING, _COMPLETION_RING, _STATISTICS, _OPTIONS = range(1, 9)
_FILL_PAGES = 0x100000000  # XDP_UMEM_PGOFF_FILL_RING
_TX_BUDGET = 9  # since Linux 6.17
_SHARED_UMEM, COPY, _NEED_WAKEUP = 1 << 0, 1 << 1, 1 << 3
_ZEROCOPY_IS_ON = 1
_SO_SNDBUFFORCE, _SO_BUSY_POLL, _SO_PREFER_BUSY_POLL, _SO_BUSY_POLL_BUDGET = 32, 46, 69, 70
_SEND_BUFFER = 32 << 20
_LEDGER_HEADER, _NOTE = 4096, 4  # native/src/port/af_xdp.h
STATISTICS = (
    "rx_dropped", "rx_invalid_descs", "tx_invalid_descs", "rx_ring_full", "fill_ring_empty", "tx_ring_empty",
)  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


class Memory:
    """Frames that the sockets of a worker share (UMEM), and behind them the worker's ledger."""

    def __init__(self, frames: int, frame_bytes: int) -> None:
        self.frames, self.frame_bytes = frames, frame_bytes
        self.fd = os.memfd_create("smos-frames", os.MFD_CLOEXEC)
        size = frames * frame_bytes + _LEDGER_HEADER + frames * _NOTE
        os.ftruncate(self.fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)

    def register(self, with_socket: socket.socket) -> None:
        """OSError ENOBUFS where so much may not be locked."""
        size = self.frames * self.frame_bytes
        with mmap.mmap(self.fd, size) as mapped:  # the kernel keeps the pages, not the mapping
            view = ctypes.c_char.from_buffer(mapped)
            request = struct.pack("=QQIIII", ctypes.addressof(view), size, self.frame_bytes, 0, 0, 0)
            try:
                with_socket.setsockopt(_SOL_XDP, _UMEM_REG, request)
            finally:
                del view

    def note_filled(self, first: int, count: int) -> None:
        """In the ledger: these frames are the kernel's."""
        os.pwrite(self.fd, b"\1\0\0\0" * count, self.frames * self.frame_bytes + _LEDGER_HEADER + first * _NOTE)

    def close(self) -> None:
        os.close(self.fd)


class Socket:
    """One queue of one interface. `first` is the socket that registered the memory, None for that one itself."""

    def __init__(self, memory: Memory, ring: int, first: Socket | None, busy_poll: bool) -> None:
        self.socket = socket.socket(_AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._first, self._ring = first, ring
        self._positions: mmap.mmap | None = None
        self._last, self._total = 0, 0
        try:
            if first is None:
                memory.register(self.socket)
            for each in (_FILL_RING, _COMPLETION_RING, _RX_RING, _TX_RING):
                self.socket.setsockopt(_SOL_XDP, each, ring)
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
            if busy_poll:
                for option, value in ((_SO_PREFER_BUSY_POLL, 1), (_SO_BUSY_POLL, 20), (_SO_BUSY_POLL_BUDGET, 64)):
                    with contextlib.suppress(OSError):  # Linux 5.11
                        self.socket.setsockopt(socket.SOL_SOCKET, option, value)
        except BaseException:
            self.socket.close()
            raise

    def fill(self, memory: Memory, first: int) -> None:
        """Gives the kernel a ring full of frames from number `first` on: packets may come before the worker does."""
        offsets = struct.unpack("=16Q", self.socket.getsockopt(_SOL_XDP, _MMAP_OFFSETS, 128))
        producer, entries = offsets[8], offsets[10]
        with mmap.mmap(self.socket.fileno(), entries + 8 * self._ring, offset=_FILL_PAGES) as ring:
            struct.pack_into(
                f"={self._ring}Q", ring, entries, *((first + i) * memory.frame_bytes for i in range(self._ring))
            )
            struct.pack_into("=I", ring, producer, self._ring)
        memory.note_filled(first, self._ring)

    def bind(self, index: int, queue: int, copy: bool) -> None:
        """Without `copy` the kernel takes zero copy where the driver has it. Sockets after the first do as it does."""
        flags, umem_fd = _NEED_WAKEUP | (COPY if copy else 0), 0
        if self._first is not None:
            flags, umem_fd = _SHARED_UMEM, self._first.socket.fileno()
        address = struct.pack("=HHIII", _AF_XDP, flags, index, queue, umem_fd)
        if _libc.bind(self.socket.fileno(), address, len(address)) < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        with contextlib.suppress(OSError):
            self.socket.setsockopt(_SOL_XDP, _TX_BUDGET, 256)
        offsets = struct.unpack("=16Q", self.socket.getsockopt(_SOL_XDP, _MMAP_OFFSETS, 128))
        self._place = offsets[0]
        self._positions = mmap.mmap(self.socket.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ)

    @property
    def zero_copy(self) -> bool:
        return bool(self.socket.getsockopt(_SOL_XDP, _OPTIONS, 4)[0] & _ZEROCOPY_IS_ON)

    def statistics(self) -> dict[str, int]:
        """What the kernel counted, and "received": frames that reached the ring (asked at least every 2^32 of them)."""
        values = struct.unpack("=6Q", self.socket.getsockopt(_SOL_XDP, _STATISTICS, 48))
        if self._positions is not None:
            (now,) = struct.unpack_from("=I", self._positions, self._place)
            self._total += now - self._last & 0xFFFFFFFF
            self._last = now
        return {**dict(zip(STATISTICS, values, strict=True)), "received": self._total}

    def close(self) -> None:
        if self._positions is not None:
            self._positions.close()
        self.socket.close()
