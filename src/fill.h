/* Filling one batch: field by field, what is kept is copied, the rest is read, and of what had to be decoded for it those
 * rows are kept that are needed soonest.
 *
 * It calls neither HDF5 nor Python. One thread at a time is in a filler, with the pool's helping it; others may ask
 * h5fast_filler_bytes meanwhile. No pointer may be NULL but that to free.
 */
#ifndef H5FAST_FILL_H
#define H5FAST_FILL_H

#include "field.h"
#include "items.h"
#include "schedule.h"

typedef struct h5fast_filler h5fast_filler;

typedef struct {
    const h5fast_schedule *now, *next; /* of this epoch and of the one after */
    const h5fast_items *items;
    h5fast_field *const *fields;
    uint32_t field_count;
    int threads;
    int skip_damaged;         /* rows of chunks that do not decode are left out of their batch, instead of failing it */
} h5fast_filling;

/* NULL: no memory. What `filling` points to stays the caller's, and outlives the filler. */
h5fast_filler *h5fast_filler_make(const h5fast_filling *filling);
void h5fast_filler_free(h5fast_filler *filler); /* NULL is ignored */

/* What a store keeps may have been kept for another order or epoch: each row of it gets the position at which it is needed
 * from the start of `now` on, and what is not needed any more is dropped. */
void h5fast_filler_settle(h5fast_filler *filler);

/* A batch, and the memory for it, which is the caller's. */
typedef struct {
    uint8_t **outs;           /* for each field: room for schedule.batch rows of it */
    int64_t *items;           /* room for as many: the items that were put there */
    uint64_t step;
    uint64_t count;           /* rows that were put there */
    uint64_t dropped;         /* rows that are missing because their chunks are damaged */
} h5fast_batch;

/* Fills a step's batch. H5FAST_CANCELLED where `stop` became 1, or the process was forked; on failure *error says what and
 * where. */
h5fast_status h5fast_filler_fill(h5fast_filler *filler, uint64_t step, h5fast_batch *batch, _Atomic int *stop,
                                 h5fast_fill_error *error) H5FAST_CHECKED;

/* Bytes that the filler itself holds. Any thread. */
uint64_t h5fast_filler_bytes(const h5fast_filler *filler);

#endif
