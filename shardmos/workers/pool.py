"""N worker processes over captures: each owns a part of the flows and sends its records back over a pipe.

Workers are forked: a middlebox made in a script or a notebook cell goes with them, and nothing is ever unpickled. A
child touches only the engine, hashlib and msgpack, ends with os._exit, and dies with its parent.

What goes over the pipe are frames: a kind of one byte, a length, and so many bytes. A worker sends RECORDS and EXTRAS
in pairs, EVENTS, CUT (one line) where the capture is damaged, and at its end RESULT, or FAILED (one line).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import signal
import struct
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn

import msgpack

from shardmos.errors import CaptureError, ShardmosError
from shardmos.workers.capture import drive, is_mappable, make_config, take_extras

RING_BYTES = 16 << 20
PUBLISH = frozenset({"modules", "log"})
_FRAME = struct.Struct("=cI")
_MAX_FRAME = 1 << 30
_RECORDS, _EXTRAS, _EVENTS, _RESULT, _FAILED, _CUT = b"R", b"X", b"E", b"D", b"F", b"C"
_PIPE_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1
INTERRUPT_SECONDS = 4.0


class _Child:
    """A forked process and the pipe that it writes to."""

    def __init__(self, pid: int, fd: int, name: str) -> None:
        self.pid = pid
        self.fd = fd
        self.name = name
        self.buffer = bytearray()
        self.records: bytes | None = None
        self.finished = False
        self.status: int | None = None

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """The whole frames that have come."""
        at = 0
        while len(self.buffer) - at >= _FRAME.size:
            kind, length = _FRAME.unpack_from(self.buffer, at)
            if length > _MAX_FRAME:
                raise ShardmosError(f"{self.name} sent a damaged message; this is a fault of shardmos")
            if len(self.buffer) - at - _FRAME.size < length:
                break
            begin = at + _FRAME.size
            at = begin + length
            yield kind, bytes(self.buffer[begin:at])
        del self.buffer[:at]


class Pool:
    """Worker processes over one source. Close it, whatever happens; `batches` runs it to its end.

    `annotators` makes, in each worker, the middleboxes whose `take(handle)` goes with each record. `setup(shard)` puts
    modules into a worker's shard and returns what has `result()` and `release()`; `check` (by default the same) tries
    that once beforehand. After the end `counters` is the sum over workers and `results` has each worker's result.
    """

    def __init__(
        self,
        paths: list[str],
        workers: int,
        options: dict[str, Any],
        *,
        filter: str | None = None,
        annotators: Callable[[], list[Any]] = list,
        setup: Callable[[Any], Any] | None = None,
        check: Callable[[Any], Any] | None = None,
        records: bool = True,
        on_events: Callable[[bytes], None] | None = None,
    ) -> None:
        self.counters: dict[str, int] = {}
        self.results: list[Any] = []
        self._children: list[_Child] = []
        self._dealer: Any = None
        self._forker = _forker()
        self._cut = ""
        self._paths = paths
        self._workers = workers
        self._options = options
        self._filter = filter
        self._annotators = annotators
        self._setup = setup
        self._try = check or setup
        self._records = records
        self._on_events = on_events
        self._check()
        self._seed = int.from_bytes(os.urandom(4), "little")
        rings: list[int] = []
        try:
            dealer: Any = None
            if not is_mappable(paths):
                from shardmos.workers.dealer import Dealer

                rings = [os.memfd_create(f"shardmos-ring-{worker}", os.MFD_CLOEXEC) for worker in range(workers)]
                dealer = Dealer(paths, rings, self._seed, RING_BYTES)
            for worker in range(workers):
                ring = rings[worker] if rings else None
                self._fork(f"worker {worker}", partial(self._work, worker, ring))
            if dealer is not None:
                # It stays open here, unused, until the workers are gone: closing it would end the rings for them too.
                self._dealer = dealer
                self._fork("the reader", partial(_deal, dealer))
        except BaseException:
            self.close()
            raise
        finally:
            for ring in rings:
                os.close(ring)

    def _check(self) -> None:
        """Finds what is wrong with the options or a file once, here, and not in every worker."""
        from shardmos.workers.shard import Shard

        shard = Shard(make_config(self._options, records=self._records))
        try:
            if self._filter is not None:
                shard.set_filter(self._filter)
            if self._try is not None:
                self._try(shard).release()
            if is_mappable(self._paths):
                shard.open_captures(self._paths)
        finally:
            shard.close()

    # ---- parent ----

    def batches(self) -> Iterator[tuple[bytes, list[list[Any]] | None]]:
        """(records, what the annotators have for each) as they come, until all workers are through."""
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.fd, selectors.EVENT_READ, child)
            open_children = len(self._children)
            while open_children:
                for key, _ in selector.select():
                    child = key.data
                    data = os.read(child.fd, _PIPE_BYTES)
                    if data:
                        child.buffer += data
                        yield from self._take(child)
                        continue
                    selector.unregister(child.fd)
                    open_children -= 1
                    self._reap(child)
        if self._cut:
            raise CaptureError(self._cut)

    def _take(self, child: _Child) -> Iterator[tuple[bytes, list[list[Any]] | None]]:
        for kind, payload in child.frames():
            if kind == _RECORDS:
                child.records = payload
            elif kind == _EXTRAS:
                extras = msgpack.unpackb(payload, strict_map_key=False)
                yield child.records or b"", extras
            elif kind == _EVENTS:
                if self._on_events is not None:
                    self._on_events(payload)
            elif kind == _RESULT:
                counters, result = msgpack.unpackb(payload, strict_map_key=False)
                for name, value in counters.items():
                    self.counters[name] = self.counters.get(name, 0) + value
                self.results.append(result)
                child.finished = True
            elif kind == _CUT:
                self._cut = self._cut or payload.decode("utf-8", "replace")
            elif kind == _FAILED:
                child.finished = True
                raise ShardmosError(payload.decode("utf-8", "replace"))

    def _reap(self, child: _Child) -> None:
        status = child.status = os.waitpid(child.pid, 0)[1]
        if child.finished and status == 0:
            return
        if os.WIFSIGNALED(status):
            how = f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
        else:
            how = f"ended with code {os.waitstatus_to_exitcode(status)} before it was through"
        raise ShardmosError(f"{child.name} {how}; the flows are not complete")

    def interrupt(self) -> None:
        """Lets modules in C say what they have to say at their end, for a moment."""
        waited_for = [child for child in self._children if child.status is None and self._setup is not None]
        for child in waited_for:
            os.kill(child.pid, signal.SIGTERM)
        end = time.monotonic() + INTERRUPT_SECONDS
        while waited_for and time.monotonic() < end:
            time.sleep(0.01)
            for child in waited_for[:]:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    child.status = status
                    waited_for.remove(child)

    def close(self) -> None:
        """Ends what still runs and frees everything. Twice is once."""
        for child in self._children:
            if child.status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
        for child in self._children:
            if child.status is None:
                try:
                    child.status = os.waitpid(child.pid, 0)[1]
                except ChildProcessError:
                    child.status = 0
            os.close(child.fd)
        self._children.clear()
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            dealer.close()
        forker, self._forker = self._forker, None
        if forker is not None:
            forker.shutdown()

    def __del__(self) -> None:
        if getattr(self, "_children", None) and self._owner == os.getpid():
            self.close()

    # ---- children ----

    def _fork(self, name: str, body: Callable[[Callable[[bytes, bytes], None]], None]) -> None:
        self._owner = os.getpid()
        read_end, write_end = os.pipe()
        with contextlib.suppress(OSError):  # the system's limit; a smaller pipe will do
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        sys.stdout.flush()
        sys.stderr.flush()
        others = [read_end, *(child.fd for child in self._children)]
        start = partial(_start, self._owner, write_end, others, body)
        pid = start() if self._forker is None else self._forker.submit(start).result()
        os.close(write_end)
        self._children.append(_Child(pid, read_end, name))

    def _work(self, worker: int, ring: int | None, send: Callable[[bytes, bytes], None]) -> None:
        from shardmos.workers.shard import Shard

        config = make_config(
            self._options,
            records=self._records,
            publish=PUBLISH if self._on_events else frozenset(),
            worker=worker,
            workers=self._workers,
            owner_seed=self._seed,
        )
        shard = Shard(config)
        annotators = self._annotators()
        if annotators:
            from shardmos.workers.host import attach

            for annotator in annotators:
                attach(shard, annotator)
        session = self._setup(shard) if self._setup is not None else None
        if session is not None:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # interrupt()
        if self._filter is not None:
            shard.set_filter(self._filter)
        if ring is None:
            shard.open_captures(self._paths)
        else:
            shard.open_ring(ring)
        try:
            for records in drive(shard, (lambda events: send(_EVENTS, events)) if self._on_events else None):
                if records:
                    send(_RECORDS, records)
                    send(_EXTRAS, msgpack.packb(take_extras(annotators, records)))
        except CaptureError as error:
            send(_CUT, str(error).encode())
        except KeyboardInterrupt:
            if session is not None:
                session.release()
            shard.close()
            raise
        result = session.result() if session is not None else None
        try:
            packed = msgpack.packb([shard.stats().counters, result])
        except (TypeError, ValueError, OverflowError) as error:
            raise ShardmosError(f"a summary cannot be sent from its worker: {error}") from None
        if session is not None:
            session.release()
            shard.close()  # modules in C have something to say at their end
        send(_RESULT, packed)


def _deal(dealer: Any, send: Callable[[bytes, bytes], None]) -> None:
    from shardmos.workers.shard import Run

    while True:
        result = dealer.run(0.5)
        if result & Run.FAILED:
            send(_CUT, dealer.error.encode())
        if result & (Run.END | Run.FAILED):
            break
    send(_RESULT, msgpack.packb([{}, None]))


def _forker() -> ThreadPoolExecutor | None:
    """Who forks: Linux ends the children with the thread that forked them, so that it has to live as long as they do.
    The main thread does; of another one nobody knows."""
    if threading.current_thread() is threading.main_thread():
        return None
    return ThreadPoolExecutor(1, "shardmos-forker")


def _start(parent: int, pipe: int, others: list[int], body: Callable[[Callable[[bytes, bytes], None]], None]) -> int:
    with warnings.catch_warnings():
        # The child runs the engine and nothing that other threads might have locked.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _child(parent, pipe, others, body)
    return pid


def _child(
    parent: int, pipe: int, others: list[int], body: Callable[[Callable[[bytes, bytes], None]], None]
) -> NoReturn:
    """The life of a forked child; never returns."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and ends its children
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        for fd in others:
            os.close(fd)
        if os.getppid() == parent:
            code = _body(pipe, body)
    finally:
        os._exit(code)


def _body(pipe: int, body: Callable[[Callable[[bytes, bytes], None]], None]) -> int:
    def send(kind: bytes, payload: bytes) -> None:
        view = memoryview(_FRAME.pack(kind, len(payload)) + payload)
        while view:
            view = view[os.write(pipe, view) :]

    try:
        body(send)
    except ShardmosError as error:
        send(_FAILED, str(error).encode("utf-8", "replace"))
    except MemoryError:
        send(_FAILED, b"out of memory; give a smaller --memory or fewer workers")
    except BaseException as error:  # SystemExit of a handler, too: how a worker ends is told, not guessed from its code
        send(_FAILED, " ".join(traceback.format_exception_only(error)[-1].split()).encode("utf-8", "replace"))
    else:
        return 0
    return 1
