"""The messages of the control plane: their schema, their bounds, their encoding (docs/protocol.md).

Used by the coordinator, its workers and its clients alike. Pure: bytes in, checked values out. What comes in is hostile
until `decode_*` returned it; a ProtocolError carries the code that the sender is answered with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import msgpack

from shardmos.errors import ShardmosError

VERSION = 1
MAX_CONTENT = 16 << 20  # a module's file
MAX_MESSAGE = MAX_CONTENT + (1 << 20)  # answered with an error above this
MAX_TRANSPORT = 64 << 20  # ZeroMQ ends the connection above this
MAX_PARAMS = 64
MAX_TEXT = 4096
MAX_PARAM = 1 << 20  # characters of a parameter's value
MAX_TOPIC = 256  # bytes of a topic, or of what a subscriber wants topics to begin with
MAX_DETAILS = 64 << 10

NAME = re.compile(r"[a-zA-Z0-9_-]{1,63}\Z")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_CODE = re.compile(r"[a-z-]{1,32}\Z")

# What each command takes: argument -> (type, required). Anything else is refused.
COMMANDS: Mapping[str, Mapping[str, tuple[type, bool]]] = {
    "ping": {},
    "status": {},
    "stats": {},
    "flows-count": {},
    "ls": {},
    "push": {"file": (str, True), "content": (bytes, True), "name": (str, False), "params": (dict, False)},
    "rm": {"name": (str, True)},
    "rollback": {"name": (str, True)},
    "stop": {},
}


class ProtocolError(ShardmosError):
    """A message that is not what it should be; `code` says how, `id` whose it was where that could be read."""

    def __init__(self, code: str, message: str, id: int | str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.id = id


class RemoteError(ShardmosError):
    """What the other side answered with: its code, its line, and further lines (a compiler's output) in `details`."""

    def __init__(self, code: str, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details


def pack(value: Any) -> bytes:
    """msgpack, as both sides write it."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(data: bytes, limit: int = MAX_MESSAGE) -> Any:
    """Strict msgpack of at most `limit` bytes: no extension types, keys of maps are text or integers."""
    if len(data) > limit:
        raise ProtocolError("too-large", f"message of {len(data)} bytes; at most {limit} are taken")
    try:
        return msgpack.unpackb(
            data, raw=False, strict_map_key=True, use_list=True, max_str_len=limit, max_bin_len=limit,
            max_array_len=1 << 20, max_map_len=1 << 16, max_ext_len=0, ext_hook=_no_extension,
        )  # fmt: skip
    except ProtocolError:
        raise
    except (ValueError, TypeError, RecursionError, MemoryError, msgpack.UnpackException) as error:
        raise ProtocolError(
            "malformed", f"message is not the msgpack expected: {error or type(error).__name__}"
        ) from None


def _no_extension(code: int, data: bytes) -> Any:
    raise ProtocolError("malformed", f"message has a msgpack extension (type {code}); none is used here")


# ---- commands and replies ----


def request(id: int, op: str, args: Mapping[str, Any]) -> bytes:
    return pack({"v": VERSION, "id": id, "op": op, "args": dict(args)})


def reply(id: int | str | None, result: Any) -> bytes:
    return pack({"v": VERSION, "id": id, "ok": result})


def error_reply(id: int | str | None, code: str, message: str, details: str = "") -> bytes:
    error: dict[str, Any] = {"code": code, "message": message[:MAX_TEXT]}
    if details:
        error["details"] = details[:MAX_DETAILS]
    return pack({"v": VERSION, "id": id, "error": error})


def decode_request(
    data: bytes, commands: Mapping[str, Mapping[str, tuple[type, bool]]] = COMMANDS
) -> tuple[int | str, str, dict[str, Any]]:
    """(id, op, args) of a checked command. ProtocolError otherwise."""
    message = unpack(data)
    if not isinstance(message, dict):
        raise ProtocolError("malformed", "a command is a map {v, id, op, args}")
    id = message.get("id")
    if isinstance(id, bool) or not isinstance(id, int | str) or (isinstance(id, str) and len(id) > 64):
        raise ProtocolError("malformed", "id: give an integer, or text of at most 64 characters")
    if message.get("v") != VERSION or isinstance(message.get("v"), bool):
        raise ProtocolError(
            "version", f"protocol version {_short(message.get('v'))} is not spoken here, {VERSION} is", id
        )
    if unknown := [key for key in message if key not in ("v", "id", "op", "args")]:
        raise ProtocolError("malformed", f"a command has no field {_short(unknown[0])}", id)
    op, args = message.get("op"), message.get("args", {})
    if not isinstance(op, str) or op not in commands:
        raise ProtocolError("unknown-op", f"no command {_short(op)}; there are {', '.join(commands)}", id)
    if not isinstance(args, dict):
        raise ProtocolError("malformed", f"{op}: args is a map", id)
    try:
        _check_args(op, args, commands[op])
    except ProtocolError as error:
        error.id = id
        raise
    return id, op, args


def _check_args(op: str, args: dict[Any, Any], schema: Mapping[str, tuple[type, bool]]) -> None:
    for key in args:
        if key not in schema:
            raise ProtocolError("bad-argument", f"{op}: no argument {_short(key)}")
    for key, (kind, required) in schema.items():
        if args.get(key) is None:
            if required:
                raise ProtocolError("bad-argument", f"{op}: argument {key} is missing")
            continue
        if type(args[key]) is not kind:
            raise ProtocolError(
                "bad-argument", f"{op}: {key} is of type {kind.__name__}, not {type(args[key]).__name__}"
            )
    if "content" in args and len(args["content"]) > MAX_CONTENT:
        raise ProtocolError("too-large", f"{op}: a module has at most {MAX_CONTENT >> 20} MiB")
    if isinstance(args.get("name"), str):
        check_name(args["name"], f"{op}: name")
    if isinstance(args.get("file"), str) and not 0 < len(args["file"]) <= MAX_TEXT:
        raise ProtocolError("bad-argument", f"{op}: file: give 1 to {MAX_TEXT} characters")
    if isinstance(args.get("params"), dict):
        check_params(args["params"], op)


def check_name(name: str, what: str = "name") -> str:
    """A name of a module or coordinator."""
    if not isinstance(name, str) or not NAME.match(name):
        raise ProtocolError("bad-argument", f"{what} {_short(name)}: give 1 to 63 of a-z A-Z 0-9 _ -")
    return name


def check_params(params: Mapping[Any, Any], what: str) -> None:
    if len(params) > MAX_PARAMS:
        raise ProtocolError("bad-argument", f"{what}: at most {MAX_PARAMS} parameters can be set")
    for key, value in params.items():
        if not isinstance(key, str) or not _KEY.match(key):
            raise ProtocolError("bad-argument", f"{what}: {_short(key)} is no parameter's name")
        if not isinstance(value, str) or len(value) > MAX_PARAM or "\0" in value:
            raise ProtocolError("bad-argument", f"{what}: parameter {key}: give text of at most {MAX_PARAM} characters")


def decode_reply(data: bytes, limit: int = MAX_TRANSPORT) -> tuple[int | str | None, Any, RemoteError | None]:
    """(id, result, error) of a reply; one of the last two is None."""
    message = unpack(data, limit)
    if not isinstance(message, dict) or message.get("v") != VERSION:
        raise ProtocolError("malformed", f"a reply of protocol version {VERSION} was expected")
    id = message.get("id")
    if id is not None and not isinstance(id, int | str):
        raise ProtocolError("malformed", "a reply's id is an integer or text")
    if "error" not in message:
        return id, message.get("ok"), None
    error = message["error"]
    if not isinstance(error, dict):
        raise ProtocolError("malformed", "a reply's error is a map {code, message}")
    code, text, details = (error.get(key, "") for key in ("code", "message", "details"))
    if not (isinstance(code, str) and _CODE.match(code) and isinstance(text, str) and isinstance(details, str)):
        raise ProtocolError("malformed", "a reply's error is a map {code, message} of texts")
    return id, None, RemoteError(code, text, details)


def array_length(data: bytes) -> int:
    """How many elements a msgpack array has, by its head alone; 0 for what is none."""
    if not data:
        return 0
    head = data[0]
    if head & 0xF0 == 0x90:
        return head & 0x0F
    size = {0xDC: 2, 0xDD: 4}.get(head, 0)
    return int.from_bytes(data[1 : 1 + size], "big")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# ---- where a coordinator is found ----

DEFAULT_NAME = "default"
_MAX_SOCKET_PATH = 100  # sun_path has 108 bytes; the longest ending is taken off


_SERVICE_DIR = "/run/shardmos"  # root's, or made by systemd for the unit's user: nobody else can make it


def candidate_dirs() -> list[str]:
    """Where coordinators may live, the first choice first; one alone where SHARDMOS_RUNTIME_DIR names it."""
    if only := os.environ.get("SHARDMOS_RUNTIME_DIR"):
        return [only]
    session = os.environ.get("XDG_RUNTIME_DIR")
    dirs = [os.path.join(session, "shardmos")] if session else []
    dirs.append(_SERVICE_DIR)
    dirs.append(os.path.join(os.environ.get("TMPDIR") or "/tmp", f"shardmos-{os.getuid()}"))
    return dirs


def runtime_dir() -> str:
    """A directory of mode 0700 of this user's own, made if need be. ShardmosError if there can be none."""
    reasons = []
    for path in candidate_dirs():
        if path == _SERVICE_DIR and os.getuid() != 0 and not os.access(path, os.W_OK):
            continue
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            status = os.lstat(path)
        except OSError as error:
            reasons.append(f"{path}: {error.strerror}")
            continue
        if not _is_private(path, status):
            reasons.append(f"{path}: is not a directory of this user alone")
            continue
        return path
    raise ShardmosError(f"no directory for the coordinator's sockets ({'; '.join(reasons)}); set SHARDMOS_RUNTIME_DIR")


def _is_private(path: str, status: os.stat_result) -> bool:
    import stat

    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        return False
    if status.st_mode & 0o077:
        if path != _SERVICE_DIR:  # systemd's RuntimeDirectory= makes that one, with the unit's mode
            return False
        return not status.st_mode & 0o022
    return True


def socket_paths(directory: str, name: str) -> dict[str, str]:
    """The files of a coordinator: commands and events for clients, control and batches for workers, lock."""
    check_name(name, "coordinator's name")
    base = os.path.join(directory, name)
    if len(os.fsencode(base)) > _MAX_SOCKET_PATH - 10:
        raise ShardmosError(f"{base}: too long for a Unix socket's path; choose a shorter name or SHARDMOS_RUNTIME_DIR")
    return {kind: f"{base}.{kind}" for kind in ("commands", "events", "control", "batches", "lock")}


def bind_private(socket: Any, path: str) -> None:
    """Binds a ZeroMQ socket to a Unix socket that only this user can reach (the directory is private as well)."""
    socket.bind(f"ipc://{path}")
    os.chmod(path, 0o600)


def find_coordinator(name: str) -> dict[str, str]:
    """The sockets of the running coordinator of that name. ShardmosError if there is none."""
    import socket

    check_name(name, "coordinator's name")
    closed = ""
    for directory in candidate_dirs():
        try:
            status = os.lstat(directory)
        except OSError:
            continue
        if status.st_uid not in (os.getuid(), 0) and not (os.getuid() == 0 and directory == _SERVICE_DIR):
            continue  # someone else's directory in a place that all may write to
        paths = socket_paths(directory, name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(paths["commands"])
            except PermissionError:  # another user's; ours may be in the next place
                if os.access(directory, os.X_OK):  # else it cannot be known whether there is one
                    closed = paths["commands"]
                continue
            except OSError:
                continue
        return paths
    if closed:
        raise ShardmosError(f"coordinator {name} belongs to another user ({closed})")
    raise ShardmosError(f"no coordinator named {name} (start one with: shardmos up --name {name})")
