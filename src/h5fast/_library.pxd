from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "hdf5_api.h":
    ctypedef int64_t h5_hid
    ctypedef int (*h5_chunk_callback)(const uint64_t *offset, unsigned filter_mask,
                                      uint64_t address, uint64_t size, void *context) noexcept
    ctypedef struct h5_token:
        unsigned char bytes[16]
    ctypedef union h5_link_target:
        h5_token token
        size_t size
    ctypedef struct h5_link:
        int type
        h5_link_target target
    ctypedef struct h5_object:
        h5_token token
        int type
        uint64_t attributes
    ctypedef int (*h5_link_callback)(h5_hid group, const char *name, const h5_link *link, void *context) noexcept
    ctypedef struct h5fast_hdf5_api:
        int (*chunk_iter)(h5_hid dataset, h5_hid transfer, h5_chunk_callback callback, void *context) noexcept
        int (*get_chunk_index_type)(h5_hid dataset, int *index_type) noexcept
        int (*get_chunk_opts)(h5_hid create_plist, unsigned *options) noexcept
        int (*set_fill_value)(h5_hid create_plist, h5_hid type, const void *value) noexcept
        int (*get_chunk_storage_size)(h5_hid dataset, const uint64_t *offset,
                                      uint64_t *size) noexcept
        int (*read_chunk1)(h5_hid dataset, h5_hid transfer, const uint64_t *offset,
                           uint32_t *filter_mask, void *buffer) noexcept
        int (*read_chunk2)(h5_hid dataset, h5_hid transfer, const uint64_t *offset,
                           uint32_t *filter_mask, void *buffer, size_t *buffer_size) noexcept
        int (*write_chunk)(h5_hid dataset, h5_hid transfer, uint32_t filter_mask, const uint64_t *offset, size_t size,
                           const void *data) noexcept
        int (*link_iterate)(h5_hid group, int index_type, int order, uint64_t *position, h5_link_callback callback,
                            void *context) noexcept
        h5_hid (*object_open)(h5_hid place, const char *name, h5_hid access) noexcept
        h5_hid (*object_open_by_token)(h5_hid place, h5_token token) noexcept
        int (*object_close)(h5_hid object) noexcept
        int (*object_info)(h5_hid object, h5_object *info, unsigned fields) noexcept
        int (*link_info)(h5_hid place, const char *name, h5_link *info, h5_hid access) noexcept
        h5_hid (*dataset_type)(h5_hid dataset) noexcept
        h5_hid (*dataset_space)(h5_hid dataset) noexcept
        uint64_t (*dataset_offset)(h5_hid dataset) noexcept
        int (*type_class)(h5_hid type) noexcept
        size_t (*type_size)(h5_hid type) noexcept
        int (*type_sign)(h5_hid type) noexcept
        size_t (*type_precision)(h5_hid type) noexcept
        int (*type_close)(h5_hid type) noexcept
        int (*space_rank)(h5_hid space) noexcept
        int64_t (*space_points)(h5_hid space) noexcept
        int (*space_close)(h5_hid space) noexcept
        int (*space_extents)(h5_hid space, uint64_t *extents, uint64_t *most) noexcept
        int (*type_equal)(h5_hid one, h5_hid other) noexcept
        h5_hid (*dataset_properties)(h5_hid dataset) noexcept
        int (*properties_close)(h5_hid properties) noexcept
        int (*properties_layout)(h5_hid properties) noexcept
        int (*properties_chunk)(h5_hid properties, int most, uint64_t *extents) noexcept
        int (*properties_filters)(h5_hid properties) noexcept
        int (*properties_filter)(h5_hid properties, unsigned place, unsigned *flags, size_t *count, unsigned *values,
                                 size_t name_size, char *name, unsigned *available) noexcept
        int (*attribute_exists)(h5_hid object, const char *name) noexcept
        h5_hid (*attribute_open)(h5_hid object, const char *name, h5_hid access) noexcept
        h5_hid (*attribute_space)(h5_hid attribute) noexcept
        int (*attribute_read)(h5_hid attribute, h5_hid type, void *buffer) noexcept
        int (*attribute_close)(h5_hid attribute) noexcept
    int H5_INDEX_BY_NAME, H5_ITERATE_UPWARDS, H5_LINK_HARD, H5_OBJECT_GROUP, H5_OBJECT_DATASET
    int H5_TYPE_INTEGER, H5_SIGN_NONE, H5_LAYOUT_CHUNKED
    unsigned H5_INFO_BASIC, H5_INFO_ATTRIBUTES
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
