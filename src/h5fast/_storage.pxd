from libc.stdint cimport uint8_t, uint64_t

from h5fast._selection cimport Selection

cdef extern from "storage.h":
    enum: H5FAST_MAX_RANK, H5FAST_MAX_FILTERS
    ctypedef size_t (*h5fast_plugin)(unsigned, size_t, const unsigned *, size_t, size_t *, void **) noexcept nogil
    ctypedef struct h5fast_filter:
        int id
        h5fast_plugin plugin
        size_t cd_nelmts
        const unsigned *cd_values
    ctypedef struct h5fast_storage:
        int rank
        uint64_t shape[H5FAST_MAX_RANK]
        uint64_t chunk[H5FAST_MAX_RANK]
        uint64_t grid[H5FAST_MAX_RANK]
        uint64_t itemsize
        uint64_t chunk_bytes
        int filter_count
        h5fast_filter filters[H5FAST_MAX_FILTERS]
        int raw_edges
        const uint8_t *fill
        uint64_t fill_bytes

cdef class Storage:
    cdef h5fast_storage storage
    cdef h5fast_storage by_bytes    # the same with the bytes of an element as a last axis
    cdef object kept                # owns what the structs point to
    cdef readonly uint64_t chunk_count
    cdef readonly bint is_chunked

    cdef int set_filters(self, filters) except -1
    cdef int set_axes(self, tuple shape, tuple chunk) except -1
    cdef int covered(self, Selection selection, int axis, uint64_t *first, uint64_t *last) noexcept
