"""How hard to search for a gzip stream that is as small as zlib's, found by trying it on the rows themselves.

libdeflate's levels are not zlib's, and what one of them gains depends on the data: where a level of zlib's takes five times as
long as the one below for half a percent, there is a quick level of libdeflate's that makes the same size.
"""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np

from h5fast._encode import EFFORT_OF_LEVEL, EFFORT_ZLIB, Encoder

__all__ = ["choose_effort", "gzip_level"]

_GZIP = 1  # HDF5's number of the filter
_DEFAULT_LEVEL = 6
# What is tried: enough that sizes differ as they do in the whole, little beside the rows that are there by then.
_SAMPLE_BYTES, _SAMPLE_CHUNKS = 256 << 10, 3
_LEAST_BYTES = 1 << 20
# A stream may be larger than zlib's by this factor.
_LARGER = 1.018
# Where libdeflate cannot make it as small, than what its highest level makes.
_LARGER_THAN_LEAST = 1.005
# Where little is left of the rows, level 2 is slower than those above it, and makes larger streams.
_LITTLE = 0.25
_EFFORTS, _EFFORTS_OF_LITTLE = (1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 3, 5, 6, 7, 8, 9)


def gzip_level(filters: tuple[tuple[int, tuple[int, ...]], ...]) -> int:
    """The level of the gzip filter among these; 0 where there is none, or it compresses nothing."""
    for number, options in filters:
        if number == _GZIP:
            return options[0] if options and 0 <= options[0] <= 9 else _DEFAULT_LEVEL
    return 0


def choose_effort(encoder: Encoder, rows: np.ndarray[Any, Any], chunks: int, threads: int) -> int:
    """The least effort that makes chunks hardly larger than zlib does, or than the highest does where none makes them so small; what
    the level suggests, where there are too few rows to tell or they do not shrink.

    Args:
        encoder: of a dataset whose filters have gzip among them; idle
        rows: C-contiguous, the rows of so many whole chunks
    """
    if rows.nbytes < _LEAST_BYTES:
        return EFFORT_OF_LEVEL
    whole = rows.reshape(chunks, -1)
    count = min(chunks, max(_SAMPLE_CHUNKS, _SAMPLE_BYTES * chunks // rows.nbytes))
    sample = np.ascontiguousarray(whole[::chunks // count][:count])

    def size(effort: int) -> int:
        encoder.start(sample, count, threads, effort)
        encoder.finish()
        return sum(len(encoder.chunk(number)[0]) for number in range(count))

    wanted = size(EFFORT_ZLIB)
    if wanted >= sample.nbytes:
        return EFFORT_OF_LEVEL
    efforts = _EFFORTS_OF_LITTLE if wanted < _LITTLE * sample.nbytes else _EFFORTS
    most = max(wanted * _LARGER, size(efforts[-1]) * _LARGER_THAN_LEAST)
    return efforts[bisect.bisect_left(efforts, True, hi=len(efforts) - 1, key=lambda effort: size(effort) <= most)]
