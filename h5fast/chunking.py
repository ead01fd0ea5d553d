"""How many rows a chunk should hold, and why: arithmetic, no file."""

from __future__ import annotations

from typing import Any

from h5fast.sizes import format_bytes

__all__ = ["ACCESSES", "LARGEST_CHUNK", "ONE_READ_BYTES", "check_access", "choose_rows"]

#: The ways of reading that chunks are chosen for.
ACCESSES = ("random rows", "sequential")

#: From here on, decoding costs more than finding, reading and handing out a chunk (about 2 µs, in which lzf decodes some
#: 4 KiB): a chunk for random rows should not be smaller, and every multiple of it costs a random row as much again.
ONE_READ_BYTES = 4096

#: HDF5 before 2.0 stores no chunk of 4 GiB.
LARGEST_CHUNK = (1 << 32) - 1

# A chunk that is decoded for one of its rows: four times the least size, where smaller chunks would cost more in the index and
# in what compression loses.
_RANDOM_BYTES = 4 * ONE_READ_BYTES
# A chunk that is read from one end to the other, or of which rows are copied without decoding: enough that finding it costs
# nothing, little enough that some of them fit the caches at once.
_LONG_BYTES = 1 << 20


def choose_rows(row_bytes: int, *, compressed: bool, access: str, rows: int | None, most_bytes: int) -> tuple[int, str]:
    """Rows of a chunk for rows of `row_bytes` each, and the reason.

    Args:
        compressed: whether a chunk has to be decoded to read one of its rows
        access: one of :data:`ACCESSES`
        rows: of the dataset; None where that is not known
        most_bytes: of a chunk, which the writer has memory for; a row is never cut
    """
    if access == "sequential":
        target, reason = _LONG_BYTES, "are read one after the other"
    elif compressed:
        target, reason = _RANDOM_BYTES, "are decoded for a random row"
    else:
        target, reason = _LONG_BYTES, "hold rows that are copied out of them one by one"
    if target > most_bytes:
        target, reason = most_bytes, "are what the writer's memory has room for"
    chosen = max(1, target // max(1, row_bytes))
    if rows is not None and chosen > rows:
        return max(1, rows), f"all {rows} rows, of {format_bytes(row_bytes)} each"
    if chosen == 1:
        return 1, f"a row takes {format_bytes(row_bytes)}, and chunks of {format_bytes(target)} {reason}"
    return chosen, f"{chosen} rows of {format_bytes(row_bytes)}: chunks of {format_bytes(target)} {reason}"


def check_access(access: Any) -> str:
    """`access` itself, if it is one of :data:`ACCESSES`; else ``ValueError``."""
    if access not in ACCESSES:
        raise ValueError(f"access is {' or '.join(map(repr, ACCESSES))}, not {access!r}")
    return str(access)
