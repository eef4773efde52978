"""What modules emit, as they meant it."""

from __future__ import annotations

from typing import Any

import msgpack


def decode_data(data: Any, python: bool) -> Any:
    """Python's is msgpack; C's is text, or bytes where it is no UTF-8."""
    if not isinstance(data, bytes):
        return data
    try:
        if python:
            return msgpack.unpackb(data, strict_map_key=False)
        return data.decode("utf-8")
    except (ValueError, TypeError, msgpack.UnpackException):
        return data
