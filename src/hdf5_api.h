/* The part of the HDF5 C API that h5fast calls, as function pointers.
 *
 * h5fast never links libhdf5. src/_library.pyx fills this table from the very library that h5py loaded, so identifiers
 * are shared with it. The types are those of HDF5 1.14 and 2.x: hid_t has been 64 bits wide since 1.10.
 * That library is not thread-safe: every call through the table holds h5py's lock (`phil`) and the GIL.
 */
#ifndef H5FAST_HDF5_API_H
#define H5FAST_HDF5_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef int64_t h5_hid;
typedef int (*h5_chunk_callback)(const uint64_t *offset, unsigned filter_mask, uint64_t address, uint64_t size,
                                 void *context);

/* What a link of a group is, as H5Literate2 tells it (H5L_info2_t). A token names an object; its first bytes are the address
 * of the object's header. */
typedef struct {
    unsigned char bytes[16];
} h5_token;

typedef struct {
    int type;
    bool order_is_valid;
    int64_t order;
    int encoding;
    union {
        h5_token token; /* of a hard link */
        size_t size;    /* of any other link's value */
    } target;
} h5_link;

/* What an object is (H5O_info2_t). */
typedef struct {
    unsigned long file_number;
    h5_token token;
    int type;
    unsigned reference_count;
    time_t times[4];
    uint64_t attributes;
} h5_object;

typedef int (*h5_link_callback)(h5_hid group, const char *name, const h5_link *link, void *context);

typedef struct {
    int (*chunk_iter)(h5_hid dataset, h5_hid transfer, h5_chunk_callback callback, void *context);
    int (*get_chunk_index_type)(h5_hid dataset, int *index_type);
    int (*get_chunk_opts)(h5_hid create_plist, unsigned *options);
    int (*set_fill_value)(h5_hid create_plist, h5_hid type, const void *value);
    int (*get_chunk_storage_size)(h5_hid dataset, const uint64_t *offset, uint64_t *size);
    /* HDF5 1.14 has H5Dread_chunk, 2.x H5Dread_chunk1 (the same signature) and H5Dread_chunk2 (which is told the size). */
    int (*read_chunk1)(h5_hid dataset, h5_hid transfer, const uint64_t *offset, uint32_t *filter_mask, void *buffer);
    int (*read_chunk2)(h5_hid dataset, h5_hid transfer, const uint64_t *offset, uint32_t *filter_mask, void *buffer,
                       size_t *buffer_size);
    int (*write_chunk)(h5_hid dataset, h5_hid transfer, uint32_t filter_mask, const uint64_t *offset, size_t size, const void *data);
    int (*link_iterate)(h5_hid group, int index_type, int order, uint64_t *position, h5_link_callback callback, void *context);
    h5_hid (*object_open)(h5_hid place, const char *name, h5_hid access);
    h5_hid (*object_open_by_token)(h5_hid place, h5_token token);
    int (*object_close)(h5_hid object);
    int (*object_info)(h5_hid object, h5_object *info, unsigned fields);
    int (*link_info)(h5_hid place, const char *name, h5_link *info, h5_hid access);
    h5_hid (*dataset_type)(h5_hid dataset);
    h5_hid (*dataset_space)(h5_hid dataset);
    uint64_t (*dataset_offset)(h5_hid dataset);
    int (*type_class)(h5_hid type);
    size_t (*type_size)(h5_hid type);
    int (*type_sign)(h5_hid type);
    size_t (*type_precision)(h5_hid type);
    int (*type_close)(h5_hid type);
    int (*space_rank)(h5_hid space);
    int64_t (*space_points)(h5_hid space);
    int (*space_close)(h5_hid space);
    int (*space_extents)(h5_hid space, uint64_t *extents, uint64_t *most);
    int (*type_equal)(h5_hid one, h5_hid other);
    h5_hid (*dataset_properties)(h5_hid dataset);
    int (*properties_close)(h5_hid properties);
    int (*properties_layout)(h5_hid properties);
    int (*properties_chunk)(h5_hid properties, int most, uint64_t *extents);
    int (*properties_filters)(h5_hid properties);
    int (*properties_filter)(h5_hid properties, unsigned place, unsigned *flags, size_t *count, unsigned *values, size_t name_size,
                             char *name, unsigned *available);
    int (*attribute_exists)(h5_hid object, const char *name);
    h5_hid (*attribute_open)(h5_hid object, const char *name, h5_hid access);
    h5_hid (*attribute_space)(h5_hid attribute);
    int (*attribute_read)(h5_hid attribute, h5_hid type, void *buffer);
    int (*attribute_close)(h5_hid attribute);
} h5fast_hdf5_api;

#define H5_INDEX_BY_NAME 0
#define H5_ITERATE_UPWARDS 0
#define H5_LINK_HARD 0
#define H5_OBJECT_GROUP 0
#define H5_OBJECT_DATASET 1
#define H5_INFO_BASIC 1u
#define H5_INFO_ATTRIBUTES 4u
#define H5_TYPE_INTEGER 0
#define H5_SIGN_NONE 0
#define H5_LAYOUT_CHUNKED 2
#define H5_CHUNK_INDEX_EXTENSIBLE_ARRAY 4   /* H5D_CHUNK_IDX_EARRAY */
#define H5_DONT_FILTER_PARTIAL_CHUNKS 2u    /* H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS */

#endif
