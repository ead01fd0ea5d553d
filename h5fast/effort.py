"""How hard to search for a gzip stream that is as small as zlib's, found by trying it on the rows themselves.

libdeflate's levels are not zlib's, and what one of them gains depends on the data: where a level of zlib's takes five times as
long as the one below for half a percent, there is a quick level of libdeflate's that makes the same size.
"""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np

from h5fast._encode import EFFORT_OF_LEVEL, EFFORT_ZLIB, Encoder
from h5fast._storage import Storage

__all__ = ["choose_effort", "gzip_level"]

_GZIP = 1  # HDF5's number of the filter
_DEFAULT_LEVEL = 6
# What is tried: some pieces of a run, each twice as long as deflate looks back. Sizes differ there as they do in the whole, and it
# costs little beside the rows that are there by then.
_PIECES, _PIECE_BYTES = 4, 64 << 10
_LEAST_BYTES = 1 << 20
# A stream may be larger than zlib's by this factor.
_LARGER = 1.018
# Where libdeflate cannot make it as small, than what its highest level makes.
_LARGER_THAN_LEAST = 1.005
# Where little is left of the rows, level 2 is slower than those above it, and makes larger streams.
_LITTLE = 0.25
_EFFORTS, _EFFORTS_OF_LITTLE = (1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 3, 5, 6, 7, 8, 9)

Filters = tuple[tuple[int, tuple[int, ...]], ...]


def gzip_level(filters: Filters) -> int:
    """The level of the gzip filter among these; 0 where there is none, or it compresses nothing."""
    for number, options in filters:
        if number == _GZIP:
            return options[0] if options and 0 <= options[0] <= 9 else _DEFAULT_LEVEL
    return 0


def choose_effort(filters: Filters, rows: np.ndarray[Any, Any], chunk_rows: int, threads: int) -> int:
    """The least effort that makes chunks hardly larger than zlib does, or than the highest does where none makes them so small; what
    the level suggests, where there are too few rows to tell or they do not shrink.

    Args:
        filters: (id, cd_values) in the order of writing, gzip among them
        rows: C-contiguous, whole chunks
        chunk_rows: of a chunk
    """
    if rows.nbytes < _LEAST_BYTES:
        return EFFORT_OF_LEVEL
    each = max(1, min(chunk_rows, _PIECE_BYTES // (rows.nbytes // len(rows))))
    count = min(_PIECES, len(rows) // each) if each > 1 else min(_PIECES * max(1, _PIECE_BYTES * len(rows) // rows.nbytes), len(rows))
    first = np.linspace(0, len(rows) - each, count).astype(np.int64)
    sample = np.ascontiguousarray(rows[(first[:, None] + np.arange(each)).ravel()])
    shape = (each, *rows.shape[1:])
    encoder = Encoder(Storage(shape, shape, rows.dtype.itemsize, filters), count)
    sizes: dict[int, int] = {}

    def size(effort: int) -> int:
        if effort not in sizes:
            encoder.start(sample, count, threads, effort)
            encoder.finish()
            sizes[effort] = sum(len(encoder.chunk(number)[0]) for number in range(count))
        return sizes[effort]

    wanted = size(EFFORT_ZLIB)
    if wanted >= sample.nbytes:
        return EFFORT_OF_LEVEL
    efforts = _EFFORTS_OF_LITTLE if wanted < _LITTLE * sample.nbytes else _EFFORTS
    most = wanted * _LARGER
    found = bisect.bisect_left(efforts, True, key=lambda effort: size(effort) <= most)
    if found == len(efforts):  # not with any of them
        most = size(efforts[-1]) * _LARGER_THAN_LEAST
        found = bisect.bisect_left(efforts, True, hi=found - 1, key=lambda effort: size(effort) <= most)
    return efforts[found]
