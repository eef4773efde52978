"""Whatever a middlebox gives the API: a ShardmosError of one line or a result, never an error from inside, no crash."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import shardmos as sm

WRONG: list[Any] = [
    None, True, 0, -1, 1, 255, 256, 2**16, 2**31, 2**32, 2**63, 2**64, 2**70, 1.5, math.nan, math.inf, 1j, "", "x",
    "a\0b", "\udcff", b"", b"x", b"a\0b", b"x" * 100_000, bytearray(b"x"), memoryview(b"abcdef")[::2], [], [1], {}, (),
    set(), range(3), object(), print, sm.Middlebox, sm.NEW_DATA, sm.CLIENT,
]  # fmt: skip


def calls(
    box: sm.Middlebox, flow: sm.LiveFlow, packet: sm.Packet, sock: Any, value: Any
) -> Iterator[Callable[[], Any]]:
    """Each function of the API with the value in each place."""
    user = sm.event(sm.PKT_IN, print)
    positional: list[tuple[Any, tuple[Any, ...]]] = [
        (flow.inject, (sm.CLIENT, b"x")), (flow.stop, (sm.CLIENT,)), (flow.register, (sm.REXMIT, print)),
        (flow.unregister, (sm.REXMIT, print)), (flow.timer, (1, print, 1)), (flow.peek, (0, 5)),
        (flow.raise_event, (user,)), (flow.peek_at, (0, 0, 5)), (flow.buffered, (0,)), (flow.buffer_info, (0,)),
        (packet.overwrite, (0, b"x", "payload")), (packet.insert, (0, b"x")), (packet.remove, (0, 1)),
        (box.emit, ("topic", 1)), (box.log, ("text", 1)), (box.timer, (1, print, 1)), (box.remove_event, (user,)),
        (box.socket, (1,)), (sock.bind, ("",)), (sock.register, (sm.REXMIT, print)), (sock.unregister, (sm.REXMIT,)),
    ]  # fmt: skip
    for function, right in positional:
        for place in range(len(right)):
            if function == box.emit and place == 1 and not isinstance(value, str):
                continue  # TypeError for what cannot be sent, as json.dumps has it
            yield partial(function, *right[:place], value, *right[place + 1 :])
    named: list[tuple[Any, tuple[Any, ...], tuple[str, ...]]] = [
        (flow.inject, (sm.CLIENT, b"x"), ("flags", "seq", "ack", "window", "urgent")),
        (flow.set, (), ("history", "buffer", "overlap", "side")),
        (flow.register, (sm.REXMIT, print), ("side", "hook")),
        (sock.bind, ("",), ("orphans",)),
        (sock.register, (sm.REXMIT, print), ("side", "hook")),
        (sock.set, (), ("history", "buffer", "overlap", "frames", "datagrams", "side")),
    ]  # fmt: skip
    for function, right, names in named:
        for name in names:
            yield partial(function, *right, **{name: value})


class Wrong(sm.Middlebox):
    def __init__(self) -> None:
        super().__init__()
        self.refused = 0
        self.wrong: list[str] = []

    @sm.on(sm.PKT_IN)
    def packet(self, flow: sm.LiveFlow, packet: sm.Packet) -> None:
        if packet.number != 4:
            return
        for value in WRONG:
            sock = self.socket()
            for number, call in enumerate(calls(self, flow, packet, sock, value)):
                try:
                    made = call()
                    if isinstance(made, type(sock)):
                        made.close()
                except sm.ShardmosError as error:
                    self.refused += 1
                    assert "\n" not in str(error)
                except Exception as error:
                    self.wrong.append(f"call {number} with {value!r}: {error!r}")
            sock.close()


def test_any_argument_gives_a_clear_error_or_works(capture: Path, tmp_path: Path) -> None:
    box = Wrong()
    sm.run(capture, box, write=tmp_path / "out.pcap")
    assert box.wrong == []
    assert box.refused > 1000
