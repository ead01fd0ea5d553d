from libc.stdint cimport uint64_t

cimport numpy as cnp

cdef extern from "cast.h":
    ctypedef struct h5fast_cast:
        uint64_t elements
        uint64_t channels
        uint64_t itemsize
        int channels_first
        const void *scale
        const void *offset
        void *kernel

cdef class Cast:
    cdef h5fast_cast cast
    cdef readonly bint fused
    cdef cnp.ndarray scale, offset
