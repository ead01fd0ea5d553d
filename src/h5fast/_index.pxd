from libc.stdint cimport uint32_t, uint64_t

cdef extern from "storage.h":
    enum: H5FAST_MAX_RANK
    ctypedef struct h5fast_chunk:
        uint64_t address
        uint64_t size
        uint32_t mask
    ctypedef enum h5fast_index_kind:
        H5FAST_INDEX_DENSE
        H5FAST_INDEX_SORTED
        H5FAST_INDEX_CONTIGUOUS
    ctypedef struct h5fast_index:
        h5fast_index_kind kind
        uint64_t count
        const h5fast_chunk *chunks
        const uint64_t *numbers
        uint64_t base

cdef class ChunkIndex:
    cdef h5fast_index index
    cdef h5fast_chunk *chunks
    cdef uint64_t *numbers
    cdef readonly uint64_t allocated
