/* The order of one epoch: which item stands at a position, and at which positions an item stands.
 *
 * Items are numbered 0 … count - 1 in file order; which row of which file an item is, is not known here. All orders but the
 * drawn one are pure functions: they cost no memory by item, and the last position is as quick to find as the first.
 */
#ifndef H5FAST_ORDER_H
#define H5FAST_ORDER_H

#include "permutation.h"

#define H5FAST_NEVER UINT64_MAX

typedef enum {
    H5FAST_ORDER_FILE,    /* as they lie in the files */
    H5FAST_ORDER_EXACT,   /* every order equally likely, as far as a 64-bit key tells them apart */
    H5FAST_ORDER_BATCHES, /* runs of `run` items in random order; the last, shorter one stays last */
    H5FAST_ORDER_BLOCKS,  /* groups in random order; the items of `window` groups in a row mixed with one another */
    H5FAST_ORDER_DRAWN    /* as listed: some items several times, others never */
} h5fast_order_kind;

typedef struct {
    h5fast_order_kind kind;
    uint64_t count;       /* items */
    uint64_t length;      /* positions. Those from count on repeat the order from its start; DRAWN: <= listed */
    uint64_t key;         /* of this epoch */

    /* What the kinds need; set by the caller, who keeps it alive. */
    uint64_t run;             /* BATCHES */
    const uint64_t *groups;   /* BLOCKS: first item of each group, and the count behind the last; ascending strictly */
    uint64_t group_count;
    uint64_t window;          /* BLOCKS: groups, >= 1 */
    uint64_t listed;          /* DRAWN: items drawn */
    const int64_t *drawn;     /* DRAWN: the item at each position */
    const int64_t *by_item;   /* DRAWN: all positions of `drawn`, ascending by item and then by position */

    /* Its own. */
    h5fast_permutation shuffled; /* EXACT: of items; BATCHES: of whole runs; BLOCKS: of groups */
    uint64_t *starts;            /* BLOCKS: where each group, in shuffled order, would start without the mixing */
} h5fast_order;

/* Makes what the order needs. H5FAST_MEMORY if that does not fit. Free with h5fast_order_free, also after a failure. */
h5fast_status h5fast_order_make(h5fast_order *order) H5FAST_CHECKED;
void h5fast_order_free(h5fast_order *order);

/* The items at positions [first, first + count), which are < length. */
void h5fast_order_items(const h5fast_order *order, uint64_t first, uint64_t count, int64_t *items);

/* The first position >= from at which an item (< count) stands; H5FAST_NEVER where it does not come any more. */
uint64_t h5fast_order_next(const h5fast_order *order, uint64_t item, uint64_t from);

/* The last of ascending[0 … count] that is <= value, for ascending[0] <= value < ascending[count]. */
static inline uint64_t h5fast_last_at_most(const uint64_t *ascending, uint64_t count, uint64_t value)
{
    uint64_t low = 0, high = count;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (ascending[middle] <= value)
            low = middle;
        else
            high = middle;
    }
    return low;
}

#endif
