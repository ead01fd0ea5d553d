/* Decoded chunks of datasets, kept for the reads to come: what HDF5's chunk cache is to h5py.
 *
 * Reading row by row would decode a chunk again for every row of it. A chunk that is touched for the second time, with not
 * many others in between, is therefore decoded whole into memory of the cache, and read from there until others that are
 * touched more lately need its place. One touch alone keeps nothing: rows that are picked at random from a large dataset
 * stop decoding at the last byte they need, and leave what is kept alone.
 *
 * Any thread may call. A chunk that is held stays in memory until it is released. A forked child inherits what was kept;
 * chunks that other threads held at that moment stay held there for good.
 */
#ifndef H5FAST_KEPT_H
#define H5FAST_KEPT_H

#include "status.h"

typedef struct h5fast_kept_pool h5fast_kept_pool; /* the memory that datasets, those of one file, share */
typedef struct h5fast_kept h5fast_kept;           /* what is kept of one dataset */

/* Memory for at most `limit` bytes of chunks. NULL: there is none even to say so. Freed after all that share it. */
h5fast_kept_pool *h5fast_kept_pool_make(uint64_t limit);
void h5fast_kept_pool_free(h5fast_kept_pool *pool); /* NULL is ignored */

/* For a dataset with chunks of `chunk_bytes` (> 0) each. NULL where not even one fits the pool, or memory is out: reading goes
 * on without. Free with h5fast_kept_free when nothing is held. */
h5fast_kept *h5fast_kept_make(h5fast_kept_pool *pool, uint64_t chunk_bytes);
void h5fast_kept_free(h5fast_kept *kept); /* NULL is ignored */

/* Chunks that fit. A read of more than these at once would only drive them out. */
uint64_t h5fast_kept_slots(const h5fast_kept *kept);

/* What a read has of a chunk. */
typedef struct {
    uint8_t *bytes; /* the chunk's place in the cache; NULL: decode as if there were no cache, and release nothing */
    uint32_t entry;
    int is_filled;  /* the decoded chunk is there; 0: the holder may decode all of it to `bytes`, and says so at release */
} h5fast_hold;

/* Touches a chunk; *hold is what there is of it. */
void h5fast_kept_touch(h5fast_kept *kept, uint64_t number, h5fast_hold *hold);

/* Gives back what h5fast_kept_touch handed out; is_filled as the holder leaves it. */
void h5fast_kept_release(h5fast_kept *kept, const h5fast_hold *hold);

/* Bytes of chunks in memory, of all that share the pool; for tests. */
uint64_t h5fast_kept_pool_bytes(h5fast_kept_pool *pool);

#endif
