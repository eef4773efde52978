"""Clients of a running coordinator, for programs and for the command line.

with Client() as client:
    client.push("quota.py", limit=5000)
    print(client.stats()["sum"]["counters"]["packets"])
    for event in client.events("module.Quota."):
        ...
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Self

import zmq
import zmq.asyncio

from shardmos.control.protocol import (
    DEFAULT_NAME,
    MAX_CONTENT,
    MAX_TOPIC,
    MAX_TRANSPORT,
    RemoteError,
    check_params,
    decode_reply,
    find_coordinator,
    request,
    unpack,
)
from shardmos.errors import ModuleError, ShardmosError, UsageError

__all__ = ["AsyncClient", "Client", "RemoteError"]

TIMEOUT = 5.0
PUSH_TIMEOUT = 90.0  # compiling and preparing have limits of their own below this
_LOOK_SECONDS = 0.5
_EVENT_HWM = 10_000


def _seconds(timeout: float) -> float:
    """How long to wait; ZeroMQ counts milliseconds in 32 bits."""
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise UsageError(f"timeout: {timeout!r}; give seconds, from 0 on")
    return min(float(timeout), 1e6)


class _Connection:
    """What both clients share: where the coordinator is, and the numbering of requests."""

    _context: zmq.Context[Any]

    def __init__(self, name: str = DEFAULT_NAME, timeout: float = TIMEOUT) -> None:
        self.name = name
        self.timeout = _seconds(timeout)
        self._closed = False
        self._paths = find_coordinator(name)
        self._ids = itertools.count(1)

    def _open(self) -> None:
        if self._closed:
            raise ShardmosError("the client is closed; make another one")

    def _dealer(self, socket: Any) -> Any:
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.MAXMSGSIZE, MAX_TRANSPORT)
        socket.connect(f"ipc://{self._paths['commands']}")
        return socket

    def _subscriber(self, topic: str) -> Any:
        self._open()
        try:
            prefix = topic.encode()
        except (AttributeError, UnicodeEncodeError):
            raise UsageError(f"topic {topic!r}: give text") from None
        if len(prefix) > MAX_TOPIC:
            raise UsageError(f"topic {topic[:64]!r}...: give text of at most {MAX_TOPIC} bytes")
        socket = self._context.socket(zmq.SUB)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVHWM, _EVENT_HWM)
        socket.set(zmq.MAXMSGSIZE, MAX_TRANSPORT)
        socket.set(zmq.SUBSCRIBE, prefix)
        socket.connect(f"ipc://{self._paths['events']}")
        return socket

    def _gone(self, op: str, seconds: float) -> ShardmosError:
        find_coordinator(self.name)  # says so if there is none any more
        return ShardmosError(f"coordinator {self.name} did not answer {op} within {seconds:g} seconds")

    def _runs(self) -> bool:
        try:
            find_coordinator(self.name)
        except ShardmosError:
            return False
        return True


def push_arguments(module: str | os.PathLike[str], name: str | None, params: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a push: the file's content, not its path. `module` is a file, or the name of one we ship."""
    from shardmos.workers.load import find

    path = find(os.fspath(module))
    texts = {key: _as_text(value) for key, value in params.items()}
    check_params(texts, "push")
    try:
        if path.stat().st_size > MAX_CONTENT:
            raise ModuleError(f"module {path}: larger than {MAX_CONTENT >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise ModuleError(f"module {path}: {error.strerror}") from None
    args: dict[str, Any] = {"file": path.name, "content": content, "params": texts}
    if name is not None:
        args["name"] = name
    return args


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _events(message: list[bytes], last: dict[str, int]) -> tuple[list[dict[str, Any]], int]:
    """The events of a message, and how many messages of its topic were lost before it."""
    topic, data = message
    batch = unpack(data, MAX_TRANSPORT)
    key, sequence = topic.decode("utf-8", "replace"), int(batch["sequence"])
    lost = max(sequence - last[key] - 1, 0) if key in last and sequence else 0
    last[key] = sequence
    return batch["events"], lost


class Client(_Connection):
    """A synchronous client; a context manager. One thread uses it at a time.

    Every method raises ShardmosError with one line: no coordinator of that name, no answer within `timeout` seconds, or
    what the coordinator refused with.
    """

    def __init__(self, name: str = DEFAULT_NAME, timeout: float = TIMEOUT) -> None:
        super().__init__(name, timeout)
        self._context = zmq.Context()
        self._socket = self._dealer(self._context.socket(zmq.DEALER))

    def call(self, op: str, args: Mapping[str, Any] | None = None, timeout: float | None = None) -> Any:
        """Any command of docs/protocol.md."""
        self._open()
        seconds = self.timeout if timeout is None else _seconds(timeout)
        id, deadline = next(self._ids), time.monotonic() + seconds
        self._socket.send(request(id, op, args or {}))
        while True:
            left = max(deadline - time.monotonic(), 0)
            if not self._socket.poll(min(left, _LOOK_SECONDS) * 1000):
                if left <= _LOOK_SECONDS or not self._runs():
                    raise self._gone(op, seconds)
                continue
            replied, result, error = decode_reply(self._socket.recv())
            if replied != id:
                continue  # of a request that was given up
            if error is not None:
                raise error
            return result

    def ping(self) -> dict[str, Any]:
        """The coordinator's name and pid."""
        return dict(self.call("ping"))

    def status(self) -> dict[str, Any]:
        """Version, port, subscriptions, and each worker's state."""
        return dict(self.call("status"))

    def push(
        self, module: str | os.PathLike[str], *, name: str | None = None, timeout: float = PUSH_TIMEOUT, **params: Any
    ) -> dict[str, Any]:
        """Puts a module (.py, .c, .so, or a built-in's name) in place; see the reply of `push` in docs/protocol.md."""
        return dict(self.call("push", push_arguments(module, name, params), timeout))

    def ls(self) -> list[dict[str, Any]]:
        """The active modules."""
        return list(self.call("ls"))

    def rm(self, name: str) -> dict[str, Any]:
        """Takes a module out."""
        return dict(self.call("rm", {"name": name}))

    def rollback(self, name: str, timeout: float = PUSH_TIMEOUT) -> dict[str, Any]:
        """Puts a module's version before the current one in its place."""
        return dict(self.call("rollback", {"name": name}, timeout))

    def stats(self) -> dict[str, Any]:
        """Counters per worker and in sum."""
        return dict(self.call("stats"))

    def flows_count(self) -> int:
        """Flows alive in all workers."""
        return int(self.call("flows-count")["sum"])

    def stop(self) -> None:
        """Ends the coordinator."""
        self.call("stop")

    def events(self, topic: str = "", timeout: float | None = None) -> Events:
        """Events whose topic begins with `topic`, subscribed from now on; ends after `timeout` seconds without one."""
        wait = None if timeout is None else _seconds(timeout)
        events = Events(self, self._subscriber(topic), wait)
        deadline = time.monotonic() + self.timeout
        while topic not in self.status()["subscriptions"]:
            if time.monotonic() > deadline:
                events.close()
                raise self._gone(f"the subscription to {topic!r}", self.timeout)
            time.sleep(0.005)
        return events

    def close(self) -> None:
        """Twice is once."""
        self._closed = True
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Events:
    """An iterator over events; ends when the coordinator does. `lost` counts messages that came too fast for us."""

    def __init__(self, client: Client, socket: Any, timeout: float | None) -> None:
        self._client, self._socket, self._timeout = client, socket, timeout
        self._waiting: Iterator[dict[str, Any]] = iter(())
        self._last: dict[str, int] = {}
        self.lost = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        while True:
            for event in self._waiting:
                return event
            if not self._wait():
                self.close()
                raise StopIteration
            events, lost = _events(self._socket.recv_multipart(), self._last)
            self._waiting = iter(events)
            self.lost += lost

    def _wait(self) -> bool:
        if self._socket.closed:
            return False
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            seconds = _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - time.monotonic())
            if self._socket.poll(max(seconds, 0) * 1000):
                return True
            if (deadline is not None and time.monotonic() >= deadline) or not self._client._runs():
                return False

    def close(self) -> None:
        """Ends the iteration. Twice is once."""
        self._socket.close()
        self._waiting = iter(())


