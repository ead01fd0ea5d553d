/* What the object header of a plain dataset says, read from the file's bytes without libhdf5.
 *
 * Plain: version 1 of the header, as libhdf5 writes it unless told otherwise; numbers of one of the types given; contiguous, or
 * one chunk of just the dataset's size. Of anything else, and of anything that is not exactly as expected, nothing is said: libhdf5
 * is to be asked. Names are those of the HDF5 File Format Specification.
 */
#ifndef H5FAST_HEADER_H
#define H5FAST_HEADER_H

#include <stddef.h>
#include <stdint.h>

enum {
    H5FAST_HEADER_RANK = 8,
    H5FAST_HEADER_FILTERS = 8,
    H5FAST_HEADER_VALUES = 16 /* of a filter */
};

/* Copies up to `size` bytes of the file from an offset on; returns how many there were. */
typedef size_t (*h5fast_fetch)(void *context, uint64_t offset, size_t size, uint8_t *out);

/* A datatype message, as the file has it, and bytes of an element. */
typedef struct {
    const uint8_t *message;
    size_t length;
    uint32_t size;
} h5fast_stored_type;

typedef struct {
    uint32_t id, count;
    uint32_t values[H5FAST_HEADER_VALUES];
} h5fast_header_filter;

typedef struct {
    int rank;
    uint64_t extents[H5FAST_HEADER_RANK];
    int type;         /* which of the types given */
    uint64_t bytes;   /* of all elements */
    uint64_t address; /* of the first stored byte, never 0 */
    uint64_t stored;  /* bytes there */
    uint32_t mask;    /* the chunk's filter mask */
    uint32_t filter_count;
    h5fast_header_filter filters[H5FAST_HEADER_FILTERS];
    int has_attributes;
    int64_t modified;     /* INT64_MIN where no attribute tells */
    uint32_t permissions; /* 0 where no attribute tells */
} h5fast_header;

/* 1: `out` is what libhdf5 would say of the object at this address, and its bytes lie within the file's; 0: ask libhdf5. Any
 * bytes may be there. */
int h5fast_header_read(h5fast_fetch fetch, void *context, uint64_t file_bytes, uint64_t address,
                       const h5fast_stored_type *types, int type_count, h5fast_header *out);

#endif
