/* A field of the batches: the files that its rows lie in, what becomes of them, and what is kept of them.
 *
 * What the pointers lead to is the caller's, and outlives every filler of the field. One filler at a time uses a field; its
 * store, and the bits of `touched`, are that filler's to change. The counters may be read by any thread at any time. Nothing
 * but `cast`, `touched`, `kept` and what a kind of store does not need may be NULL. The functions here are arithmetic.
 */
#ifndef H5FAST_FIELD_H
#define H5FAST_FIELD_H

#include "gather.h"
#include "rowcache.h"

/* One file's share of a field: rows [offset, offset + rows) of its dataset are rows [first, first + rows) of the loader. */
typedef struct {
    const h5fast_storage *storage;
    const h5fast_index *index;
    h5fast_source *source;
    uint64_t first, rows, offset;
    uint64_t group_rows;  /* rows that are decoded together: the length of its chunks along axis 0 */
    uint64_t first_group; /* number, among those of the field, of the group that row `first` is in */
    h5fast_kept *kept;    /* decoded chunks of its dataset, for reads that no order announces; or NULL */
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
    /* What the epoch cost so far. Written by the filler, read by others at any time. */
    _Atomic uint64_t decodes, stored_bytes, groups_touched;
} h5fast_field;

typedef struct {
    h5fast_error what;        /* status H5FAST_OK: none */
    uint32_t field, part;
} h5fast_fill_error;

/* The part that a row of the loader lies in. */
static inline uint32_t h5fast_part_of(const h5fast_field *field, uint64_t row)
{
    uint32_t low = 0, high = field->part_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (field->parts[middle].first <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The row of the part's dataset that a row of the loader is. */
static inline uint64_t h5fast_row_in_part(const h5fast_part *part, uint64_t row)
{
    return row - part->first + part->offset;
}

/* The group that a row of the loader lies in, counted through all parts of the field. The second: of any part. */
static inline uint64_t h5fast_group_in_part(const h5fast_part *part, uint64_t row)
{
    return part->first_group + h5fast_row_in_part(part, row) / part->group_rows - part->offset / part->group_rows;
}

static inline uint64_t h5fast_group_of(const h5fast_field *field, uint64_t row)
{
    return h5fast_group_in_part(&field->parts[h5fast_part_of(field, row)], row);
}

static inline const h5fast_part *h5fast_part_of_group(const h5fast_field *field, uint64_t group)
{
    uint32_t low = 0, high = field->part_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (field->parts[middle].first_group <= group)
            low = middle;
        else
            high = middle;
    }
    return &field->parts[low];
}

/* The rows [*begin, *end) of the loader that are in a group. */
static inline void h5fast_rows_of_group(const h5fast_field *field, uint64_t group, uint64_t *begin, uint64_t *end)
{
    const h5fast_part *part = h5fast_part_of_group(field, group);
    uint64_t first = (part->offset / part->group_rows + group - part->first_group) * part->group_rows;
    uint64_t last = first + part->group_rows, limit = part->offset + part->rows;
    first = first > part->offset ? first : part->offset;
    last = last < limit ? last : limit;
    *begin = first - part->offset + part->first;
    *end = last - part->offset + part->first;
}

static inline int h5fast_bit(const uint8_t *bits, uint64_t at)
{
    return bits[at / 8] >> at % 8 & 1;
}

static inline void h5fast_set_bit(uint8_t *bits, uint64_t at)
{
    bits[at / 8] |= (uint8_t)(1u << at % 8);
}

#endif
