"""Numbers of bytes, as people write and read them."""

from __future__ import annotations

import numbers
import re

__all__ = ["format_bytes", "parse_bytes"]

_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
          "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


def parse_bytes(size: int | float | str) -> int:
    """Bytes as people write them: ``1 << 30``, ``"1 GiB"``, ``"500 MB"``. Raises ``ValueError`` for anything else."""
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-zA-Z]*)\s*", size)
        if match is None or match[2].lower() not in _UNITS:
            raise ValueError(f"a size is a number of bytes or a text like '500 MB' or '1 GiB', not {size!r}")
        return int(float(match[1]) * _UNITS[match[2].lower()])
    if isinstance(size, bool) or not isinstance(size, numbers.Real) or not size > 0 or size == float("inf"):
        raise ValueError(f"a size is a number of bytes or a text like '500 MB' or '1 GiB', not {size!r}")
    return int(size)


def format_bytes(count: float) -> str:
    """A number of bytes in the unit that fits: ``format_bytes(1536) == "1.5 KiB"``."""
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"
