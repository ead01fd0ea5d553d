/* Filling one batch: field by field, what is kept is copied, the rest is read, and of what had to be decoded for it those
 * rows are kept that are needed soonest.
 *
 * It calls neither HDF5 nor Python. One thread fills, with the pool's helping it.
 */
#ifndef H5FAST_FILL_H
#define H5FAST_FILL_H

#include "gather.h"
#include "items.h"
#include "rowcache.h"
#include "schedule.h"

/* One file's share of a field: rows [offset, offset + rows) of its dataset are rows [first, first + rows) of the loader. */
typedef struct {
    const h5fast_storage *storage;
    const h5fast_index *index;
    h5fast_source *source;
    uint64_t first, rows, offset;
    uint64_t group_rows;  /* rows that are decoded together: the length of its chunks along axis 0 */
    uint64_t first_group; /* number, among those of the field, of the group that row `first` is in */
} h5fast_part;

typedef enum {
    H5FAST_STORE_NONE, /* rows are read for every batch */
    H5FAST_STORE_SOME, /* those needed soonest are kept */
    H5FAST_STORE_ALL   /* there is room for every item */
} h5fast_store_kind;

/* Rows that were decoded and not cast yet. It outlives a feed, so that the next epoch finds them. */
typedef struct {
    h5fast_store_kind kind;
    uint8_t *rows;           /* row_bytes each: SOME: at the slot that `cache` tells; ALL: at the item's own place */
    h5fast_rowcache *cache;  /* SOME */
    int64_t *items;          /* SOME: the item at each slot in use */
    uint8_t *present;        /* ALL: a bit for each group, set when its items are there */
} h5fast_store;

typedef struct {
    const h5fast_part *parts; /* ascending by first, without gaps */
    uint32_t part_count;
    h5fast_selection row;     /* what is taken of each row: axes 1 …; axis 0 is the filler's */
    uint64_t row_bytes;       /* as stored */
    uint64_t out_bytes;       /* in a batch */
    const h5fast_cast *cast;  /* or NULL */
    int is_fused;             /* the cast runs in the engine; else rows are staged, and cast from there */
    h5fast_store store;
    uint8_t *touched;         /* a bit for each group, set when the epoch takes a row of it; NULL: nothing is decoded */
    uint64_t *damaged;        /* groups that do not decode, found so far; the filler's, freed with it */
    uint64_t damaged_count;
    /* What the epoch cost so far. Written by the filler, read by others at any time. */
    _Atomic uint64_t decodes, stored_bytes, groups_touched;
} h5fast_field;

typedef struct {
    h5fast_error what;        /* status H5FAST_OK: none */
    uint32_t field, part;
} h5fast_fill_error;

typedef struct h5fast_filler h5fast_filler;

typedef struct {
    const h5fast_schedule *now, *next; /* of this epoch and of the one after */
    const h5fast_items *items;
    h5fast_field *const *fields;
    uint32_t field_count;
    int threads;
    int skip_damaged;         /* rows of chunks that do not decode are left out of their batch, instead of failing it */
} h5fast_filling;

/* NULL: no memory. What `filling` points to outlives the filler. */
h5fast_filler *h5fast_filler_make(const h5fast_filling *filling);
void h5fast_filler_free(h5fast_filler *filler); /* NULL is ignored */

/* What a store keeps may have been kept for another order or epoch: each row of it gets the position at which it is needed
 * from the start of `now` on, and what is not needed any more is dropped. */
void h5fast_filler_settle(h5fast_filler *filler);

/* A batch, and the memory for it. */
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

/* Bytes that the filler itself holds. */
uint64_t h5fast_filler_bytes(const h5fast_filler *filler);

#endif
