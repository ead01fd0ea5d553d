/* The part of the HDF5 C API that h5fast calls, as function pointers.
 *
 * h5fast never links libhdf5. src/_library.pyx fills this table from the very library that h5py loaded, so identifiers
 * are shared with it. The types are those of HDF5 1.14 and 2.x: hid_t has been 64 bits wide since 1.10.
 * That library is not thread-safe: every call through the table holds h5py's lock (`phil`) and the GIL.
 */
#ifndef H5FAST_HDF5_API_H
#define H5FAST_HDF5_API_H

#include <stddef.h>
#include <stdint.h>

typedef int64_t h5_hid;
typedef int (*h5_chunk_callback)(const uint64_t *offset, unsigned filter_mask, uint64_t address, uint64_t size,
                                 void *context);

typedef struct {
    int (*chunk_iter)(h5_hid dataset, h5_hid transfer, h5_chunk_callback callback, void *context);
    int (*get_chunk_index_type)(h5_hid dataset, int *index_type);
    int (*get_chunk_opts)(h5_hid create_plist, unsigned *options);
    int (*get_chunk_storage_size)(h5_hid dataset, const uint64_t *offset, uint64_t *size);
    /* HDF5 1.14 has H5Dread_chunk, 2.x H5Dread_chunk1 (the same signature) and H5Dread_chunk2 (which is told the size). */
    int (*read_chunk1)(h5_hid dataset, h5_hid transfer, const uint64_t *offset, uint32_t *filter_mask, void *buffer);
    int (*read_chunk2)(h5_hid dataset, h5_hid transfer, const uint64_t *offset, uint32_t *filter_mask, void *buffer,
                       size_t *buffer_size);
} h5fast_hdf5_api;

#define H5_CHUNK_INDEX_EXTENSIBLE_ARRAY 4   /* H5D_CHUNK_IDX_EARRAY */
#define H5_DONT_FILTER_PARTIAL_CHUNKS 2u    /* H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS */

#endif
