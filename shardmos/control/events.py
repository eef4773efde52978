"""The PUB side: batches from the workers become messages by topic, for those who subscribed."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, cast

import zmq
import zmq.asyncio

from shardmos.control.protocol import MAX_TOPIC, MAX_TRANSPORT, VERSION, ProtocolError, bind_private, pack, unpack
from shardmos.flow import Flow, split_records
from shardmos.workers.emitted import decode_data

MAX_TOPICS = 4096
HWM = 1000
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
_KINDS = {"flows": ("flow",), "anomalies": ("anomaly",), "modules": ("module.", "error")}

log = logging.getLogger("shardmos")


class Publisher:
    """An XPUB socket, what is subscribed at it, and what was lost."""

    def __init__(self, context: zmq.asyncio.Context, path: str) -> None:
        self.socket = context.socket(zmq.XPUB)
        self.socket.set(zmq.SNDHWM, HWM)
        self.socket.set(zmq.LINGER, 200)
        self.socket.set(zmq.MAXMSGSIZE, 4 * MAX_TOPIC)
        bind_private(self.socket, path)
        self.subscriptions: set[str] = set()
        self.python_modules: set[str] = set()
        self.counters = {"batches": 0, "batches_malformed": 0, "messages": 0, "events": 0, "messages_lost": 0}
        self._sequences: dict[str, int] = {}

    async def take_subscription(self) -> bool:
        """The next subscription or its end; True where it changed what is wanted."""
        message = await self.socket.recv()
        if len(message) > MAX_TOPIC + 1 or message[:1] not in (b"\0", b"\1"):
            return False
        topic = message[1:].decode("utf-8", "replace")
        before = self.wanted()
        if message[:1] == b"\1":
            if len(self.subscriptions) < MAX_TOPICS:
                self.subscriptions.add(topic)
        else:
            self.subscriptions.discard(topic)
        return self.wanted() != before

    def wanted(self) -> list[str]:
        """The kinds that workers shall publish. Log lines always: they also go to standard error."""
        kinds = ["log"]
        for kind, topics in _KINDS.items():
            if any(self._wants(topic) for topic in topics):
                kinds.append(kind)
        return kinds

    def _wants(self, topic: str) -> bool:
        return any(topic.startswith(prefix) or prefix.startswith(topic) for prefix in self.subscriptions)

    def take_batch(self, frames: list[bytes]) -> None:
        """A worker's batch: [kind, worker, payload]. Publishes it by topic."""
        self.counters["batches"] += 1
        try:
            kind, worker, payload = frames
            if kind == b"flows":
                if not self._wants("flow"):  # what was under way when its last subscriber left
                    return
                events = [
                    {"topic": "flow", "worker": int(worker), **Flow(record).to_dict()}
                    for record in split_records(payload)
                ]
            else:
                events = unpack(payload, MAX_TRANSPORT)
            by_topic: dict[str, list[dict[str, Any]]] = {}
            for event in events:
                self._sort(event, by_topic)
        except (ProtocolError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.counters["batches_malformed"] += 1
            log.warning("a worker sent a batch that is none: %s", error)
            return
        for topic, batch in by_topic.items():
            self._send(topic, batch)

    def _sort(self, event: dict[str, Any], by_topic: dict[str, list[dict[str, Any]]]) -> None:
        topic = event["topic"]
        if topic == "log":
            level = _LEVELS[min(max(int(event["level"]), 0), 3)]
            log.log(level, "worker %s, %s: %s", event["worker"], event["module"] or "engine", event["text"])
        elif topic.startswith("module."):
            name = topic.split(".", 2)[1]
            event["data"] = decode_data(event["data"], name in self.python_modules)
            raised = topic == f"module.{name}.error" and name in self.python_modules
            if raised and isinstance(event["data"], dict):
                told = {key: value for key, value in event.items() if key != "data"}
                by_topic.setdefault("error", []).append({**told, **event["data"], "topic": "error"})
        by_topic.setdefault(topic, []).append(event)

    def publish(self, topic: str, **fields: Any) -> None:
        """An event of the coordinator's own."""
        self._send(topic, [{"topic": topic, "time": time.time_ns(), **fields}])

    def _send(self, topic: str, events: list[dict[str, Any]]) -> None:
        if not any(topic.startswith(prefix) for prefix in self.subscriptions):
            return
        sequence = 0
        if topic in self._sequences or len(self._sequences) < MAX_TOPICS:
            sequence = self._sequences[topic] = self._sequences.get(topic, 0) + 1
        message = [topic.encode(), pack({"v": VERSION, "sequence": sequence, "events": events})]
        self.counters["messages"] += 1
        self.counters["events"] += len(events)
        # With NODROP a full queue of any subscriber is an error, so the loss is seen; the others get it all the same.
        self.socket.set(zmq.XPUB_NODROP, 1)
        if isinstance(self._send_now(message), zmq.Again):
            self.counters["messages_lost"] += 1
            self.socket.set(zmq.XPUB_NODROP, 0)
            self._send_now(message)

    def _send_now(self, message: list[bytes]) -> BaseException | None:
        """Sends without waiting; what went wrong.

        Through the asynchronous socket: a send also takes in what subscribers say, and only it then wakes the reader.
        """
        sent = cast("asyncio.Future[Any]", self.socket.send_multipart(message, flags=zmq.NOBLOCK))  # done already
        return sent.exception()

    def close(self) -> None:
        self.socket.close()
