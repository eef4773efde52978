"""Messages: what is taken, what is refused, and that nothing else happens."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmos.control import protocol
from shardmos.control.protocol import ProtocolError, decode_reply, decode_request, error_reply, pack, reply, request
from shardmos.errors import ShardmosError


def refused(message: object) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode_request(message if isinstance(message, bytes) else pack(message))
    return caught.value.code


def test_a_command_comes_back_as_it_was_sent() -> None:
    assert decode_request(request(7, "rm", {"name": "quota"})) == (7, "rm", {"name": "quota"})


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (b"\x81", "malformed"),
        ([], "malformed"),
        ({"v": 1, "op": "ping"}, "malformed"),
        ({"v": 1, "id": True, "op": "ping"}, "malformed"),
        ({"v": 2, "id": 1, "op": "ping"}, "version"),
        ({"v": 1, "id": 1, "op": "ping", "more": 1}, "malformed"),
        ({"v": 1, "id": 1, "op": "fly"}, "unknown-op"),
        ({"v": 1, "id": 1, "op": ["ping"]}, "unknown-op"),
        ({"v": 1, "id": 1, "op": "rm"}, "bad-argument"),
        ({"v": 1, "id": 1, "op": "rm", "args": {"name": 5}}, "bad-argument"),
        ({"v": 1, "id": 1, "op": "rm", "args": {"name": "../x"}}, "bad-argument"),
        ({"v": 1, "id": 1, "op": "ping", "args": {"x": 1}}, "bad-argument"),
        (
            {"v": 1, "id": 1, "op": "push", "args": {"file": "a.py", "content": b"", "params": {"a b": "1"}}},
            "bad-argument",
        ),
        ({"v": 1, "id": 1, "op": "push", "args": {"file": "a.py", "content": b"", "params": {"a": 1}}}, "bad-argument"),
        (msgpack.packb(msgpack.ExtType(5, b"x")), "malformed"),
        (msgpack.packb(msgpack.Timestamp(1)), "malformed"),
        (b"\x91" * 100_000, "malformed"),
        (b"\xdd\xff\xff\xff\xff", "malformed"),
    ],
)
def test_other_messages_are_refused_with_a_code(message: object, code: str) -> None:
    assert refused(message) == code


def test_an_oversized_message_is_refused_before_it_is_decoded() -> None:
    assert refused(b"\xc6" + b"\xff" * (protocol.MAX_MESSAGE + 1)) == "too-large"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_a_protocol_error(data: bytes) -> None:
    try:
        decode_request(data)
    except ProtocolError as error:
        assert "\n" not in str(error)


def test_replies_carry_results_or_errors() -> None:
    assert decode_reply(reply(3, [1])) == (3, [1], None)
    id, result, error = decode_reply(error_reply("x", "module", "no such", "a\nb"))
    assert (id, result) == ("x", None)
    assert error is not None and (error.code, str(error), error.details) == ("module", "no such", "a\nb")


@given(st.lists(st.integers(), max_size=70_000 // 100))
def test_array_length_reads_the_head(values: list[int]) -> None:
    values = [value % 2**32 for value in values]
    assert protocol.array_length(msgpack.packb(values)) == len(values)


@pytest.mark.parametrize("name", ["", "a/b", "a" * 64, "a\n", ".."])
def test_a_coordinators_name_cannot_leave_its_directory(name: str) -> None:
    with pytest.raises(ShardmosError):
        protocol.find_coordinator(name)


def test_the_runtime_directory_is_made_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHARDMOS_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert protocol.runtime_dir() == str(tmp_path / "shardmos")
    monkeypatch.setenv("SHARDMOS_RUNTIME_DIR", str(tmp_path / "mine"))
    assert protocol.runtime_dir() == str(tmp_path / "mine")
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.iterdir())] == [0o700, 0o700]
