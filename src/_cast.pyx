# cython: language_level=3
"""What take() asks of the engine for each row: a type, a scale and an offset, another order of axes."""

cimport cython
cimport numpy as cnp
from libc.stdint cimport uint64_t

import numpy as np

cnp.import_array()

cdef extern from "cast.h":
    ctypedef enum h5fast_kind:
        H5FAST_I8, H5FAST_U8, H5FAST_I16, H5FAST_U16, H5FAST_I32, H5FAST_U32, H5FAST_I64, H5FAST_U64
        H5FAST_F32, H5FAST_F64, H5FAST_RAW
    int h5fast_cast_choose(h5fast_cast *cast, h5fast_kind source, int swapped, h5fast_kind to)

cdef dict KINDS = {
    ("i", 1): H5FAST_I8, ("u", 1): H5FAST_U8, ("i", 2): H5FAST_I16, ("u", 2): H5FAST_U16,
    ("i", 4): H5FAST_I32, ("u", 4): H5FAST_U32, ("i", 8): H5FAST_I64, ("u", 8): H5FAST_U64,
    ("f", 4): H5FAST_F32, ("f", 8): H5FAST_F64,
}


@cython.final
cdef class Cast:
    """What happens to each row on its way out: out = row.astype(dtype) * scale + offset, last axis first if asked.

    Args:
        source: dtype of the file's elements
        target: dtype of the output; the source's own moves elements untouched
        row_shape: shape of a row
        scale, offset: contiguous arrays of the target dtype with one value, or one per channel (last axis); or None
        channels_first: move the last axis of a row to its front

    ``fused`` tells whether the engine has a kernel for it.
    """
    def __init__(self, source, target, tuple row_shape, scale, offset, bint channels_first):
        cdef int length = 1
        for values in (scale, offset):
            if values is not None:
                length = max(length, len(values))
        self.cast.elements = 1
        for extent in row_shape:
            self.cast.elements *= extent
        self.cast.itemsize = source.itemsize
        self.cast.channels = row_shape[len(row_shape) - 1] if row_shape and (channels_first or length > 1) else 1
        self.cast.channels_first = channels_first and self.cast.channels > 1
        self.scale, self.offset = spread(scale, self.cast.channels), spread(offset, self.cast.channels)
        self.cast.scale = NULL if self.scale is None else cnp.PyArray_DATA(self.scale)
        self.cast.offset = NULL if self.offset is None else cnp.PyArray_DATA(self.offset)
        kind = KINDS.get((source.kind, source.itemsize), H5FAST_RAW)
        untouched = source == target and scale is None and offset is None
        to = H5FAST_RAW if untouched else KINDS.get((target.kind, target.itemsize), H5FAST_I8)
        self.fused = (not (kind == H5FAST_RAW and not untouched) and target.isnative or untouched) and (
            h5fast_cast_choose(&self.cast, kind, not source.isnative, to) != 0)


cdef object spread(array, uint64_t channels):
    """One value for every channel, as the kernels index them."""
    if array is None or len(array) == channels:
        return array
    return np.repeat(array, channels)
