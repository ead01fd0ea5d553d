/* How one dataset lies in its file, and which chunk lies where: the types that plan, decoder and engine share. */
#ifndef H5FAST_STORAGE_H
#define H5FAST_STORAGE_H

#include "status.h"

/* HDF5's own limit on rank is 32; one more axis for the bytes of an element, when a field of a compound is read. */
#define H5FAST_MAX_RANK 33
#define H5FAST_MAX_FILTERS 32 /* H5Z_MAX_NFILTERS; one bit each in a chunk's filter mask */

enum { H5FAST_FILTER_DEFLATE = 1, H5FAST_FILTER_SHUFFLE = 2, H5FAST_FILTER_FLETCHER32 = 3, H5FAST_FILTER_LZF = 32000 };

/* The `filter` member of a plugin's H5Z_class2_t: decodes *buffer (malloc'd, replaced at will) and returns the number of
 * valid bytes, 0 on error. */
typedef size_t (*h5fast_plugin)(unsigned flags, size_t cd_nelmts, const unsigned *cd_values, size_t nbytes,
                                size_t *buffer_size, void **buffer);

typedef struct {
    int id;
    h5fast_plugin plugin; /* NULL for the four filters above */
    size_t cd_nelmts;
    const unsigned *cd_values;
} h5fast_filter;

typedef struct {
    int rank;
    uint64_t shape[H5FAST_MAX_RANK]; /* dataset extent; rank 0 is one element */
    uint64_t chunk[H5FAST_MAX_RANK]; /* >= 1 each */
    uint64_t grid[H5FAST_MAX_RANK];  /* chunks along each axis, at the present extent */
    uint64_t itemsize;               /* bytes of one element */
    uint64_t chunk_bytes;            /* of a whole chunk; checked against overflow when the storage is made */
    int filter_count;
    h5fast_filter filters[H5FAST_MAX_FILTERS]; /* in the order of writing; decoded from the last to the first */
    int raw_edges;                   /* chunks that stick out of the extent are stored unfiltered */
    const uint8_t *fill;             /* one element, what unallocated chunks read as */
    uint64_t fill_bytes;             /* of it; itemsize, but where an element is split into bytes to read a field */
} h5fast_storage;

/* One stored chunk. address 0 means not allocated: byte 0 of a file is never a chunk. */
typedef struct {
    uint64_t address; /* absolute file offset */
    uint64_t size;    /* stored bytes */
    uint32_t mask;    /* bit i set: filter i was skipped */
} h5fast_chunk;

typedef enum { H5FAST_INDEX_DENSE, H5FAST_INDEX_SORTED, H5FAST_INDEX_CONTIGUOUS } h5fast_index_kind;

/* Where the chunks are. A chunk's number is its row-major position in the grid. */
typedef struct {
    h5fast_index_kind kind;
    uint64_t count;              /* DENSE: all chunks of the grid; SORTED: the allocated ones */
    const h5fast_chunk *chunks;
    const uint64_t *numbers;     /* SORTED: chunk numbers, ascending, one for each of chunks */
    uint64_t base;               /* CONTIGUOUS: file offset of the first element */
} h5fast_index;

/* The chunk with this number and these grid coordinates; address 0 if unallocated. */
h5fast_chunk h5fast_index_find(const h5fast_storage *storage, const h5fast_index *index, uint64_t number,
                               const uint64_t *coordinates);

#endif
