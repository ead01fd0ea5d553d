from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "hdf5_api.h":
    ctypedef int64_t h5_hid
    ctypedef int (*h5_chunk_callback)(const uint64_t *offset, unsigned filter_mask,
                                      uint64_t address, uint64_t size, void *context) noexcept
    ctypedef struct h5fast_hdf5_api:
        int (*chunk_iter)(h5_hid dataset, h5_hid transfer, h5_chunk_callback callback, void *context) noexcept
        int (*get_chunk_index_type)(h5_hid dataset, int *index_type) noexcept
        int (*get_chunk_opts)(h5_hid create_plist, unsigned *options) noexcept
        int (*get_chunk_storage_size)(h5_hid dataset, const uint64_t *offset,
                                      uint64_t *size) noexcept
        int (*read_chunk1)(h5_hid dataset, h5_hid transfer, const uint64_t *offset,
                           uint32_t *filter_mask, void *buffer) noexcept
        int (*read_chunk2)(h5_hid dataset, h5_hid transfer, const uint64_t *offset,
                           uint32_t *filter_mask, void *buffer, size_t *buffer_size) noexcept
    int H5_CHUNK_INDEX_EXTENSIBLE_ARRAY
    unsigned H5_DONT_FILTER_PARTIAL_CHUNKS

cdef extern from "inflate.h":
    ctypedef struct h5fast_inflate_api:
        void *(*alloc_decompressor)() noexcept nogil
        void (*free_decompressor)(void *) noexcept nogil
        int (*zlib_decompress_ex)(void *, const void *, size_t, void *, size_t, size_t *, size_t *) noexcept nogil
        int (*inflate_init)(void *, const char *, int) noexcept nogil
        int (*inflate)(void *, int) noexcept nogil
        int (*inflate_end)(void *) noexcept nogil

cdef extern from "deflate.h":
    ctypedef struct h5fast_deflate_api:
        void *(*alloc_compressor)(int) noexcept nogil
        void (*free_compressor)(void *) noexcept nogil
        size_t (*zlib_compress)(void *, const void *, size_t, void *, size_t) noexcept nogil
        int (*compress2)(uint8_t *, unsigned long *, const uint8_t *, unsigned long, int) noexcept nogil

cdef h5fast_hdf5_api hdf5

cdef bint find_libdeflate(h5fast_inflate_api *inflating, h5fast_deflate_api *deflating)
cdef int find_zlib(h5fast_inflate_api *inflating, h5fast_deflate_api *deflating) except -1
cdef void *plugin_filter(int filter_id)