class AsyncClient(_Connection):
    """The same for asyncio: `async with AsyncClient() as client: await client.stats()`. Calls may overlap."""

    def __init__(self, name: str = DEFAULT_NAME, timeout: float = TIMEOUT) -> None:
        super().__init__(name, timeout)
        self._context = zmq.asyncio.Context()
        self._socket: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int | str, asyncio.Future[Any]] = {}

    async def call(self, op: str, args: Mapping[str, Any] | None = None, timeout: float | None = None) -> Any:
        """Any command of docs/protocol.md."""
        self._open()
        if self._socket is None:
            self._socket = self._dealer(self._context.socket(zmq.DEALER))
            self._reader = asyncio.create_task(self._read())
        seconds, id = self.timeout if timeout is None else _seconds(timeout), next(self._ids)
        future = self._waiting[id] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send(request(id, op, args or {}))
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0 and not future.done():
                await asyncio.wait({future}, timeout=min(left, _LOOK_SECONDS))
                if not future.done() and not self._runs():
                    break
            if not future.done():
                raise self._gone(op, seconds)
            return future.result()
        finally:
            self._waiting.pop(id, None)

    async def _read(self) -> None:
        while True:
            data = await self._socket.recv()
            try:
                id, result, error = decode_reply(data)
            except ShardmosError:
                continue
            future = self._waiting.get(id) if id is not None else None
            if future is None or future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

    async def ping(self) -> dict[str, Any]:
        return dict(await self.call("ping"))

    async def status(self) -> dict[str, Any]:
        return dict(await self.call("status"))

    async def push(
        self, module: str | os.PathLike[str], *, name: str | None = None, timeout: float = PUSH_TIMEOUT, **params: Any
    ) -> dict[str, Any]:
        return dict(await self.call("push", push_arguments(module, name, params), timeout))

    async def ls(self) -> list[dict[str, Any]]:
        return list(await self.call("ls"))

    async def rm(self, name: str) -> dict[str, Any]:
        return dict(await self.call("rm", {"name": name}))

    async def rollback(self, name: str, timeout: float = PUSH_TIMEOUT) -> dict[str, Any]:
        return dict(await self.call("rollback", {"name": name}, timeout))

    async def stats(self) -> dict[str, Any]:
        return dict(await self.call("stats"))

    async def flows_count(self) -> int:
        return int((await self.call("flows-count"))["sum"])

    async def stop(self) -> None:
        await self.call("stop")

    async def events(self, topic: str = "", timeout: float | None = None) -> AsyncIterator[dict[str, Any]]:
        """Events whose topic begins with `topic`; subscribed when the iteration begins."""
        timeout = None if timeout is None else _seconds(timeout)
        socket = self._subscriber(topic)
        last: dict[str, int] = {}
        try:
            quiet = 0.0
            while timeout is None or quiet < timeout:
                step = _LOOK_SECONDS if timeout is None else min(_LOOK_SECONDS, timeout - quiet)
                if not await socket.poll(step * 1000):
                    quiet += step
                    if not self._runs():
                        return
                    continue
                quiet = 0.0
                for event in _events(await socket.recv_multipart(), last)[0]:
                    yield event
        finally:
            socket.close()

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
        self._closed = True
        self._context.destroy(linger=0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
