# cython: language_level=3
"""Arrays for results, whose memory is kept when they are freed and used again by the next of the same size."""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

import numpy as np

cnp.import_array()


cdef extern from "blocks.h":
    size_t H5FAST_BLOCK_LEAST, H5FAST_BLOCK_MOST
    void *h5fast_blocks_malloc(void *context, size_t size) noexcept nogil
    void *h5fast_blocks_calloc(void *context, size_t count, size_t size) noexcept nogil
    void *h5fast_blocks_realloc(void *context, void *block, size_t size) noexcept nogil
    void h5fast_blocks_free(void *context, void *block, size_t size) noexcept nogil
    size_t h5fast_blocks_kept()

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void *ctx
        void *(*malloc)(void *ctx, size_t size) noexcept nogil
        void *(*calloc)(void *ctx, size_t count, size_t size) noexcept nogil
        void *(*realloc)(void *ctx, void *block, size_t size) noexcept nogil
        void (*free)(void *ctx, void *block, size_t size) noexcept nogil
    ctypedef struct PyDataMem_Handler:
        char name[127]
        uint8_t version
        PyDataMemAllocator allocator
    object PyDataMem_SetHandler(object handler)

cdef PyDataMem_Handler block_handler
memset(&block_handler, 0, sizeof(block_handler))
memcpy(block_handler.name, b"h5fast_blocks", 13)
block_handler.version = 1
block_handler.allocator.malloc = h5fast_blocks_malloc
block_handler.allocator.calloc = h5fast_blocks_calloc
block_handler.allocator.realloc = h5fast_blocks_realloc
block_handler.allocator.free = h5fast_blocks_free
cdef object block_capsule = PyCapsule_New(&block_handler, "mem_handler", NULL)


def empty(tuple shape, dtype) -> np.ndarray:
    """np.empty(shape, dtype), for results: memory of a freed result of the same size is used again."""
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    if not H5FAST_BLOCK_LEAST <= size <= H5FAST_BLOCK_MOST or dtype.hasobject:
        return np.empty(shape, dtype)
    before = PyDataMem_SetHandler(block_capsule)
    try:
        return np.empty(shape, dtype)
    finally:
        PyDataMem_SetHandler(before)


def kept_bytes() -> int:
    """Bytes of freed results that are kept for the next ones."""
    return h5fast_blocks_kept()
