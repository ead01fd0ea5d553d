"""Answers and questions between the two processes: a head of fixed size, JSON, and bytes that JSON would bloat.

Nothing here runs what it receives. Lengths are compared with a limit of the receiver's before anything is allocated for them.
"""

from __future__ import annotations

import json
import struct
from typing import Any

__all__ = ["HEAD_BYTES", "Nonsense", "begin", "lengths", "parse"]

_HEAD = struct.Struct("<4sQQ")  # what it is, bytes of JSON, bytes behind it
_MAGIC = b"h5f1"
HEAD_BYTES: int = _HEAD.size


class Nonsense(ValueError):
    """What arrived is no message, or says something that cannot be."""


def begin(content: dict[str, Any], payload_bytes: int = 0) -> bytes:
    """A message but for the bytes behind it, which are written next: there may be too many of them for another copy."""
    text = json.dumps(content).encode()
    return _HEAD.pack(_MAGIC, len(text), payload_bytes) + text


def lengths(head: bytes, limit: int) -> tuple[int, int]:
    """Bytes of JSON and bytes behind it, from the head of a message.

    Raises:
        Nonsense: it is no head, or announces more than `limit` bytes.
    """
    magic, text, payload = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise Nonsense("an answer that is no message")
    if text + payload > limit:
        raise Nonsense(f"an answer of {text + payload} bytes where at most {limit} make sense")
    return text, payload


def parse(text: bytes) -> dict[str, Any]:
    """The JSON of a message.

    Raises:
        Nonsense: it is no JSON object.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Nonsense(f"an answer that is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise Nonsense("an answer that is no JSON object")
    return content
