# cython: language_level=3
"""Places of a list in memory that processes share, taken without a lock."""

cimport numpy as cnp
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t

import numpy as np

cnp.import_array()


cdef extern from "claim.h":
    ptrdiff_t h5fast_claim(int64_t *places, ptrdiff_t count, int64_t key) noexcept nogil


def claim(cnp.ndarray places, int64_t key) -> int:
    """The place of a key in the list: where it stands, or the first place that is free (0), which it takes; -1 if none is.

    Several processes may claim at once. Raises ``ValueError`` for a key that is 0, or a list that is not one of int64.
    """
    if key == 0 or places.ndim != 1 or places.dtype != np.int64 or not cnp.PyArray_ISCARRAY(places):
        raise ValueError("a key other than 0 is claimed in a list of int64 in one piece")
    return h5fast_claim(<int64_t *>cnp.PyArray_DATA(places), cnp.PyArray_SIZE(places), key)
